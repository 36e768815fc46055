"""Whether and when to try again.

Reads failures and the clock's readings, hands on pauses. Sends nothing, sleeps never.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from inferd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.errors import InferdError

__all__ = ["Budget", "Retry", "pause_s"]


class Retry(NamedTuple):
    """What a client does about failures that may pass: an overloaded server, a lost connection.

    Only those are tried again; a request that is wrong stays wrong.
    """

    tries_max: int = 3
    """Most tries of one call, the first one included. 1: never again."""
    budget: float = 0.1
    """Retries for each call, on average over calls: a server in trouble gets a tenth more work, not three times
    as much. The idea is that of Finagle's retry budgets."""
    budget_reserve: float = 10.0
    """Retries that a client may make before it has made calls to earn them, and the most that it can save up."""
    backoff_s: float = 0.05
    """The first pause is up to this long, each further one up to twice as long as the one before. The length is drawn
    at random from all of that ("full jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog)."""
    backoff_max_s: float = 2.0
    """Longest pause."""


class Budget:
    """What is left of the retries of one client. May be shared by threads."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._left = retry.budget_reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call was made."""
        with self._lock:
            self._left = min(self._left + self._retry.budget, self._retry.budget_reserve)

    def spend(self) -> bool:
        """Whether one more retry is allowed, which it then is."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def pause_s(
    retry: Retry,
    budget: Budget,
    fault: InferdError,
    tried: int,
    left_s: float | None,
    random: Callable[[], float],
) -> float | None:
    """Seconds to wait before trying again; None: don't.

    Args:
        retry: the client's settings.
        budget: spent from where a retry is worth it.
        fault: why the last try failed.
        tried: how often the call was tried.
        left_s: until the caller's deadline; None: no deadline.
        random: gives numbers in [0, 1).
    """
    if not isinstance(fault, Unavailable) or tried >= retry.tries_max:
        return None
    pause = random() * min(retry.backoff_s * 2 ** (tried - 1), retry.backoff_max_s)
    if fault.retry_after_s is not None:
        pause = max(pause, fault.retry_after_s)
    if left_s is not None and pause >= left_s:
        return None
    return pause if budget.spend() else None
