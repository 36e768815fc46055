"""What a user's class is likely to look for in its input: numbers and words that stand in its code.

Reads an instance, hands on numbers and words for the probe, which makes rows around them. Runs nothing of the model.
Knows nothing of what the numbers are for.
"""

from __future__ import annotations

import math
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Constants", "constants_of"]

_MOST = 64
"""Of numbers and of words: one row has room for few."""
_LONGEST = 40
_LARGEST = 1e12


class Constants(NamedTuple):
    """Numbers and words, each once, in the order in which they were found."""

    numbers: tuple[float, ...]
    words: tuple[str, ...]


def constants_of(model: Any) -> Constants:
    """Those in the methods of ``model``'s class, in the functions beside it in its file, and in its attributes."""
    numbers: dict[float, None] = {}
    words: dict[str, None] = {}
    for value in _values(model):
        if isinstance(value, str):
            if len(words) < _MOST and 0 < len(value) <= _LONGEST and value.isprintable():
                words[value] = None
        elif len(numbers) < _MOST and math.isfinite(value) and 0 < abs(value) <= _LARGEST:
            numbers[float(value)] = None
    return Constants(tuple(numbers), tuple(words))


def _values(model: Any) -> Iterator[str | float]:
    kinds = [kind for kind in type(model).__mro__ if kind.__module__ == type(model).__module__]
    module = getattr(sys.modules.get(type(model).__module__), "__dict__", {})
    beside = [one for one in module.values() if getattr(one, "__module__", None) == type(model).__module__]
    for holder in [*(vars(kind) for kind in kinds), {str(place): one for place, one in enumerate(beside)}]:
        for name, value in holder.items():
            code = getattr(getattr(value, "__func__", value), "__code__", None)
            if isinstance(code, CodeType):
                yield from _in_code(code, getattr(value, "__doc__", None))
            elif not name.startswith("__"):
                yield from _plain(value)
    plain = [value for name, value in module.items() if not name.startswith("__")]
    for value in [*getattr(model, "__dict__", {}).values(), *plain]:
        yield from _plain(value)


def _in_code(code: CodeType, docstring: str | None = None) -> Iterator[str | float]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _in_code(value)
        elif value != docstring:
            yield from _plain(value)


def _plain(value: Any) -> Iterator[str | float]:
    """The number or text that ``value`` is, or has, where it is a small collection."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float, str)):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, (tuple, list, set, frozenset, dict)) and len(value) <= _MOST:
        for one in value:
            yield from _plain(one)
