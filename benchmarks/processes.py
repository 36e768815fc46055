"""Starts, measures and ends the processes of one server.

Reads /proc and hands on CPU seconds, memory and pids. Knows nothing of HTTP or of what a server serves.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid: int) -> list[int]:
    """Direct children of every thread of ``pid``."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return found


def tree(pid: int) -> list[int]:
    """``pid`` and everything below it."""
    pids, todo = [], [pid]
    while todo:
        one = todo.pop()
        if Path(f"/proc/{one}").exists():
            pids.append(one)
            todo += children(one)
    return pids


def runs(pid: int) -> bool:
    """Whether ``pid`` is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def command_line(pid: int) -> str:
    """The command of ``pid`` with spaces between its words; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of ``pids``, of the children that they have reaped too."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))
    return ticks / TICKS


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of ``pids`` together: shared pages are counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def core_busy_seconds(core: int) -> float:
    """Seconds that programs have run on ``core``, or that its hypervisor took, since the machine started.

    Interrupts are left out: those of the loopback device belong to the load and are in no process's time.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, _irq, _softirq, steal = (int(word) for word in line.split()[1:9])
            return (user + nice + system + steal) / TICKS
    raise RuntimeError(f"this machine has no core {core}; give other ones with --server-core and --load-core")


def wait_until(condition: Callable[[], bool], what: str, within_s: float) -> None:
    """Returns when ``condition()`` holds; raises TimeoutError naming ``what`` otherwise."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.005)


class Process:
    """A program pinned to one core, with its output in a file and its end by pid."""

    def __init__(self, command: list[str], core: int, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self.started = time.monotonic()
        with log.open("wb") as output:
            # A session of its own: what a terminal sends to the harness must not reach the servers first.
            self.popen = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def pids(self) -> list[int]:
        """Every process of this server that lives."""
        return tree(self.pid)

    def check_alive(self) -> None:
        """Raises with the end of the log when the program has ended."""
        if self.popen.poll() is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.popen.args} ended with {self.popen.returncode}:\n{tail}")

    def stop(self, within_s: float = 20.0) -> None:
        """Asks the program to end, and makes sure that nothing of it is left."""
        pids = self.pids()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(within_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        for pid in pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
