"""Decide whether and when to retry.

Reads failures and remaining times, hands on pauses. Knows nothing of transports and clocks.
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
    """Policy for transient failures: an overloaded server, a lost connection. Other failures are not retried."""

    tries_max: int = 3
    """Maximum attempts per call, the first included. 1: no retries."""
    budget: float = 0.1
    """Retries per call, on average: adds at most a tenth to the load of a failing server, instead of tripling it.
    Source: Finagle's retry budgets."""
    budget_reserve: float = 10.0
    """Initial balance of the retry budget, in retries, and its maximum."""
    backoff_s: float = 0.05
    """Upper bound of the first pause, doubled with each attempt. The pause is drawn uniformly below the bound ("full
    jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog)."""
    backoff_max_s: float = 2.0
    """Maximum of that bound."""


class Budget:
    """The retry budget of one client. Thread-safe."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._left = retry.budget_reserve
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Credit one call."""
        with self._lock:
            self._left = min(self._left + self._retry.budget, self._retry.budget_reserve)

    def spend(self) -> bool:
        """Debit one retry; return whether the budget allows it."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def pause_s(
    retry: Retry,
    budget: Budget,
    fault: InferdError,
    attempts: int,
    remaining_s: float | None,
    random: Callable[[], float],
) -> float | None:
    """Return the seconds to wait before a retry; None: do not retry.

    Args:
        retry: the client's policy.
        budget: debited if the call is retried.
        fault: the failure of the last attempt.
        attempts: number of attempts so far.
        remaining_s: seconds until the deadline; None: no deadline.
        random: returns numbers in [0, 1).
    """
    if not isinstance(fault, Unavailable) or attempts >= retry.tries_max:
        return None
    pause = random() * min(retry.backoff_s * 2 ** (attempts - 1), retry.backoff_max_s)
    if fault.retry_after_s is not None:
        pause = max(pause, fault.retry_after_s)
    if remaining_s is not None and pause >= remaining_s:
        return None
    return pause if budget.spend() else None
