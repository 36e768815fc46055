"""A server that may open few files starts or says why it does not, and answers or refuses with the reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from outside import models
from outside.process import Inferd
from outside.waiting import wait_for

REASON = "Too many open files"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})

pytestmark = pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit of util-linux")


def limited(folder: Path, limit: int) -> Inferd:
    path = models.identity(folder / "same.onnx", "FP32", ["n", 4])
    server = Inferd(folder / "run", path, "--threads", "1", "--no-profiling")
    return server.within("prlimit", f"--nofile={limit}:{limit}")


def answered(answer: httpx.Response) -> bool:
    """Whether the answer is right; if not it is a refusal."""
    if answer.status_code == 200:
        assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]
        return True
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"], "no reason"
    return False


@pytest.mark.parametrize("limit", [8, 12, 16, 20, 24])
def test_a_server_without_descriptors_starts_or_says_why(tmp_path: Path, limit: int) -> None:
    server = limited(tmp_path, limit).launch()
    try:
        wait_for(lambda: server.popen.poll() is not None or "ready in" in server.output(), "an end, or readiness")
        if server.popen.poll() is None:
            server.terminate()
            assert server.wait() == 0, server.log()
        else:
            assert server.popen.returncode != 0
            assert REASON in server.log()
        assert "Traceback" not in server.log()
        server.assert_nothing_is_left()
    finally:
        server.kill()


@pytest.mark.parametrize("limit", [32, 64])
def test_connections_that_take_every_descriptor_cost_no_answer(tmp_path: Path, limit: int) -> None:
    with limited(tmp_path, limit) as server, httpx.Client(base_url=server.url, timeout=60) as early:

        def ask(client: httpx.Client | None = None) -> bool:
            post = client.post if client else httpx.post
            path = "/v2/models/same/infer"
            return answered(post(path if client else server.url + path, content=BODY, timeout=60))

        assert ask(early)
        host, port = server.address.split(":")
        with ThreadPoolExecutor(1) as pool:
            with ExitStack() as idle:
                for _ in range(2 * limit):
                    idle.enter_context(socket.create_connection((host, int(port))))
                wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) >= limit - 1, "the last descriptor")
                for _ in range(20):
                    assert ask(early), "a connection that is there is served"
                late = pool.submit(ask)
                for pid in server.workers():
                    os.kill(pid, signal.SIGKILL)
                # A worker needs descriptors, too.
                if not min(ask(early) for _ in range(3)):
                    wait_for(lambda: REASON in server.log(), "the reason")
            late.result()
        wait_for(ask, "an answer once there are descriptors again")
