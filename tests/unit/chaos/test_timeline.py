"""The phases of a run lie end to end, each call has one cause, and recovery begins at a moment fixed beforehand."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.timeline import PlannedFault, PlannedPhase, TimelineError, resolve


def phases(*faults: PlannedFault, load_s: float | None = None) -> list[tuple[str, float, float]]:
    resolved = resolve(baseline_s=15, recovery_s=20, within_s=10, faults=faults, load_s=load_s)
    return [(phase.name, phase.start_s, phase.end_s) for phase in resolved]


def test_without_faults_recovery_follows_the_baseline() -> None:
    assert phases() == [("baseline", 0, 15), ("recovery", 15, 35)]


def test_a_fault_is_followed_by_the_time_to_recover_and_then_by_recovery() -> None:
    assert phases(PlannedFault("slow", 15, 8)) == [
        ("baseline", 0, 15), ("fault:slow", 15, 23), ("settle", 23, 33), ("recovery", 33, 53),
    ]  # fmt: skip


def test_between_two_faults_lies_a_settle() -> None:
    names = [name for name, _, _ in phases(PlannedFault("a", 15, 5), PlannedFault("b", 25, 5))]
    assert names == ["baseline", "fault:a", "settle", "fault:b", "settle", "recovery"]


def test_faults_may_be_listed_in_any_order() -> None:
    a, b = PlannedFault("a", 15, 5), PlannedFault("b", 25, 5)
    assert phases(a, b) == phases(b, a)


def test_a_baseline_lasts_until_the_first_fault() -> None:
    assert phases(PlannedFault("late", 40, 5))[0] == ("baseline", 0, 40)


def test_recovery_is_the_end_of_a_load_of_fixed_length() -> None:
    # The experiment of the design document: 60 s of load, the last fault over at 36 s.
    assert phases(PlannedFault("crash", 35, 1), load_s=60)[-2:] == [("settle", 36, 40), ("recovery", 40, 60)]


@pytest.mark.parametrize(
    ("faults", "load_s", "index", "key"),
    [
        ([PlannedFault("early", 5, 5)], None, 0, "at"),
        ([PlannedFault("a", 15, 10), PlannedFault("b", 20, 5)], None, 1, "at"),
        ([PlannedFault("late", 45, 5)], 60, 0, "at"),
        ([], 30, -1, "phases"),
    ],
    ids=["in the baseline", "over another", "no room for recovery", "load too short"],
)
def test_times_that_do_not_fit_name_the_fault(
    faults: list[PlannedFault], load_s: float | None, index: int, key: str
) -> None:
    with pytest.raises(TimelineError) as raised:
        phases(*faults, load_s=load_s)
    assert (raised.value.fault_index, raised.value.key) == (index, key)


@given(st.lists(st.tuples(st.floats(0.5, 50), st.floats(0.5, 20)), max_size=6))
def test_phases_cover_the_run_without_gap_or_overlap(gaps_and_lengths: list[tuple[float, float]]) -> None:
    at_s, faults = 15.0, []
    for number, (gap_s, length_s) in enumerate(gaps_and_lengths):
        faults.append(PlannedFault(f"f{number}", at_s + gap_s, length_s))
        at_s += gap_s + length_s
    resolved = resolve(baseline_s=15, recovery_s=20, within_s=10, faults=faults, load_s=None)
    assert resolved[0].start_s == 0
    assert all(before.end_s == after.start_s for before, after in pairwise(resolved))
    assert [phase.name for phase in resolved if phase.name.startswith("fault:")] == [fault.phase for fault in faults]
    assert resolved[-1] == PlannedPhase("recovery", resolved[-1].start_s, resolved[-1].start_s + 20)
