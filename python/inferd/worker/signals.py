"""Signals that end a server: its workers outlive them, what models start does not.

Sets handlers of this process. Knows nothing of what it does and of when it ends.

A terminal and systemd send them to every process; the gateway decides when workers end. They have a handler that does
nothing: a program that a model starts gets the default back, where an ignored signal would stay ignored, and a child
that it forks gets it from here. So ``terminate()`` ends both. Handlers that a model sets are its own, in its children
too.
"""

from __future__ import annotations

import signal
import threading
from os import register_at_fork

__all__ = ["outlive", "restore_in_children"]

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def outlive() -> None:
    """Give them a handler that does nothing, and unblock them: the gateway starts this process with them blocked."""
    for number in _ENDING:
        # nohup, and shells for what runs in the background, have some ignored, for every descendant.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)
            # System calls of a model don't fail for it.
            signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def restore_in_children() -> None:
    """Have children of this process that are forked from now on end by them, as children of a script do."""
    mask = threading.local()

    def hold() -> None:
        # A signal that arrived in the child before `restore` would be lost on the handler.
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def restore() -> None:
        for number in _ENDING:
            if signal.getsignal(number) is _nothing:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        release()

    register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)


def _nothing(_number: int, _frame: object) -> None:
    pass
