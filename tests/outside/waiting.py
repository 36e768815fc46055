"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")

# Long enough for two busy cores; a test that waits this long has failed.
WITHIN_S = 30.0


def wait_for(look: Callable[[], _Value], what: str, within_s: float = WITHIN_S) -> _Value:
    """The first value of ``look()`` that is true.

    Raises:
        AssertionError: there was none within ``within_s``; names ``what`` and the last value.
    """
    end = time.monotonic() + within_s
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within_s:g} s; last seen: {value!r}")
        time.sleep(0.005)
