"""Durations and sizes as users write them: ``20ms``, ``64MiB``.

Reads text or numbers, hands on seconds and bytes. Knows nothing of the settings they belong to.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size"]

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ]*)\s*")
# A century: longer than any timer, and adding it to a clock does not overflow.
_DURATION_MAX_S = 100 * 365 * 24 * 3600.0


def parse_duration(value: Any, *, unit_needed: bool = False) -> float:
    """Parse a duration such as ``20ms``, ``1.5s``, ``10min`` or ``2h``; return seconds.

    Args:
        value: text with a unit, or a number of seconds.
        unit_needed: refuse a bare number; for settings whose name does not say the unit.

    Raises:
        ValueError: it is neither, is negative, or is longer than a century.
    """
    number, unit = _split(value, "a duration", "20ms, 1.5s or 10min")
    if unit == "":
        if unit_needed and number != 0:
            raise ValueError(f"{value!r} has no unit; write {value}ms or {value}s")
        unit = "s"
    if unit not in _SECONDS:
        raise ValueError(f"{value!r} has an unknown unit '{unit}'; use {', '.join(_SECONDS)}")
    seconds = number * _SECONDS[unit]
    if seconds > _DURATION_MAX_S:
        raise ValueError(f"{value!r} is longer than a century")
    return seconds


def parse_size(value: Any) -> int:
    """Parse a size such as ``64MiB``, ``1.5GB`` or a bare number; return bytes.

    Raises:
        ValueError: it is neither, is negative, or is above 4 EiB.
    """
    number, unit = _split(value, "a size", "64MiB or 1GB")
    if unit not in _BYTES and unit != "":
        raise ValueError(f"{value!r} has an unknown unit '{unit}'; use {', '.join(_BYTES)}")
    size = number * _BYTES.get(unit, 1)
    if size > 2**62:
        raise ValueError(f"{value!r} is too large; the maximum is 4 EiB")
    return round(size)


def format_duration(seconds: float) -> str:
    """Return the shortest text that parses to ``seconds``: ``0.02`` is ``20ms``."""
    for unit, scale in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        count = seconds / scale
        if count >= 1 and abs(count - round(count)) < 1e-9 * count:
            return f"{round(count)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def format_size(size: int) -> str:
    """Return the shortest text that parses to ``size``: ``67108864`` is ``64MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _split(value: Any, what: str, example: str) -> tuple[float, str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, what, example), ""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not {what}; write for instance {example}")
    return float(match[1]), match[2]


def _number(value: float, what: str, example: str) -> float:
    # Rejects NaN too.
    if not value >= 0:
        raise ValueError(f"{value!r} is not {what}; write for instance {example}")
    return float(value)
