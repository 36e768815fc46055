"""`inferd serve` as a process, and what is left of it afterwards.

Reads a command line, hands on addresses, output and pids. Knows nothing of protocols.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outside.waiting import wait_for

if TYPE_CHECKING:
    from types import TracebackType

SHARED_MEMORY = Path("/dev/shm")
READY_WITHIN_S = 90.0
END_WITHIN_S = 40.0


class Inferd:
    """A server on free ports that serves ``paths``; ready when the ``with`` block begins, gone when it ends.

    The end of the block asserts that it stopped with status 0 (unless the test ended it itself) and that nothing of it
    is left: no process, no listening socket, no shared memory.
    """

    def __init__(self, folder: Path, *arguments: str | Path, command: str = "serve") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._arguments = [str(argument) for argument in arguments]
        self._command = command
        self._wrapper: list[str] = []
        self._shared_memory = shared_memory()
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"

    def within(self, *wrapper: str) -> Inferd:
        """The same server, started by the command ``wrapper``, which becomes it."""
        self._wrapper = list(wrapper)
        return self

    def launch(self) -> Inferd:
        """Start the process, and wait for nothing."""
        line = [*self._wrapper, sys.executable, "-m", "inferd", self._command, *self._arguments]
        if self._command == "serve" and "--port" not in self._arguments:
            line += ["--port", "0"]
        if self._command == "serve" and "--metrics-port" not in self._arguments:
            line += ["--metrics-port", "0"]
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            # A session of its own: whatever belongs to this server can be found by it.
            self.popen = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder, start_new_session=True
            )
        return self

    def __enter__(self) -> Inferd:
        self.launch()
        try:
            wait_for(self._ready, "the server's readiness", READY_WITHIN_S)
        except BaseException:
            self.kill()
            raise
        self.address = self._printed(r"REST and gRPC\s+http://(\S+)")
        self.metrics_url = self._printed(r"metrics\s+(http://\S+)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended_by_test = self.popen.poll() is not None
        if not ended_by_test:
            self.terminate()
            try:
                self.popen.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the server did not stop on SIGTERM\n{self.log()}") from error
        try:
            self.assert_nothing_is_left()
        finally:
            self.kill()
        if not ended_by_test and kind is None:
            assert self.popen.returncode == 0, f"status {self.popen.returncode}\n{self.log()}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        """What it wrote to stderr."""
        return self._stderr.read_text(errors="replace")

    def output(self) -> str:
        """What it wrote to stdout."""
        return self._stdout.read_text(errors="replace")

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, within_s: float = END_WITHIN_S) -> int:
        """Its exit status."""
        return self.popen.wait(within_s)

    def members(self) -> list[int]:
        """Every living process of the server, itself first."""
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.pid]
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def workers(self) -> list[int]:
        """The processes that run models: neither the server itself nor a zygote."""
        zygotes = {pid for pid in self.members() if "zygote" in _command_line(pid) and _parent(pid) == self.pid}
        return [pid for pid in self.members() if pid != self.pid and pid not in zygotes]

    def kill(self) -> None:
        """End every process that is left, by its id."""
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.popen.wait()

    def assert_nothing_is_left(self) -> None:
        """Everything that belonged to the server has gone with it."""
        # Workers end by a signal of the kernel that is sent as their parent ends: give it a moment to arrive.
        wait_for(lambda: not self.members(), f"the end of {[_command_line(pid) for pid in self.members()]}", 5)
        assert shared_memory() == self._shared_memory
        if hasattr(self, "address"):
            host, _, port = self.address.rpartition(":")
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) != 0, "somebody listens on the data port still"

    def _ready(self) -> bool:
        if self.popen.poll() is not None:
            raise AssertionError(f"the server ended with {self.popen.returncode}\n{self.log()}")
        return "ready in" in self.output()

    def _printed(self, pattern: str) -> str:
        found = re.search(pattern, self.output())
        assert found is not None, f"no {pattern!r} in\n{self.output()}"
        return found[1]


def free_ports() -> list[str]:
    """Two ports that were free a moment ago: what the server prints of its own can't be read here."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in (one, other)]


def shared_memory() -> set[str]:
    """Names in /dev/shm."""
    return set(os.listdir(SHARED_MEMORY))


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; of a process that has gone: one that belongs to nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0", "0", "0"]


def _session(pid: int) -> int:
    state, _parent_pid, _group, session = _stat(pid)[:4]
    return 0 if state in "ZX" else int(session)


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
