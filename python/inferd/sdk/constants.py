"""Find constants in a user's class: numbers and words that its code may compare inputs with.

Reads an instance, hands on numbers and words, around which the probe generates rows. Runs no code of the model and
knows nothing of what the constants are for.
"""

from __future__ import annotations

import math
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Constants", "constants_of"]

_COUNT_MAX = 64
"""Maximum count, of numbers and of words each: one row has room for few."""
_LENGTH_MAX = 40
_MAGNITUDE_MAX = 1e12


class Constants(NamedTuple):
    """Distinct numbers and words, in the order found."""

    numbers: tuple[float, ...]
    words: tuple[str, ...]


def constants_of(model: Any) -> Constants:
    """Find constants in the methods of ``model``'s class, in other code of its module, and in its attributes."""
    numbers: dict[float, None] = {}
    words: dict[str, None] = {}
    for value in _values(model):
        if isinstance(value, str):
            if len(words) < _COUNT_MAX and 0 < len(value) <= _LENGTH_MAX and value.isprintable():
                words[value] = None
        elif len(numbers) < _COUNT_MAX and math.isfinite(value) and 0 < abs(value) <= _MAGNITUDE_MAX:
            numbers[float(value)] = None
    return Constants(tuple(numbers), tuple(words))


def _values(model: Any) -> Iterator[str | float]:
    kinds = [kind for kind in type(model).__mro__ if kind.__module__ == type(model).__module__]
    module = getattr(sys.modules.get(type(model).__module__), "__dict__", {})
    siblings = [one for one in module.values() if getattr(one, "__module__", None) == type(model).__module__]
    for holder in [*(vars(kind) for kind in kinds), {str(place): one for place, one in enumerate(siblings)}]:
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
    """Yield ``value`` if it is a number or text, or the elements of a small collection."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float, str)):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, (tuple, list, set, frozenset, dict)) and len(value) <= _COUNT_MAX:
        for one in value:
            yield from _plain(one)
