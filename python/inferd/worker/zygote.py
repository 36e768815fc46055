"""The process that Python workers are forked from: started once, ready in milliseconds after that.

Reads requests to fork from the gateway's socket, hands back process ids, pidfds and, later, how they ended; what they
started has ended by then. Knows nothing of models: they are loaded after the fork.

One thread, always: what forks while another thread holds a lock hangs. So nothing is preloaded that starts threads,
numpy only with its thread pool held at one.
"""

from __future__ import annotations

import array
import atexit
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
from typing import Any, NamedTuple, NoReturn

from inferd import _native
from inferd.worker import signals

__all__ = ["main", "preload", "threads_of_this_process"]

_MESSAGE_MAX = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


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


class _Worker(NamedTuple):
    pid: int
    mark: int
    """What its descendants inherit, see ``descendants.rs``."""


class Zygote:
    """Forks workers on request, reaps them, and ends what they started.

    Args:
        gateway: the socket, SOCK_SEQPACKET. Its end ends this process and its children.
        parent: a pidfd of the gateway. Its end does the same: other children of it may hold copies of the socket.
    """

    def __init__(self, gateway: socket.socket, parent: int) -> None:
        self._gateway = gateway
        self._parent = parent
        self._children: dict[int, _Worker] = {}
        """By pidfd."""
        self._poll = select.poll()
        self._poll.register(gateway.fileno(), select.POLLIN)
        self._poll.register(parent, select.POLLIN)

    def run(self) -> None:
        """Serve until the gateway closes the socket or is gone."""
        try:
            while self._serve(dict(self._poll.poll())):
                pass
        finally:
            self._end()

    def _serve(self, ready: dict[int, int]) -> bool:
        """Do what the descriptors that are ``ready`` ask for. False: nothing more will be asked for."""
        if self._parent in ready:
            return False
        try:
            for pidfd in self._children.keys() & ready:
                self._reap(pidfd)
            return self._gateway.fileno() not in ready or self._answer()
        except (BrokenPipeError, ConnectionResetError):
            return False

    def _answer(self) -> bool:
        data, control, _, _ = self._gateway.recvmsg(
            _MESSAGE_MAX, socket.CMSG_SPACE(2 * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return False
        request = json.loads(data)["fork"]
        channel, log = _descriptors(control)
        try:
            pid = os.fork()
        except OSError as fault:
            os.close(channel)
            os.close(log)
            self._gateway.send(json.dumps({"error": f"fork: {fault.strerror}"}).encode())
            return True
        if pid == 0:
            self._become_worker(request, channel, log)
        # Before anything is reaped: the id can't have been given to another process yet.
        pidfd = os.pidfd_open(pid)
        os.close(channel)
        os.close(log)
        self._children[pidfd] = _Worker(pid, request["mark"])
        self._poll.register(pidfd, select.POLLIN)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))
        # A gateway that has gone is noticed by the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._gateway.sendmsg([json.dumps({"pid": pid}).encode()], [rights])
        return True

    def _reap(self, pidfd: int) -> None:
        worker = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        # Before it is reaped: until then nothing else has its number.
        _native.end_descendants(*worker)
        _, status = os.waitpid(worker.pid, 0)
        self._gateway.send(json.dumps({"exited": {"pid": worker.pid, "status": status}}).encode())

    def _end(self) -> None:
        for pidfd in self._children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for worker in self._children.values():
            _native.end_descendants(*worker)
        # Behind all of that: one that a driver holds may take long to end.
        for worker in self._children.values():
            os.waitpid(worker.pid, 0)

    def _become_worker(self, request: dict[str, Any], channel: int, log: int) -> NoReturn:
        """Everything after the fork. Never returns: what is above on the stack belongs to the zygote."""
        status = 1
        try:
            _harden(request["mark"])
            self._gateway.close()
            for pidfd in (self._parent, *self._children):
                os.close(pidfd)
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
            # The end of a script, but for its threads: nobody waits for them. A handler of the model may raise.
            try:
                atexit._run_exitfuncs()
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
            finally:
                os._exit(status)


def _harden(mark: int) -> None:
    # A group of its own, that ends with it.
    os.setpgid(0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    with contextlib.suppress(ValueError):
        # Where the hard limit is lower than any mark the worker stays without: only its group is ended then.
        resource.setrlimit(resource.RLIMIT_RTTIME, (mark, hard))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signals.restore_in_children()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


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
    signals.outlive()
    # Until here the gateway's end kills this process, so that its number is its own. From here on the pidfd tells of
    # it: workers, and what they started, have to be ended then.
    parent = os.pidfd_open(os.getppid())
    _prctl(_PR_SET_PDEATHSIG, 0)
    preload()
    if threads_of_this_process() != 1:
        sys.stderr.write("the zygote has more than one thread and can't fork safely\n")
        return 1
    # What lives now lives as long as the process: the collector of a worker need not touch (and so copy) it.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as gateway:
        gateway.set_inheritable(False)
        Zygote(gateway, parent).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[-1])))
