"""The process that Python workers are forked from: started once, ready in milliseconds after that.

Reads requests to fork from the gateway's socket, hands back process ids, pidfds and, later, how they ended.
Knows nothing of models: they are loaded after the fork.

One thread, always: what forks while another thread holds a lock hangs. So nothing is preloaded that starts threads,
numpy only with its thread pool held at one.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, NoReturn

__all__ = ["main", "preload", "threads_of_this_process"]

_MESSAGE_MAX = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_IGNORED = (signal.SIGINT, signal.SIGTERM)


def preload() -> None:
    """Import what every worker needs and what starts no thread."""
    # Read when OpenBLAS is loaded. A worker with more threads raises it again after the fork.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy.random

    import inferd.worker.loop  # noqa: F401

    numpy.random.default_rng(0)


def threads_of_this_process() -> int:
    """Threads that the kernel knows of, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


class Zygote:
    """Forks workers on request and reaps them.

    Args:
        gateway: the socket, SOCK_SEQPACKET. Its end ends this process and its children.
    """

    def __init__(self, gateway: socket.socket) -> None:
        self._gateway = gateway
        self._children: dict[int, int] = {}
        """Process ids by pidfd."""
        self._poll = select.poll()
        self._poll.register(gateway.fileno(), select.POLLIN)

    def run(self) -> None:
        """Serve until the gateway closes the socket."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._gateway.fileno():
                    self._reap(descriptor)
                elif not self._serve():
                    self._end()
                    return

    def _serve(self) -> bool:
        data, control, _, _ = self._gateway.recvmsg(
            _MESSAGE_MAX, socket.CMSG_SPACE(2 * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return False
        channel, log = _descriptors(control)
        try:
            pid = os.fork()
        except OSError as fault:
            os.close(channel)
            os.close(log)
            self._gateway.send(json.dumps({"error": f"fork: {fault.strerror}"}).encode())
            return True
        if pid == 0:
            self._become_worker(json.loads(data)["fork"], channel, log)
        # Before anything is reaped: the id can't have been given to another process yet.
        pidfd = os.pidfd_open(pid)
        os.close(channel)
        os.close(log)
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))
        # A gateway that has gone is noticed by the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._gateway.sendmsg([json.dumps({"pid": pid}).encode()], [rights])
        return True

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        # A gateway that has gone is noticed by the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._gateway.send(json.dumps({"exited": {"pid": pid, "status": status}}).encode())

    def _end(self) -> None:
        for pidfd, pid in self._children.items():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _become_worker(self, request: dict[str, Any], channel: int, log: int) -> NoReturn:
        """Everything after the fork. Never returns: what is above on the stack belongs to the zygote."""
        status = 1
        try:
            self._gateway.close()
            for pidfd in self._children:
                os.close(pidfd)
            _harden()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            # A pipe makes Python buffer blocks: what a model prints would be read when it ends.
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            _apply(request)
            from inferd.worker.loop import main as serve

            status = serve(channel)
        except BaseException:  # noqa: BLE001 (there is nobody above to tell: the log is)
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)


def _harden() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _apply(request: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["env"])
    if request.get("cpus"):
        os.sched_setaffinity(0, request["cpus"])
    os.nice(request.get("nice", 0))
    if request.get("directory"):
        os.chdir(request["directory"])
    # Every fork inherits the same state of numpy's global generator; Python's own reseeds itself.
    import numpy.random

    numpy.random.seed()
    _set_blas_threads(int(request["env"].get("OPENBLAS_NUM_THREADS", "1")))


def _set_blas_threads(threads: int) -> None:
    """Give the OpenBLAS that numpy brought, which was loaded with one thread, as many as the model may use."""
    if threads == 1:
        return
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123
        files = {line.split()[-1] for line in maps if "openblas" in line}
    for file in files:
        library = ctypes.CDLL(file)
        for name in (
            "scipy_openblas_set_num_threads64_",
            "openblas_set_num_threads64_",
            "openblas_set_num_threads",
        ):
            with contextlib.suppress(AttributeError):
                getattr(library, name)(threads)
                break


def _descriptors(control: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """The channel and the log that came with a request to fork."""
    received = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    channel, log = received
    return channel, log


def main(descriptor: int) -> int:
    """Serve the gateway's socket ``descriptor``.

    Returns:
        The exit status: 0 when the gateway closed the socket, 1 when a library started a thread.
    """
    # A terminal and systemd send these to every process; the gateway decides when workers end.
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    preload()
    if threads_of_this_process() != 1:
        sys.stderr.write("the zygote has more than one thread and can't fork safely\n")
        return 1
    # What lives now lives as long as the process: the collector of a worker need not touch (and so copy) it.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as gateway:
        gateway.set_inheritable(False)
        Zygote(gateway).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[-1])))
