import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_loadtests.records import Call, RecordError, RecordWriter, end_of, labels_of, read_calls
from holdfast_loadtests.summary import distinct_rows, latencies, saturated, summarize, timeline


def call(ordinal=0, **parts):
    values = {
        "ordinal": ordinal, "step": 0, "attempt": 1, "phase": "baseline", "scenario": "s", "row": 0, "service": "p.S",
        "method": "M", "type": "unary", "due_s": 100.0 + ordinal, "sent_s": 100.0 + ordinal, "done_s": 100.01 + ordinal,
        "lag_ms": 0.5, "code": "OK", "outcome": "ok", "expected": True, "connection": 3, "error_class": "",
        "request": "ab", "note": "",
    }  # fmt: skip
    return Call(**{**values, **parts})


def write(writer, call):
    times = (round(at_s * 1e6) for at_s in (call.due_s, call.sent_s, call.done_s))
    numbers = (*call[:5], *times, round(call.lag_ms * 1e3))
    labels = labels_of(call.phase, call.scenario, call.service, call.method, call.type)
    writer.write(
        numbers, call.request, labels + end_of(call.code, call.outcome, call.expected, call.error_class, call.note)
    )


@given(st.text(max_size=60), st.floats(0, 2e9), st.booleans())
def test_a_call_is_read_back_as_it_was_written(tmp_path_factory, note, at_s, expected):
    path = tmp_path_factory.mktemp("record") / "calls.csv.gz"
    note = note.encode("utf-8", "ignore").decode().replace("\0", "")
    written = call(
        note=note.replace("\r", " ").replace("\n", " "), done_s=round(at_s, 6), expected=expected, phase='a "b", c'
    )
    writer = RecordWriter(path)
    write(writer, written)
    writer.close()
    assert list(read_calls(path)) == [written]


def test_what_was_flushed_is_readable_though_the_writer_died(tmp_path):
    path = tmp_path / "calls.csv.gz"
    writer = RecordWriter(path)
    for ordinal in range(500):
        write(writer, call(ordinal))
    writer.flush()
    for ordinal in range(500, 3000):
        write(writer, call(ordinal))
    writer.flush()
    whole = path.read_bytes()
    for size in (len(whole), len(whole) - 1, len(whole) - 777, len(whole) // 2):
        path.write_bytes(whole[:size])
        found = [one.ordinal for one in read_calls(path)]
        assert found == list(range(len(found)))
        assert len(found) >= (3000 if size == len(whole) else 500)
    writer.close()


def test_a_file_that_is_no_record_is_refused_by_name(tmp_path):
    path = tmp_path / "calls.csv.gz"
    with pytest.raises(RecordError, match="cannot read"):
        list(read_calls(path))
    path.write_bytes(b"not gzip")
    with pytest.raises(RecordError, match=r"calls\.csv\.gz"):
        list(read_calls(path))
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(RecordError, match="its columns are a, b"):
        list(read_calls(path))


def summary_of(*calls, cpu_share=0.1):
    return summarize(calls, started_s=100.0, stopped_s=110.0, cpu_share=cpu_share)


def test_errors_are_unexpected_answers_and_stay_inside_the_latencies():
    late = call(1, code="DeadlineExceeded", outcome="indefinite", expected=False, done_s=103.0)
    refused = call(2, code="NotFound", outcome="definite", expected=False)
    fine = call(3, code="NotFound", outcome="definite", expected=True)
    never = call(4, code="NeverSent", outcome="never_sent", expected=False, sent_s=109.0, done_s=109.0)
    found = summary_of(call(0), late, refused, fine, never)
    assert (found.due, found.sent, found.ok, found.errors, found.never_sent, found.wrong) == (5, 4, 1, 3, 1, 1)
    assert found.wrong_answers == (refused,)
    assert found.latency.max_ms == pytest.approx(5000)
    assert found.requested_rps == pytest.approx(0.5)
    assert found.achieved_rps == pytest.approx(0.4)
    assert found.counts["baseline", "M", "NotFound"] == 2


def test_what_is_sent_after_the_load_ended_is_no_rate_achieved():
    assert summary_of(call(0), call(1, sent_s=150.0, done_s=151.0)).achieved_rps == pytest.approx(0.1)


def test_lateness_is_judged_only_where_nothing_is_broken():
    fault = [call(number, phase="fault:x", lag_ms=900.0) for number in range(50)]
    assert summary_of(call(0), *fault).saturated == ""
    baseline = [call(number, lag_ms=900.0) for number in range(50)]
    assert "left 900 ms late" in summary_of(*baseline).saturated


def test_calls_that_the_generator_ended_for_want_of_room_make_it_the_one_to_blame():
    found = summarize([call(0)], started_s=100.0, stopped_s=110.0, cpu_share=0.1, out_of_room=1)
    assert "share the load among more workers" in found.saturated


def test_each_sign_of_saturation_is_enough():
    ok = [call(number) for number in range(100)]
    never = [call(number, code="NeverSent", outcome="never_sent", expected=False) for number in range(6)]
    assert saturated(ok, 50.0, 0.95) == ""
    assert "51 ms late" in saturated(ok, 51.0, 0.5)
    assert "96% of its one core" in saturated(ok, 1.0, 0.96)
    assert "only 100 of 106" in saturated([*ok, *never], 1.0, 0.5)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_quantiles_are_values_that_occurred_in_order(latencies_ms):
    found = latencies(call(done_s=100.0 + ms / 1000) for ms in latencies_ms)
    values = [found.p50_ms, found.p95_ms, found.p99_ms, found.p999_ms, found.max_ms]
    assert values == sorted(values)
    assert all(min(abs(value - ms) for ms in latencies_ms) < 0.01 for value in values)
    assert found.max_ms == pytest.approx(max(latencies_ms), abs=0.01)


def test_distinct_rows_count_only_ok_answers_of_the_method():
    calls = [
        call(row=1),
        call(row=1),
        call(row=2, code="Unavailable"),
        call(row=3, method="N"),
        call(row=-1),
        call(row=4),
    ]
    assert distinct_rows(calls, "M") == distinct_rows(calls, "p.S/M") == {1, 4}
    assert distinct_rows(calls, "q.S/M") == set()


def test_the_timeline_has_a_bucket_for_each_second_empty_ones_too():
    calls = [call(0), call(0, expected=False, done_s=100.5), call(3)]
    buckets = timeline(calls)
    assert [(bucket.start_s, bucket.calls, bucket.errors) for bucket in buckets] == [
        (100.0, 2, 1), (101.0, 0, 0), (102.0, 0, 0), (103.0, 1, 0),
    ]  # fmt: skip
    assert buckets[1].p50_ms is None
    assert buckets[0].p99_ms == pytest.approx(500)
    assert timeline([]) == []
