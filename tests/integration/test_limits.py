"""Queues that are full, deadlines that can't be kept, callers that leave."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from outside import models
from outside.metrics import Metrics
from outside.models import NOTHING, SLEEP
from outside.traffic import Background, all_at_once, four_columns, orders, row_of, send, tensor
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from outside.process import Inferd

MOODY = "/v2/models/moody/infer"


def queued(server: Inferd) -> float:
    return Metrics(server.metrics_url).value("inferd_queue_rows", model="moody")


def sleepers(server: Inferd, count: int, seconds: float, **headers: str) -> Background:
    bodies = [orders((SLEEP, seconds))] * count
    return Background(lambda: all_at_once(server.address, MOODY, bodies, count, headers))


def test_what_a_full_queue_can_not_take_is_refused_with_a_time_to_come_back(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off", "--queue-rows-max", "4") as server:
        answers = send(server.address, MOODY, [orders((SLEEP, 0.2))] * 20, connections=20)
        refused = [answer for answer in answers if answer.status != 200]
        assert {answer.status for answer in refused} == {503}
        # One runs, one is staged, four wait.
        assert 4 <= len(answers) - len(refused) <= 8
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            assert "queue" in answer.json()["error"]
            # At once: the others take 0.2 s each.
            assert answer.took_s < 0.15
        counted = Metrics(server.metrics_url)
        assert counted.value("inferd_refusals_total", model="moody") == len(refused)
        assert "overloaded" in server.log()


def test_a_caller_that_would_wait_too_long_is_told_so(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off") as server:
        traffic = sleepers(server, 5, 0.3)
        wait_for(lambda: queued(server) >= 2, "a queue")
        begun = time.monotonic()
        [answer] = send(server.address, MOODY, [orders((NOTHING, 0))], Inferd_Timeout_Ms="100")
        assert answer.status in (503, 504), answer.body
        assert time.monotonic() - begun < 0.6
        body = json.loads(orders((NOTHING, 0))) | {"parameters": {"timeout": 100_000}}
        [answer] = send(server.address, MOODY, [json.dumps(body).encode()])
        assert answer.status in (503, 504), answer.body
        assert {answer.status for answer in traffic.answers()} == {200}


def test_a_deadline_that_passes_while_the_model_runs_is_answered_504_in_time(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off", "--no-profiling") as server:
        begun = time.monotonic()
        [answer] = send(server.address, MOODY, [orders((SLEEP, 2))], Inferd_Timeout_Ms="300")
        assert answer.status == 504, answer.body
        assert 0.25 < time.monotonic() - begun < 1.5
        assert "retry-after" not in answer.headers


def test_requests_of_callers_that_left_are_not_run(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off") as server:
        host, _, port = server.address.rpartition(":")
        body = orders((SLEEP, 0.5))
        head = f"POST {MOODY} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connections = [socket.create_connection((host, int(port))) for _ in range(20)]
        for connection in connections:
            connection.sendall(head + body)
        wait_for(lambda: queued(server) >= 10, "a queue")
        for connection in connections:
            connection.close()
        wait_for(lambda: queued(server) == 0, "an empty queue", 4)
        [answer] = send(server.address, MOODY, [orders((NOTHING, 1))])
        assert answer.status == 200
        stats = httpx.get(f"{server.url}/v2/models/moody/stats").json()["model_stats"][0]
        # One had begun, one was staged; of twenty that would take ten seconds.
        assert stats["execution_count"] <= 4


def test_important_requests_overtake_others(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off") as server:
        traffic = sleepers(server, 10, 0.2)
        wait_for(lambda: queued(server) >= 6, "a queue")
        body = json.loads(orders((NOTHING, 0))) | {"parameters": {"priority": 0}}
        usual = json.loads(orders((NOTHING, 0))) | {"parameters": {"priority": 2}}
        begun = time.monotonic()
        late = Background(lambda: all_at_once(server.address, MOODY, [json.dumps(usual).encode()], 1))
        [answer] = send(server.address, MOODY, [json.dumps(body).encode()])
        took_s = time.monotonic() - begun
        assert answer.status == 200
        [usual_answer] = late.answers()
        assert usual_answer.status == 200
        assert took_s < usual_answer.took_s
        assert {answer.status for answer in traffic.answers()} == {200}


def test_a_body_over_the_limit_and_too_many_bytes_at_once_are_refused(serve, files: Path) -> None:
    flags = ("--body-max-bytes", "100KiB", "--inflight-max-bytes", "300KiB")
    with serve(files / "moody.py", "--batching", "off", *flags) as server:
        rows = 2000
        [answer] = send(server.address, MOODY, [orders(*[(NOTHING, 0.123456)] * 20 * rows)])
        assert answer.status == 413
        assert "body_max_bytes" in answer.json()["error"]
        body = orders((SLEEP, 0.3), *[(NOTHING, 0.123456)] * rows)
        assert 30_000 < len(body) < 100_000
        answers = send(server.address, MOODY, [body] * 30, connections=30)
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}
        refused = next(answer for answer in answers if answer.status == 503)
        assert "inflight_max_bytes" in refused.json()["error"]
        assert "retry-after" in refused.headers


def test_a_slow_sender_is_cut_off(serve, files: Path) -> None:
    flags = ("--header-timeout-s", "1s", "--body-timeout-s", "1s")
    with serve(files / "identity.onnx", *flags) as server:
        host, _, port = server.address.rpartition(":")
        for sent in (b"POST /v2", b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"):
            begun = time.monotonic()
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(sent)
                while connection.recv(1 << 16):
                    pass
            assert 0.5 < time.monotonic() - begun < 10


def test_connections_past_the_limit_wait_or_are_closed_and_others_go_on(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--connections-max", "4") as server:
        host, _, port = server.address.rpartition(":")
        held = [socket.create_connection((host, int(port))) for _ in range(12)]
        for connection in held[4:]:
            connection.close()
        for connection in held[:4]:
            connection.close()
        # Room again.
        wait_for(lambda: send(server.address, "/v2/models/identity/infer", [four_columns(1)])[0].status == 200, "room")


def test_a_request_larger_than_the_batch_limit_runs_alone(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--batch-rows-max", "4") as server:
        rows = [row_of(index) for index in range(50)]
        flat = [value for one in rows for value in one]
        body = json.dumps({"inputs": [tensor("x", "FP32", flat, [50, 4])]}).encode()
        [answer] = send(server.address, "/v2/models/identity/infer", [body])
        assert answer.data() == flat


def test_an_arena_that_may_not_grow_further_names_its_limit(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--arena-max-bytes", "2MiB", "--batching", "off") as server:
        flat = [0.5] * 4 * 200_000
        body = json.dumps({"inputs": [tensor("x", "FP32", flat, [200_000, 4])]}).encode()
        [answer] = send(server.address, "/v2/models/identity/infer", [body])
        assert answer.status in (400, 413), answer.body
        assert "arena_max_bytes" in answer.json()["error"]
        [answer] = send(server.address, "/v2/models/identity/infer", [four_columns(3)])
        assert answer.data() == row_of(3)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_request_of_more_rows_than_run_together_runs_in_parts(datatype: str, serve, tmp_path: Path) -> None:
    models.identity(tmp_path / "rows.onnx", datatype, ["n", 2])
    with serve(tmp_path / "rows.onnx", "--batch-rows-max", "8", "--batching", "on", "--no-profiling") as server:
        rows = [[f"{row}", ""] if datatype == "BYTES" else [row, -row] for row in range(100)]
        body = {"inputs": [tensor("x", datatype, [cell for row in rows for cell in row], [100, 2])]}
        before = Metrics(server.metrics_url).value("inferd_batch_rows_count", model="rows")
        answer = httpx.post(f"{server.url}/v2/models/rows/infer", json=body)
        assert answer.status_code == 200, answer.text
        output = answer.json()["outputs"][0]
        assert (output["shape"], output["data"]) == ([100, 2], body["inputs"][0]["data"])
        assert Metrics(server.metrics_url).value("inferd_batch_rows_count", model="rows") - before == 13
