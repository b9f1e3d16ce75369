import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from holdfast_loadtests.clock import PhaseLog
from holdfast_loadtests.codes import CODE_NAMES, CODES, error_class
from holdfast_loadtests.exposition import Exposition
from holdfast_loadtests.tally import LATENCY_BUCKETS_S, Handled, Started, Tally, at_quantile


def test_an_idle_load_exposes_its_metrics_without_samples_of_calls():
    text = Exposition(Tally()).text()
    assert "# TYPE grpc_client_handled_total counter" in text
    assert "holdfast_load_in_flight 0\n" in text
    assert "grpc_client_handled_total{" not in text


def handled(code: str, phase: str = "baseline") -> Handled:
    return Handled("unary", "a.B", "C", code, phase)


def samples(exposition: Exposition) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus reads: every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition.text())
        for sample in family.samples
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(["OK", "Unavailable"]), st.sampled_from(["a", "b"]), st.floats(0, 20)), max_size=30
    )
)
def test_what_prometheus_reads_is_what_was_counted_however_often_it_asks(calls):
    tally = Tally()
    exposition = Exposition(tally)
    for code, phase, latency_s in calls:
        tally.lane(Started("unary", "a.B", "C", phase)).end(code, latency_s)
        samples(exposition)  # keeps the lines of every series, which must not outlive their counts
    read = samples(exposition)
    for labels, series in tally.latency.items():
        key = tuple(sorted(labels_of(labels).items()))
        assert read["grpc_client_handled_total", key] == series.count
        assert read["grpc_client_handling_seconds_count", key] == series.count
        assert read["grpc_client_handling_seconds_sum", key] == series.sum_s
        for number, bound in enumerate([*map(str, LATENCY_BUCKETS_S), "+Inf"]):
            bucket = tuple(sorted({**labels_of(labels), "le": bound}.items()))
            assert read["grpc_client_handling_seconds_bucket", bucket] == sum(series.counts[: number + 1])


def labels_of(labels: Handled) -> dict[str, str]:
    return {("phase" if name == "phase" else f"grpc_{name}"): value for name, value in labels._asdict().items()}


def test_label_values_are_escaped():
    tally = Tally()
    tally.lane(Started("unary", "a.B", "C", "new\nline")).end('O"K\\', 0.1)
    assert ("grpc_client_handled_total", tuple(sorted(labels_of(handled('O"K\\', "new\nline")).items()))) in samples(
        Exposition(tally)
    )


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (0.76, 4.0), (1.0, 4.0)])
def test_a_quantile_is_the_smallest_value_with_that_share_at_or_below_it(q, expected):
    assert at_quantile([1.0, 2.0, 3.0, 4.0], q) == expected
    assert at_quantile([], q) == 0.0


def test_a_call_belongs_to_the_phase_in_force_when_it_was_due():
    phases = PhaseLog("baseline")
    phases.switch("fault:x", 10.0)
    phases.switch("settle", 12.0)
    assert [phases.at(at_s) for at_s in (0.0, 9.999, 10.0, 11.0, 12.0, 99.0)] == [
        "baseline", "baseline", "fault:x", "fault:x", "settle", "settle",
    ]  # fmt: skip


def test_codes_are_grpcs_own_in_go_spelling_and_order():
    assert len(CODE_NAMES) == len(grpc.StatusCode)
    for name, code in zip(CODE_NAMES, grpc.StatusCode, strict=True):
        assert name.lower() == code.name.replace("_", "").lower()


@pytest.mark.parametrize(
    ("code", "details", "broke"),
    [
        ("OK", "", ""),
        ("NotFound", "no such agent", ""),
        ("DeadlineExceeded", "Deadline Exceeded", "deadline"),
        ("Unavailable", "failed to connect to all addresses; Connection refused", "refused"),
        ("Unavailable", "failed to connect to all addresses; recvmsg:Connection reset by peer", "reset"),
        ("Unavailable", "Socket closed", "reset"),
        ("Unavailable", "GOAWAY received", "goaway"),
        ("Unavailable", "draining", "other"),
        ("Internal", "RST_STREAM", "other"),
    ],
)
def test_what_broke_a_call_of_grpcio_is_read_from_its_text(code, details, broke):
    assert error_class(code, details) == broke


def test_codes_a_transport_may_make_up_are_indefinite():
    made_up = {"Cancelled", "Unknown", "DeadlineExceeded", "Internal", "Unavailable", "DataLoss"}
    assert {code for code, definite in CODES.items() if not definite} == made_up
