"""200 000 calls without faults: what the load recorded is exactly what the server counted, as Prometheus has it."""

from collections import Counter

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from holdfast_loadtests.engine import LoadRun
from holdfast_loadtests.plans import LoadPlan
from holdfast_loadtests.records import read_calls
from holdfast_loadtests.spec import LoadSpec
from support.interop_cases import TEST, output
from support.interop_servers import descriptor_set, interop_server
from support.prometheus_server import PrometheusServer, poll

CALLS = 200_000
SPEC = LoadSpec.model_validate(
    {
        "arrivals": [{"rate": "8000/s", "for": "25s"}],
        "mix": [
            {"call": f"{TEST}/EmptyCall", "weight": 6},
            {"call": f"{TEST}/UnaryCall", "weight": 3, "request": {"payload": {"body": "{{text(24)}}"}}},
            {
                "call": f"{TEST}/UnaryCall",
                "request": {"response_status": {"code": 5, "message": "no {{counter}}"}},
                "expect": ["NotFound"],
            },
            {"call": f"{TEST}/StreamingOutputCall", "weight": 0.5, "request": output([1, 2, 3])},
        ],
        "connections": 4,
        "deadline": "20s",
    }
)


def handled(text, metric):
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == metric:
                found[sample.labels["grpc_method"], sample.labels["grpc_code"]] += int(sample.value)
    return found


@pytest.mark.serial
def test_200_000_calls_add_up_by_method_and_code(tmp_path):
    with interop_server("go", tmp_path) as server:
        plan = LoadPlan(server.address, SPEC, {}, 1, descriptors=descriptor_set())
        with LoadRun.start(plan, tmp_path) as run:
            prometheus = PrometheusServer(tmp_path, [server.http, run.metrics_address])
            try:
                poll(lambda: run.elapsed_s > 25.0, "all calls to be due", 60)
                summary = run.finish()
                recorded = Counter((call.method, call.code) for call in read_calls(run.record))
                exposed = requests.get(f"http://{run.metrics_address}/metrics", timeout=20).text
                for (method, code), count in recorded.items():
                    labels = f'{{grpc_method="{method}",grpc_code="{code}"}}'
                    prometheus.wait_for(f"grpc_server_handled_total{labels}", count)
                    prometheus.wait_for(f"grpc_client_handled_total{labels}", count)
            finally:
                prometheus.close()
        counted = handled(server.metrics(), "grpc_server_handled_total")
    assert recorded == counted == handled(exposed, "grpc_client_handled_total")
    assert sum(recorded.values()) == summary.due == summary.sent == CALLS
    assert summary.errors == summary.never_sent == 0, summary.wrong_answers
    assert set(recorded) == {
        ("EmptyCall", "OK"),
        ("UnaryCall", "OK"),
        ("UnaryCall", "NotFound"),
        ("StreamingOutputCall", "OK"),
    }
