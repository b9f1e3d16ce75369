"""The places where a test may make the server die, and the text that chooses among them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from holdfast import failpoints
from holdfast.failpoints import Failpoint, WrongTrapError
from support.server import run_serve


@pytest.fixture(autouse=True)
def _nothing_stays_installed() -> Iterator[None]:
    yield
    failpoints.install(None)


@pytest.mark.parametrize("point", Failpoint)
def test_every_place_can_be_chosen_by_its_name(point: Failpoint) -> None:
    assert failpoints.parse(f"{point.value}=kill@7") == {point: 7}


def test_several_places_are_chosen_at_once() -> None:
    chosen = failpoints.arm({failpoints.VARIABLE: "before-commit=kill@7,after-fence=kill@1"})
    assert chosen == {Failpoint.BEFORE_COMMIT: 7, Failpoint.AFTER_FENCE: 1}


@pytest.mark.parametrize("environ", [{}, {failpoints.VARIABLE: ""}])
def test_nothing_is_installed_where_nothing_is_chosen(environ: dict[str, str]) -> None:
    assert failpoints.arm(environ) == {}
    assert failpoints._handler is None


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "before-commit",
        "before-commit=kill",
        "before-commit=sleep@1",
        "before-commit=kill@0",
        "Before-commit=kill@1",
        "before-commit=kill@-1",
        "before-commit=kill@1000001",
        "nowhere=kill@1",
        "before-commit=kill@1,",
        ",",
        "before-commit=kill@1,before-commit=kill@2",
        "before-commit=kill@1 ",
        "before-commit=kill@٣",
    ],
)
def test_anything_else_is_refused_with_the_text_in_the_message(text: str) -> None:
    with pytest.raises(WrongTrapError, match=failpoints.VARIABLE) as refused:
        failpoints.parse(text)
    assert repr(text.rsplit(",", 1)[-1]) in str(refused.value)


def test_the_process_dies_at_the_chosen_hit_and_not_before() -> None:
    """Another place counts for nothing, and the last words are out before the end."""
    program = (
        "from holdfast import failpoints as f\n"
        "f.arm({f.VARIABLE: 'before-commit=kill@3'})\n"
        "for n in range(9):\n"
        "    print(n, flush=True)\n"
        "    f.hit(f.Failpoint.AFTER_COMMIT)\n"
        "    f.hit(f.Failpoint.BEFORE_COMMIT)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -9
    assert ended.stdout.split() == ["0", "1", "2"]
    assert "failpoint_reached" in ended.stderr
    assert "before-commit" in ended.stderr


def test_a_server_refuses_a_choice_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "before-comit=kill@1")
    ended = run_serve("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "memory")
    assert ended.returncode == 3
    assert "before-comit" in ended.stderr
    assert "before-commit" in ended.stderr, "what there is, is not told"
