"""A server in a terminal: Ctrl-C and a terminal that closes drain it, and one that is closed from the start serves."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from outside.process import free_ports
from outside.waiting import wait_for

# Says when it runs; its child ends with it alone.
MODEL = """
import subprocess
import time
from pathlib import Path
from inferd import Model

class Slow(Model):
    def load(self):
        self.child = subprocess.Popen(["sleep", "1000"])

    def predict(self, x: float) -> float:
        Path({running!r}).touch()
        time.sleep(x)
        assert self.child.poll() is None, "a signal that was for the server ended the model's child"
        return 2 * x
"""


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, _group, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX" and int(its_session) == session:
                found.append(int(stat.parent.name))
    return found


class Terminal:
    """A terminal, the program that was started in it, and what it has shown."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.master, slave = pty.openpty()
        # A session of its own, which the terminal controls.
        command = ["setsid", "--ctty", *command]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder)
        os.close(slave)
        os.set_blocking(self.master, False)
        self._shown = ""

    def shows(self, pattern: str) -> re.Match[str] | None:
        # The end of the last process in it is an error, as is having nothing to show.
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 4096):
                self._shown += data.decode(errors="replace")
        return re.search(pattern, self._shown)

    def close(self) -> None:
        os.close(self.master)

    def end(self) -> None:
        for pid in members(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(OSError):
            self.close()


def serve(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "inferd", "serve", str(model), "--threads", "1", *arguments]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "slow.py"
    file.write_text(MODEL.format(running=str(tmp_path / "running")))
    return file


@pytest.mark.parametrize("how", ["Ctrl-C", "closed"])
def test_what_a_terminal_sends_drains(model: Path, tmp_path: Path, how: str) -> None:
    terminal = Terminal(serve(model, "--port", "0", "--metrics-port", "0", "--no-profiling"), tmp_path)
    try:
        wait_for(lambda: terminal.shows("ready in"), "the server's readiness")
        address = terminal.shows(r"http://127\.0\.0\.1:\d+")
        assert address is not None
        (tmp_path / "running").unlink(missing_ok=True)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(httpx.post, f"{address[0]}/models/slow", content="1.5", timeout=60)
            wait_for((tmp_path / "running").exists, "the run")
            if how == "Ctrl-C":
                os.write(terminal.master, b"\x03")
                wait_for(lambda: terminal.shows("SIGINT: draining"), "the drain")
            else:
                terminal.close()
            answer = asked.result()
        assert (answer.status_code, answer.json()) == (200, 3.0)
        assert terminal.process.wait(20) == 0
        wait_for(lambda: not members(terminal.process.pid), "the end of all processes", 5)
    finally:
        terminal.end()


def test_a_terminal_that_is_closed_from_the_start_is_no_reason_not_to_serve(model: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    os.close(master)
    port, metrics = free_ports()
    process = subprocess.Popen(
        serve(model, "--port", port, "--metrics-port", metrics), stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path
    )
    os.close(slave)
    try:

        def ready() -> bool:
            assert process.poll() is None
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=20).status_code == 200
            return False

        wait_for(ready, "the server's readiness")
        answer = httpx.post(f"http://127.0.0.1:{port}/models/slow", content="0.001", timeout=20)
        assert (answer.status_code, answer.json()) == (200, 0.002)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
