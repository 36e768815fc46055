"""A server whose log nobody takes: every request is answered as if it had none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from outside.process import free_ports
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

# Prints, and fails for one value: both are logged.
LOUD = """
from inferd import Model

class Loud(Model):
    def predict(self, x: list[float]) -> list[float]:
        print("x" * 2000, flush=True)
        if 13 in x:
            raise ValueError("broken\\nWARN forged")
        return [2 * value for value in x]
"""
REQUESTS = 600


def _blocked() -> tuple[int | None, Callable[[], None]]:
    """A pipe that is full from the start, and that nobody reads."""
    kept, end = os.pipe()
    os.set_blocking(end, False)
    while True:
        try:
            os.write(end, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(end, True)
    return end, lambda: os.close(kept)


def _abandoned() -> tuple[int | None, Callable[[], None]]:
    """A pipe whose reader has gone."""
    read, end = os.pipe()
    os.close(read)
    return end, lambda: None


def _full() -> tuple[int | None, Callable[[], None]]:
    end = os.open("/dev/full", os.O_WRONLY)
    return end, lambda: None


def _closed() -> tuple[int | None, Callable[[], None]]:
    return None, lambda: None


STREAMS = {"blocked": _blocked, "abandoned": _abandoned, "full": _full, "closed": _closed}


@pytest.mark.parametrize("stream", STREAMS)
def test_nobody_waits_for_a_log_that_is_not_taken(stream, tmp_path):
    (tmp_path / "loud.py").write_text(LOUD)
    port, metrics = free_ports()
    command = [sys.executable, "-m", "inferd", "serve", str(tmp_path / "loud.py"), "--port", port]
    command += ["--metrics-port", metrics, "--threads", "1"]
    end, done = STREAMS[stream]()
    if end is None:
        process = subprocess.Popen(["sh", "-c", 'exec "$@" 1>&- 2>&-', "sh", *command], cwd=tmp_path)
    else:
        process = subprocess.Popen(command, stdout=end, stderr=end, cwd=tmp_path)
        os.close(end)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:

            def ready() -> bool:
                assert process.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    return http.get("/v2/health/ready").status_code == 200
                return False

            wait_for(ready, "the server's readiness")
            for number in range(REQUESTS):
                answer = http.post("/models/loud", content=b"13" if number % 3 == 0 else b"2")
                assert answer.status_code == (500 if number % 3 == 0 else 200), answer.text
            assert http.get("/v2/health/live").status_code == 200
            text = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
        dropped = [line for line in text.splitlines() if line.startswith("inferd_log_lines_dropped_total")]
        assert sum(float(line.rpartition(" ")[2]) for line in dropped) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        done()
