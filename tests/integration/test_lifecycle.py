"""Start, drain, end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from outside import embedded
from outside.metrics import Metrics
from outside.models import SLEEP
from outside.traffic import Answer, Background, Connection, all_at_once, four_columns, orders, row_of
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from outside.process import Inferd

TESTS = Path(__file__).resolve().parents[1]

MOODY, BUSY = "/v2/models/moody/infer", "/v2/models/busy/infer"


def queued(server: Inferd, model: str) -> float:
    return Metrics(server.metrics_url).value("inferd_queue_rows", model=model)


def test_sigterm_answers_what_was_admitted_refuses_the_rest_and_exits_0(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off") as server:
        count = 30
        traffic = Background(
            lambda: all_at_once(server.address, MOODY, [orders((SLEEP, 0.1))] * count, connections=count)
        )
        # All but the one that runs and the one that is staged.
        wait_for(lambda: queued(server, "moody") >= count - 2, "the admission of all")
        assert _status(f"{server.url}/v2/health/ready") == 200
        server.terminate()
        wait_for(lambda: _status(f"{server.url}/v2/health/ready") == 503, "not ready at once", 1)
        assert asyncio.run(Connection(server.address).post(MOODY, orders((SLEEP, 0)), 0)).status == 503
        assert [answer.status for answer in traffic.answers()] == [200] * count
        assert server.wait() == 0


async def until_refused(address: str) -> list[Answer]:
    """Closed loops on 16 connections that end with their first refusal or when nobody listens any more."""
    answers: list[Answer] = []
    indices = iter(range(10_000))

    async def loop() -> None:
        connection = Connection(address)
        while True:
            answer = await connection.post(BUSY, four_columns(index := next(indices)), index)
            answers.append(answer)
            if answer.status != 200:
                connection.close()
                return

    await asyncio.gather(*(loop() for _ in range(16)))
    return answers


def test_sigterm_under_load_fails_no_admitted_request(serve, files: Path) -> None:
    with serve(files / "busy.onnx", "--replicas", "2", "--threads", "1") as server:
        traffic = Background(lambda: until_refused(server.address))
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_requests_total", outcome="ok") > 300, "load")
        server.terminate()
        answers = traffic.answers()
        assert server.wait() == 0
        assert all(answer.data() == row_of(answer.index) for answer in answers if answer.status == 200)
        # The last of each loop: refused because of the drain, or never admitted since nobody listened any more.
        ends = [answer for answer in answers if answer.status != 200]
        assert len(ends) == 16
        for answer in ends:
            assert answer.status == 503 or b"Connect" in answer.body or b"IncompleteRead" in answer.body, answer


def test_a_second_sigterm_exits_now(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off") as server:
        traffic = Background(lambda: all_at_once(server.address, MOODY, [orders((SLEEP, 15))], 1))
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_inflight_bytes") > 0, "a request in flight")
        server.terminate()
        wait_for(lambda: "draining" in server.log(), "the drain")
        begun = time.monotonic()
        server.terminate()
        assert server.wait() == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 2
        assert traffic.answers()[0].status == 0


def test_draining_ends_within_its_limit_whatever_a_model_does(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off", "--drain-timeout-s", "1s") as server:
        traffic = Background(lambda: all_at_once(server.address, MOODY, [orders((SLEEP, 15))], 1))
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_inflight_bytes") > 0, "a request in flight")
        begun = time.monotonic()
        server.terminate()
        assert server.wait() == 1
        assert time.monotonic() - begun < 5
        assert traffic.answers()[0].status != 200


def test_it_is_not_ready_before_every_replica_has_answered(serve, files: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text((files / "moody.py").read_text().replace("self.pid = os.getpid()", "time.sleep(2); self.pid = 1"))
    server = serve(slow, "--port", str(port := _free_port())).launch()
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: _status(f"{base}/v2/health/live") == 200, "liveness", 20)
        assert _status(f"{base}/v2/health/ready") == 503
        assert _status(f"{base}/v2/models/slow/ready") == 503
        answer = httpx.post(f"{base}/v2/models/slow/infer", content=orders((0, 0)))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        wait_for(lambda: _status(f"{base}/v2/health/ready") == 200, "readiness", 20)
        assert httpx.post(f"{base}/v2/models/slow/infer", content=orders((0, 0))).status_code == 200
        server.terminate()
        assert server.wait() == 0
        server.assert_nothing_is_left()
    finally:
        server.kill()


def test_a_signal_while_a_model_loads_drains_those_that_serve(serve, files: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "loads.py").write_text(
        (files / "moody.py").read_text().replace("self.pid = os.getpid()", "time.sleep(60); self.pid = 1")
    )
    shutil.copy(files / "moody.py", models)
    port, metrics_port = _free_port(), _free_port()
    server = serve(models, "--port", str(port), "--metrics-port", str(metrics_port)).launch()
    try:
        address, metrics = f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics"
        wait_for(lambda: _status(f"http://{address}/v2/models/moody/ready") == 200, "the one that loads", 20)
        traffic = Background(lambda: all_at_once(address, MOODY, [orders((SLEEP, 2))], 1))
        wait_for(lambda: Metrics(metrics).value("inferd_inflight_bytes") > 0, "a request in flight")
        server.terminate()
        assert server.wait() == 0, server.output()
        assert traffic.answers()[0].status == 200
        server.assert_nothing_is_left()
    finally:
        server.kill()


@pytest.mark.parametrize("model", ["moody.py", "identity.onnx"])
def test_workers_with_an_objective_let_the_gateway_go_first(serve, files: Path, model: str) -> None:
    for flags, nicer in (((), 0), (("--slo", "50ms"), 5)):
        with serve(files / model, *flags) as server:
            [worker] = server.workers()
            ours = os.getpriority(os.PRIO_PROCESS, server.pid)
            assert os.getpriority(os.PRIO_PROCESS, worker) == min(19, ours + nicer)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


# Each in a fresh interpreter: other libraries' threads, that of gRPC's client first, come and go as they like.
@pytest.mark.parametrize("check", embedded.CHECKS, ids=lambda check: check.__name__)
def test_from_python(check: Callable[[Path], None], files: Path) -> None:
    subprocess.run([sys.executable, "-m", "outside.embedded", check.__name__, files], cwd=TESTS, check=True, timeout=90)
