"""What the journal acknowledged is read back, whatever moment the writer died at."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_chaos.journal import Entry, Journal, JournalError, outstanding, read
from holdfast_chaos.processes import ProcessIdentity

SERVER = ProcessIdentity(4711, 1000.5)
UNDO = {"kind": "latency", "proxy": "target"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


def test_entries_come_back_in_order_and_numbered(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.write("run_started", run_id="r", harness=SERVER)
        journal.write("intent", fault="f", undo=UNDO)
    with Journal.open(path) as journal:
        journal.write("injected", fault="f")
    assert [(entry.seq, entry.event) for entry in read(path)] == [(0, "run_started"), (1, "intent"), (2, "injected")]
    assert read(path)[1].fields == {"fault": "f", "undo": UNDO}


def test_an_entry_is_in_the_file_before_write_returns(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.write("intent", fault="f", undo=UNDO)
        assert [entry.event for entry in read(path)] == ["intent"]


def test_there_is_one_writer_at_a_time(path: Path) -> None:
    with Journal.open(path), pytest.raises(JournalError, match="another process writes"):
        Journal.open(path)
    Journal.open(path).close()


@settings(max_examples=60, deadline=None)  # an fsync takes as long as the disk is busy
@given(events=st.lists(st.text(max_size=20), min_size=1, max_size=6), cut=st.integers(0, 2000))
def test_a_journal_cut_anywhere_reads_as_what_came_before_and_goes_on(events: list[str], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with Journal.open(path) as journal:
            for event in events:
                journal.write(event, note="ünïcode\n")
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        survivors = whole[:cut].count(b"\n")
        assert [entry.event for entry in read(path)] == events[:survivors]
        with Journal.open(path) as journal:
            journal.write("after")
        assert [(entry.seq, entry.event) for entry in read(path)][-1] == (survivors, "after")
        assert len(read(path)) == survivors + 1


@pytest.mark.parametrize("damage", [b"not json\n", b"[]\n", b'{"seq": 1}\n', b"\xff\xfe\n", b"\n"])
def test_damage_before_the_last_line_is_named_by_its_line(path: Path, damage: bytes) -> None:
    with Journal.open(path) as journal:
        journal.write("a")
    path.write_bytes(path.read_bytes() + damage + b'{"seq": 2, "t": 1, "event": "b"}\n')
    with pytest.raises(JournalError, match=r"journal\.jsonl:2"):
        read(path)


def test_what_is_no_json_is_refused_and_leaves_no_trace(path: Path) -> None:
    with Journal.open(path) as journal:
        with pytest.raises(TypeError, match="cannot journal"):
            journal.write("a", what=object())
        journal.write("b")
    assert [entry.event for entry in read(path)] == ["b"]


def entries(*events: tuple[str, dict[str, object]]) -> list[Entry]:
    """What a journal of these events holds once it was written and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with Journal.open(path) as journal:
            for event, fields in events:
                journal.write(event, **fields)
        return read(path)


START = ("run_started", {"run_id": "r", "harness": SERVER})
INTENT = ("intent", {"fault": "f", "undo": UNDO})
STARTED = ("process_started", {"name": "server", "identity": SERVER})


def test_an_intent_is_outstanding_though_the_injection_never_followed() -> None:
    assert outstanding(entries(START, INTENT)).intents == {"f": UNDO}


@pytest.mark.parametrize("last", [("healed", {"fault": "f"}), ("undone", {"fault": "f", "by": "watchdog"})])
def test_a_healed_or_undone_fault_is_not(last: tuple[str, dict[str, object]]) -> None:
    assert not outstanding(entries(START, INTENT, ("injected", {"fault": "f"}), last)).intents


@pytest.mark.parametrize("last", [("heal_started", {"fault": "f"}), ("undo_failed", {"fault": "f"}), ("run_ended", {})])
def test_a_heal_that_was_only_begun_or_failed_leaves_it_outstanding(last: tuple[str, dict[str, object]]) -> None:
    assert outstanding(entries(START, INTENT, last)).intents == {"f": UNDO}


def test_a_process_is_outstanding_until_it_was_stopped() -> None:
    assert outstanding(entries(START, STARTED)).processes == {SERVER: "server"}
    assert not outstanding(entries(START, STARTED, ("process_stopped", {"identity": SERVER}))).processes


@pytest.mark.parametrize(
    "bad", [("intent", {}), ("process_started", {"identity": 5}), ("run_started", {"run_id": "r"})]
)
def test_an_entry_that_lacks_something_is_named(bad: tuple[str, dict[str, object]]) -> None:
    with pytest.raises(JournalError, match=bad[0]):
        outstanding(entries(bad))


def test_a_journal_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"file/journal\.jsonl"):
        Journal.open(tmp_path / "file" / "journal.jsonl")
