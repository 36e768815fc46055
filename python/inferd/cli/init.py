"""What process 1 of a container does: reap every process that ends, hand signals on, end with the server.

Reads signals. Knows nothing of what the server does: it forks before anything of it is imported.

The kernel hands orphans to process 1, and they stay there as zombies until it waits for them. The server itself can't:
who waits for any process takes the exit statuses that others in the process wait for.
"""

from __future__ import annotations

import os
import signal

__all__ = ["leave_init_behind"]

# What the kernel sends for a fault of this process itself, and what can't be taken.
_NOT_FOR_THE_SERVER = {
    *(signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP),
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE),
}


def leave_init_behind() -> None:
    """Return in a child of this process, which itself never returns: it is the init that the container needs."""
    every = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    # Blocked before the fork: what arrives from here on waits until it is taken below.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    # os._exit: nothing that was imported so far is the init's to end.
    os._exit(_serve(child, every))


def _serve(child: int, signals: set[signal.Signals]) -> int:
    while True:
        status = _reap(child)
        if status is not None:
            # The kernel ends whatever is left with this process.
            return status
        taken = signal.sigwaitinfo(signals)
        # What the terminal sends (a code above 0) goes to its whole foreground group: the server has it already.
        if taken.si_signo not in _NOT_FOR_THE_SERVER and taken.si_code <= 0:
            os.kill(child, taken.si_signo)


def _reap(child: int) -> int | None:
    """Reap whatever has ended; the exit status where ``child`` is among it, 128 and the signal that ended it."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
