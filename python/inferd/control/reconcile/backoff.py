"""How long to wait before something that failed is tried again.

Pure: the number of failures and chance are arguments.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Backoff"]


class Backoff(NamedTuple):
    """Exponential back-off with jitter. The first retry is immediate, as the data plane's restarts of workers are."""

    first_s: float = 1.0
    """Before the second retry."""
    factor: float = 2.0
    max_s: float = 300.0
    """As in Kubernetes: a repaired model is tried within five minutes."""
    jitter: float = 0.2
    """The greatest share of the delay that chance takes off: what failed together is not tried together."""

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after ``failures`` in a row, at least 1; ``chance`` in [0, 1)."""
        if failures <= 1:
            return 0.0
        # Beyond this the power would overflow long after the bound is reached.
        exponent = min(failures - 2, 64)
        return min(self.max_s, self.first_s * self.factor**exponent) * (1.0 - self.jitter * chance)
