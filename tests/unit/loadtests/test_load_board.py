"""The master knows what each worker made, and calls a test INCONCLUSIVE that it cannot rest on."""

import json

import pytest

from holdfast_loadtests.ledger import Ledger
from holdfast_loadtests.locusting.board import Board
from holdfast_loadtests.locusting.files import write_files
from holdfast_loadtests.locusting.texts import ALL, generator_rows, latency_rows, summary_lines

GET = "p.S/Get"


def ledger(calls=10, lag_s=0.0, code="OK", outcome="ok", wrong="") -> Ledger:
    found = Ledger()
    for number in range(calls):
        found.record(GET, code, outcome, 0.001 * (number + 1), lag_s, wrong)
    return found


def report(found: Ledger, test=1) -> dict:
    return {"test": test, "found": found.as_json()}


def final(found: Ledger, ended: int, **more) -> dict:
    told = {"ended": ended, "ended_by_stop": ended, "seconds": 2.0, "cpu_share": 0.2, "stall_ms_max": 1.0}
    return {**report(found), **told, "unended": 0, "out_of_room": 0, "problem": "", **more}


def board_of(*workers) -> Board:
    board = Board(1, workers)
    for worker in workers:
        board.ready(worker, 5.0)
    return board


def test_a_test_whose_workers_all_told_everything_has_no_doubts():
    board = board_of("a", "b")
    board.report("a", report(ledger(10)))
    board.finish("a", final(ledger(5), 15))
    assert not board.is_over
    board.finish("b", final(ledger(20), 20))
    assert board.is_over
    assert board.doubts() == []
    expected = Ledger()
    for found in (ledger(10), ledger(5), ledger(20)):
        expected.add(found)
    assert board.shown.all_latency().as_json() == expected.all_latency().as_json()
    assert board.shown.lag.as_json() == expected.lag.as_json()
    assert board.results.rps == 35 / 2.0


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (lambda board: board.lose("b", 7.0), ["worker b (2 of 2) was lost 7 s into the test", "1/2 of the load"]),
        (lambda board: board.fail("b", "cannot begin: no", is_input=False), ["worker b (2 of 2) cannot begin: no"]),
        (lambda board: board.finish("b", final(ledger(9), 10)), ["worker b (2 of 2) made 10 calls", "hold 9"]),
        (lambda board: board.finish("b", final(ledger(10, lag_s=0.2), 10)), ["(2 of 2) could not keep up", "200 ms"]),
        (lambda board: board.finish("b", final(ledger(), 10, cpu_share=0.99)), ["b (2 of 2)", "99% of its one core"]),
        (lambda board: board.finish("b", final(ledger(), 10, problem="lost it")), ["worker b (2 of 2) lost it"]),
        (lambda board: board.finish("b", final(ledger(), 10, unended=3)), ["worker b (2 of 2): 3 calls were still"]),
        (lambda board: board.finish("b", final(ledger(), 10, out_of_room=3)), ["3 calls were ended because"]),
        (lambda board: (board.finish("b", final(ledger(), 10)), board.late.append("c")), ["worker c joined"]),
    ],
)  # fmt: skip
def test_every_way_in_which_a_worker_fails_is_named(sabotage, words):
    board = board_of("a", "b")
    board.finish("a", final(ledger(), 10))
    sabotage(board)
    assert board.is_over
    [doubt] = board.doubts()
    assert all(word in doubt for word in words), doubt


def test_calls_that_were_never_sent_make_a_worker_one_that_could_not_keep_up():
    board = board_of("a")
    found = ledger(10)
    found.never_sent[GET] += 5
    board.finish("a", final(found, 10))
    assert "only 10 of 15 calls" in board.doubts()[0]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Ledger(), "no call was made"),
        (ledger(3, code="Unavailable", outcome="refused", wrong="down"), "no call was answered"),
    ],
)
def test_a_test_without_calls_or_answers_proves_nothing(found, words):
    board = board_of("a")
    board.finish("a", final(found, found.ended))
    assert words in board.doubts()[0]


def test_what_is_said_of_an_earlier_test_or_by_a_stranger_does_not_count():
    board = Board(2, ["a"])
    board.report("a", report(ledger(), test=1))
    board.report("stranger", report(ledger(), test=2))
    board.finish("a", final(ledger(), 10))
    assert (board.results.ended, board.is_over) == (0, False)


def test_a_worker_that_told_everything_can_go():
    board = board_of("a")
    board.finish("a", final(ledger(), 10))
    board.lose("a", 9.0)
    assert board.doubts() == []


def test_a_worker_that_failed_stays_failed_whatever_it_says_last():
    board = board_of("a")
    board.fail("a", "lost its way", is_input=False)
    board.finish("a", final(ledger(), 10))
    assert "worker a (1 of 1) lost its way" in board.doubts()[0]
    assert board.results.ended == 10


def test_one_that_was_only_silent_for_a_while_and_then_told_everything_is_not_lost():
    board = board_of("a")
    board.lose("a", 3.0)
    board.finish("a", final(ledger(), 10))
    assert board.doubts() == []


def test_a_reset_clears_what_is_shown_and_not_what_is_judged():
    board = board_of("a")
    board.report("a", report(ledger(10)))
    board.reset()
    board.finish("a", final(ledger(4), 14))
    assert (board.shown.ended, board.results.ended, board.doubts()) == (4, 14, [])


def test_the_end_of_arrivals_is_counted_from_where_the_last_worker_began():
    board = board_of("a", "b")
    board.begun("a", 10.0)
    assert not board.is_past(4.0, 99.0)
    board.begun("b", 12.0)
    assert [board.is_past(4.0, now_s) for now_s in (15.0, 16.5)] == [False, True]


def test_files_and_texts_hold_the_merged_percentiles(tmp_path):
    board = board_of("a", "b")
    board.finish("a", final(ledger(100), 100))
    board.finish("b", final(ledger(100, code="NotFound", outcome="definite", wrong="gone"), 100))
    rows = latency_rows(board.shown)
    assert [(row.method, row.calls, row.failed) for row in rows] == [(GET, 200, 100), (ALL, 200, 100)]
    assert rows[0].quantiles_ms[0] == pytest.approx(50.0, rel=1e-3)  # three significant digits
    assert rows[0].max_ms == 100.0
    assert any(f"{rows[0].quantiles_ms[0]:.3f}" in line and GET in line for line in summary_lines(board))
    assert [row.share for row in generator_rows(board)] == ["1/2", "2/2"]
    table, everything = write_files(board, tmp_path / "deep" / "run")
    assert f"{GET},200,100,0,{rows[0].quantiles_ms[0]}," in table.read_text()
    found = json.loads(everything.read_text())
    assert found["inconclusive"] == []
    assert sum(found["histogram"]["buckets"].values()) == 200
    assert [worker["calls"] for worker in found["workers"]] == [100, 100]
