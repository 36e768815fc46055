"""Warm-up requests, as the setting ``warmup:`` declares them.

Reads plain values, hands on :class:`Sample`. Knows nothing of the model that they are sent to; opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

__all__ = ["SAMPLE_SCHEMA", "Sample", "SampleInput", "read_warmup"]

_EXAMPLE = "write true, false, or a list such as - {inputs: {text: [a good day]}, count: 3} or - file: request.json"

SAMPLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "file": {"type": "string"},
        "inputs": {"type": "object"},
        "rows": {"type": "integer", "minimum": 1},
        "count": {"type": "integer", "minimum": 1},
    },
    "additionalProperties": False,
}


class SampleInput(msgspec.Struct, frozen=True):
    """One input of a warm-up request.

    ``data`` depends on ``form``: plain values, the name of a file with raw bytes, or None.
    """

    form: Literal["values", "file", "zeros", "random"]
    data: Any = None
    datatype: str | None = None
    shape: tuple[int, ...] | None = None


class Sample(msgspec.Struct, frozen=True):
    """One warm-up request, run ``count`` times. Without a file and inputs it is zeros."""

    name: str
    inputs: dict[str, SampleInput] = {}
    file: str | None = None
    rows: int | None = None
    count: int = 1


def read_warmup(value: Any) -> bool | tuple[Sample, ...]:
    """Parse the value of ``warmup:``.

    Raises:
        ValueError: it is invalid; the message shows a valid one.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, tuple) and all(isinstance(one, Sample) for one in value):
        # Already parsed, from a config.pbtxt.
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{value!r} is not a warm-up; {_EXAMPLE}")
    return tuple(_sample(one, position) for position, one in enumerate(value, 1))


def _sample(value: Any, position: int) -> Sample:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a warm-up request; {_EXAMPLE}")
    unknown = sorted(set(value) - set(SAMPLE_SCHEMA["properties"]))
    if unknown:
        known = ", ".join(SAMPLE_SCHEMA["properties"])
        raise ValueError(f"sample {position}: unknown key '{unknown[0]}'; known keys: {known}")
    file, inputs = value.get("file"), value.get("inputs", {})
    if file is not None and (not isinstance(file, str) or inputs):
        raise ValueError(f"sample {position}: expected either inputs or a file; {_EXAMPLE}")
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise ValueError(f"sample {position}: inputs: {inputs!r} is not a mapping of names to values; {_EXAMPLE}")
    name = value.get("name", file or str(position))
    if not isinstance(name, str):
        raise ValueError(f"sample {position}: name: {name!r} is not text")
    return Sample(
        name,
        {key: SampleInput("values", data) for key, data in inputs.items()},
        file,
        _number(value, "rows", position),
        _number(value, "count", position) or 1,
    )


def _number(value: Mapping[str, Any], key: str, position: int) -> int | None:
    number = value.get(key)
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**31):
        raise ValueError(f"sample {position}: {key}: {number!r} is not a positive integer")
    return number
