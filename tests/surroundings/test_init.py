"""inferd as process 1, as in a container: orphans are reaped, signals reach the server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from outside.waiting import wait_for

ORPHANS = """
import subprocess
from inferd import Model

class Orphans(Model):
    def predict(self, x: list[int]) -> list[int]:
        # Its parent ends at once: process 1 inherits it.
        subprocess.run(["sh", "-c", "sleep 0.05 & echo $!"], check=True, stdout=subprocess.DEVNULL)
        return x
"""
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def may_unshare() -> bool:
    program = shutil.which("unshare")
    return (
        program is not None and subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
    )


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombies(pid: int) -> list[int]:
    """Of ``pid``'s children, those that have ended and that it has not waited for."""
    return [
        child for child in children(pid) if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    ]


@pytest.mark.skipif(not may_unshare(), reason="this user may not make a PID namespace")
def test_process_1_reaps_orphans_and_hands_signals_on(tmp_path):
    model = tmp_path / "orphans.py"
    model.write_text(ORPHANS)
    command = [*NAMESPACE, sys.executable, "-m", "inferd", "serve", str(model), "--threads", "1"]
    with (tmp_path / "out").open("wb") as out:
        started = subprocess.Popen(
            [*command, "--port", "0", "--metrics-port", "0"], stdout=out, stderr=out, cwd=tmp_path
        )
    try:

        def url() -> str | None:
            assert started.poll() is None, (tmp_path / "out").read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "out").read_text())
            return found and found[0]

        address = wait_for(url, "the server's address")
        for number in range(20):
            assert httpx.post(f"{address}/models/orphans", content=str(number), timeout=20).status_code == 200
        (init,) = children(started.pid)
        assert len(children(init)) >= 1, "the server runs below the init"
        wait_for(lambda: not zombies(init), "the end of all zombies")
        os.kill(init, signal.SIGTERM)
        assert started.wait(20) == 0, (tmp_path / "out").read_text()
        assert "stopped" in (tmp_path / "out").read_text()
    finally:
        started.kill()
        started.wait()
