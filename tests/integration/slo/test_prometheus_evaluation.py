"""Objectives judged from a real Prometheus that scrapes a real exposition."""

import time
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from holdfast_slo.evaluate import PhaseWindow, judge
from holdfast_slo.openslo import Objective, load_objective, packaged_objectives
from holdfast_slo.prometheus import Prometheus, PrometheusError
from holdfast_slo.selectors import parse_selector
from support.prometheus_server import SCRAPE_INTERVAL_S, PrometheusServer, poll

LABELS = ["grpc_type", "grpc_service", "grpc_method", "grpc_code", "phase"]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """Scrapes are not worth a line."""


class Exposition:
    """Client metrics on a port of their own; `restart` begins again from nothing on the same port."""

    def __init__(self):
        self._server = make_server("127.0.0.1", 0, self._app, handler_class=_Quiet)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.restart()
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def _app(self, environ, start_response):
        return self._metrics(environ, start_response)

    def restart(self):
        self.registry = CollectorRegistry()
        self._handled = Counter("grpc_client_handled_total", "Calls", LABELS, registry=self.registry)
        buckets = (0.005, 2.0, 5.0)
        self._seconds = Histogram(
            "grpc_client_handling_seconds", "Time", LABELS, registry=self.registry, buckets=buckets
        )
        self._metrics = make_wsgi_app(self.registry)

    def calls(self, count, phase="baseline", code="OK", method="RegisterAgent", seconds=0.01):
        labels = ("unary", "holdfast.registry.v1.AgentRegistryService", method, code, phase)
        self._handled.labels(*labels).inc(count)
        for _ in range(count):
            self._seconds.labels(*labels).observe(seconds)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def exposed():
    exposition = Exposition()
    yield exposition
    exposition.close()


@pytest.fixture
def prometheus(exposed, tmp_path):
    server = PrometheusServer(tmp_path, [exposed.address])
    poll(lambda: server.client.up("load"), "the exposition is scraped")
    yield server
    server.close()


def packaged(name):
    return load_objective(packaged_objectives()[f"{name}.yaml"])


def judged(objective, prometheus, start_s, phases=("baseline", "recovery")):
    now = time.time()
    windows = [PhaseWindow("baseline", start_s, now), PhaseWindow("recovery", start_s, now)]
    result, reasons, _ = judge(objective, phases, windows, prometheus.client, SCRAPE_INTERVAL_S)
    return result, [reason.code for reason in reasons]


def test_packaged_objectives_count_every_call_exactly(exposed, prometheus):
    start_s = time.time()
    exposed.calls(3_000)
    exposed.calls(7, phase="fault:crash", code="Unavailable")
    exposed.calls(500, phase="recovery")
    exposed.calls(3, phase="recovery", code="NotFound", method="GetAgent")
    exposed.calls(2, phase="recovery", seconds=3.0)
    prometheus.wait_for("grpc_client_handled_total", 3_512)
    availability, codes = judged(packaged("availability"), prometheus, start_s)
    assert (availability.verdict, availability.good, availability.total, codes) == ("PASS", 3_505, 3_505, [])
    latency, _ = judged(packaged("latency-p95"), prometheus, start_s)
    assert (latency.verdict, latency.good, latency.total) == ("PASS", 3_503, 3_505)
    registration, _ = judged(packaged("registration-success"), prometheus, start_s)
    assert (registration.good, registration.total) == (3_502, 3_502)
    fault, fault_codes = judge(
        packaged("availability"),
        ["fault:*"],
        [PhaseWindow("fault:crash", start_s, time.time())],
        prometheus.client,
        0.25,
    )[:2]
    assert (fault.good, fault.total, fault.verdict) == (0, 7, "FAIL")
    assert [reason.code for reason in fault_codes] == ["OBJECTIVE_VIOLATED"]


def test_a_fast_failure_spends_the_latency_budget(exposed, prometheus):
    start_s = time.time()
    exposed.calls(900)
    exposed.calls(100, code="Unavailable", seconds=0.001)
    prometheus.wait_for("grpc_client_handled_total", 1_000)
    result, _ = judged(packaged("latency-p95"), prometheus, start_s, ["baseline"])
    assert (result.verdict, result.good) == ("FAIL", 900)


def test_a_restarted_exporter_is_counted_on_and_shown(exposed, prometheus):
    start_s = time.time()
    exposed.calls(400)
    prometheus.wait_for("grpc_client_handled_total", 400)
    exposed.restart()
    exposed.calls(50)
    prometheus.wait_for("grpc_client_handled_total", 50)
    result, _ = judged(packaged("registration-success"), prometheus, start_s, ["baseline"])
    assert (result.good, result.total, result.resets) == (450, 450, 1)


def test_a_stopped_prometheus_is_inconclusive_and_its_twin_passes(exposed, prometheus):
    start_s = time.time()
    exposed.calls(3_000)
    prometheus.wait_for("grpc_client_handled_total", 3_000)
    assert judged(packaged("availability"), prometheus, start_s, ["baseline"])[0].verdict == "PASS"
    prometheus.stop()
    result, codes = judged(packaged("availability"), prometheus, start_s, ["baseline"])
    assert (result.verdict, codes) == ("INCONCLUSIVE", ["PROMETHEUS_UNREACHABLE"])
    assert not prometheus.client.ready()


def test_missing_metrics_and_nan_are_inconclusive(exposed, prometheus):
    start_s = time.time()
    Gauge("broken_total", "Not a number", registry=exposed.registry).set(float("nan"))
    poll(lambda: prometheus.client.raw("broken_total", start_s, time.time() + 1), "the broken metric is scraped")
    for query in ("broken_total", "never_exposed_total"):
        objective = Objective("x", "x", 0.9, parse_selector(query), None, parse_selector(query), "x.yaml")
        result, codes = judged(objective, prometheus, start_s, ["baseline"])
        assert (result.verdict, codes) == ("INCONCLUSIVE", ["METRICS_MISSING"])


def test_many_series_are_added_up(exposed, prometheus):
    start_s = time.time()
    many = Counter("many_total", "Calls", ["method", "phase"], registry=exposed.registry)
    for index in range(2_000):
        many.labels(f"m{index}", "baseline").inc(3)
    prometheus.wait_for("many_total", 6_000)
    objective = Objective(
        "x", "x", 0.9, parse_selector("sum(many_total)"), None, parse_selector("many_total"), "x.yaml"
    )
    result, _ = judged(objective, prometheus, start_s, ["baseline"])
    assert (result.good, result.total) == (6_000, 6_000)


def test_prometheus_says_what_it_is_and_refuses_nonsense(prometheus):
    assert prometheus.client.version()[0].isdigit()
    assert not prometheus.client.up("no-such-job")
    with pytest.raises(PrometheusError, match="parse error"):
        prometheus.client.raw("sum(", 0, 1)


def test_something_else_than_prometheus_is_named(exposed):
    client = Prometheus(f"http://{exposed.address}")
    with pytest.raises(PrometheusError, match="is this a Prometheus"):
        client.raw("x", 0, 1)
    client.close()


def test_an_address_nothing_listens_on_is_named_with_a_next_step():
    client = Prometheus("http://127.0.0.1:1")
    with pytest.raises(PrometheusError, match=r"127\.0\.0\.1:1 cannot be reached: Connection refused\. Check"):
        client.version()
