"""Metrics, spans and log lines."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from outside.metrics import Metrics
from outside.models import SLEEP
from outside.traffic import four_columns, orders, send
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IDENTITY = "/v2/models/identity/infer"
REQUESTS = 40


def test_metrics_count_what_happened(serve, files: Path) -> None:
    with serve(files / "identity.onnx") as server:
        assert {a.status for a in send(server.address, IDENTITY, [four_columns(1)] * REQUESTS)} == {200}
        send(server.address, IDENTITY, [b"{}"])
        send(server.address, "/v2/models/nobody/infer", [four_columns(1)])
        metrics = Metrics(server.metrics_url)
        model = {"model": "identity", "version": "1"}
        assert metrics.value("inferd_requests_total", outcome="ok", **model) == REQUESTS
        assert metrics.value("inferd_requests_total", outcome="invalid_input", **model) == 1
        assert metrics.value("inferd_requests_total", outcome="not_found") == 1
        for histogram in ("inferd_request_duration_seconds", "inferd_queue_wait_seconds"):
            assert metrics.value(f"{histogram}_count", **model) >= REQUESTS
            assert 0 < metrics.value(f"{histogram}_sum", **model) < 60 * REQUESTS
        batches = metrics.value("inferd_batch_rows_count", **model)
        assert 1 <= batches <= REQUESTS
        assert metrics.value("inferd_batch_rows_sum", **model) == REQUESTS
        assert metrics.value("inferd_execution_duration_seconds_count", **model) == batches
        assert metrics.value("inferd_replicas", state="ready", **model) == 1
        assert metrics.value("inferd_queue_rows", **model) == 0
        assert metrics.value("inferd_inflight_bytes") == 0


def test_the_port_of_the_metrics_serves_nothing_else_and_the_data_port_no_metrics(serve, files: Path) -> None:
    with serve(files / "identity.onnx") as server:
        other = server.metrics_url.removesuffix("/metrics")
        assert httpx.get(f"{other}/v2").status_code == 404
        assert httpx.post(server.metrics_url).status_code == 405
        assert httpx.get(f"{server.url}/metrics").status_code == 404


class Collector(otlp_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self._lock = threading.Lock()

    def Export(self, request: otlp.ExportTraceServiceRequest, context: object) -> otlp.ExportTraceServiceResponse:  # noqa: N802 - the name in the protocol
        with self._lock:
            for resource in request.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.services.add(named.get("service.name", ""))
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        return otlp.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server = grpc.server(ThreadPoolExecutor(2))
    kept = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_spans_show_the_wait_and_the_batch_inside_the_request(serve, files: Path, collector) -> None:
    kept, endpoint = collector
    with serve(files / "identity.onnx", "--otlp-endpoint", endpoint) as server:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
        answer = httpx.post(f"{server.url}{IDENTITY}", content=four_columns(1), headers=headers)
        assert answer.status_code == 200
        spans = wait_for(lambda: kept.spans if len(kept.spans) >= 3 else [], "spans")
    assert kept.services == {"inferd"}
    by_name = {span.name: span for span in spans}
    whole, wait, batch = (by_name[name] for name in ("infer", "queue wait", "batch execution"))
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert whole.parent_span_id.hex() == PARENT
    assert answer.headers["traceparent"].split("-")[2] == whole.span_id.hex()
    for inner in (wait, batch):
        assert inner.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= inner.start_time_unix_nano
        assert inner.end_time_unix_nano <= whole.end_time_unix_nano
    assert wait.end_time_unix_nano <= batch.start_time_unix_nano
    assert attributes(whole)["inferd.model"] == "identity"
    assert attributes(whole)["inferd.request_id"] == "mine"
    assert attributes(batch)["inferd.batch_rows"] == 1


def test_a_failure_is_a_span_with_an_error_and_an_unsampled_trace_is_none(serve, files: Path, collector) -> None:
    kept, endpoint = collector
    with serve(files / "identity.onnx", "--otlp-endpoint", endpoint) as server:
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert httpx.post(f"{server.url}{IDENTITY}", content=four_columns(1), headers=unsampled).status_code == 200
        assert httpx.post(f"{server.url}{IDENTITY}", content=b"{}").status_code == 400
        [span] = wait_for(lambda: kept.spans, "a span")
    assert span.trace_id.hex() != TRACE
    assert attributes(span)["error.type"] == "invalid_input"


def test_a_collector_that_is_not_there_costs_nobody_an_answer(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--otlp-endpoint", "http://127.0.0.1:9") as server:
        assert {a.status for a in send(server.address, IDENTITY, [four_columns(1)] * 50)} == {200}


def test_each_refusal_is_one_structured_line(serve, files: Path) -> None:
    flags = ("--batching", "off", "--queue-rows-max", "1", "--log-format", "json")
    with serve(files / "moody.py", *flags) as server:
        answers = send(server.address, "/v2/models/moody/infer", [orders((SLEEP, 0.3))] * 10, connections=10)
        refused = [answer for answer in answers if answer.status == 503]
        ids = {answer.headers["x-request-id"] for answer in refused}
        assert refused

        def logged() -> list[dict]:
            entries = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
            return [entry for entry in entries if "overloaded" in json.dumps(entry)]

        lines = wait_for(lambda: logged() if len(logged()) >= len(refused) else [], "the lines")
        assert len(lines) == len(refused)
        text = json.dumps(lines)
        assert all(request_id in text for request_id in ids)
        assert '"moody"' in text
