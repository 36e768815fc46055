"""Convert values as users write them into the types that settings declare.

Reads plain values (from YAML, the command line or keyword arguments) and the declarations, hands on typed values and
every fault at once. Knows nothing of files: a :class:`Source` locates a value.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from inferd.errors import InvalidInput
from inferd.spec.declare import Kind, Scope, Setting, settings_of
from inferd.spec.samples import read_warmup
from inferd.spec.units import parse_duration, parse_size
from inferd.spec.values import Objective, Padding, Sequences, Versions
from inferd.types import TensorSpec

__all__ = ["Path", "Source", "convert_value", "nearest", "read_settings"]

Path = tuple[str | int, ...]
"""Keys and list positions that lead to a value."""


class Source(NamedTuple):
    """The origin of values, for messages."""

    name: str
    lines: Mapping[Path, int] = {}

    def at(self, path: Path) -> str:
        """Return ``name:line`` of the value at ``path``, or of its nearest located parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name


def read_settings(  # noqa: PLR0913
    spec: type[msgspec.Struct],
    given: Any,
    source: Source,
    faults: list[str],
    *,
    path: Path = (),
    scope: Scope = "one",
    besides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Convert and check the settings in ``given``; return them by their Python names.

    Args:
        spec: the struct that declares them.
        given: a mapping, or None for an empty one.
        source: the origin of ``given``.
        faults: list that receives every fault, as ``place: what is wrong``.
        path: path of ``given`` in its source.
        scope: ``all`` refuses settings that belong to one model.
        besides: further allowed keys, which are ignored.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        faults.append(f"{source.at(path)}: expected a mapping of settings, not {given!r}")
        return {}
    known = settings_of(spec)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in besides:
            continue
        place = source.at((*path, key))
        setting = known.get(key)
        if setting is None:
            faults.append(f"{place}: unknown setting '{key}'{nearest(str(key), [*known, *besides])}")
        elif scope == "all" and setting.scope == "one":
            faults.append(f"{place}: '{key}' applies to one model only; set it on that model")
        else:
            try:
                values[setting.name] = convert_value(setting, value)
            except ValueError as fault:
                faults.append(f"{place}: {key}: {fault}")
    return values


def convert_value(setting: Setting, value: Any, *, text: bool = False) -> Any:
    """Convert ``value`` to the type of ``setting``.

    Args:
        setting: the declaration.
        value: the value as given.
        text: whether it comes from a command line, where every value is text.

    Raises:
        ValueError: it is invalid; the message says what is valid.
    """
    if value is None or (text and value == "null"):
        if not _takes_none(setting):
            raise ValueError("a value is required")
        return None
    parse = _PARSERS.get(setting.kind)
    if parse is not None:
        value = parse(value)
    else:
        try:
            value = msgspec.convert(value, setting.type, strict=not text)
        except msgspec.ValidationError as fault:
            raise ValueError(f"{_expected(str(fault))} (given: {value!r})") from None
    _check_bounds(setting, value)
    return value


def nearest(key: str, known: list[str]) -> str:
    """Return ``; did you mean …`` for the known name nearest to ``key``, else a list of the known names."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known names: {', '.join(sorted(known))}"


def _takes_none(setting: Setting) -> bool:
    try:
        msgspec.convert(None, setting.type)
    except msgspec.ValidationError:
        return False
    return True


def _expected(message: str) -> str:
    # msgspec says "Expected `int | null`, got `str`"; YAML says text.
    return message[0].lower() + message[1:].replace("`", "").replace("str", "text")


def _check_bounds(setting: Setting, value: Any) -> None:
    if setting.ge is not None and value < setting.ge:
        raise ValueError(f"{value} is too small; the minimum is {setting.ge:g}")
    if setting.le is not None and value > setting.le:
        raise ValueError(f"{value} is too large; the maximum is {setting.le:g}")
    if setting.pattern is not None and not re.fullmatch(setting.pattern, value):
        raise ValueError(f"'{value}' does not match {setting.pattern}")


def _objective(value: Any) -> Objective:
    if not isinstance(value, Mapping):
        return Objective(latency_s=_latency(value))
    unknown = set(value) - {"latency", "percentile"}
    if unknown or "latency" not in value:
        raise ValueError("write 20ms, or {latency: 20ms, percentile: 99}")
    percentile = value.get("percentile", 99)
    if not isinstance(percentile, (int, float)) or isinstance(percentile, bool) or not 1 <= percentile < 100:
        raise ValueError(f"percentile: {percentile!r} is not a number in [1, 100)")
    return Objective(latency_s=_latency(value["latency"]), percentile=float(percentile))


def _latency(value: Any) -> float:
    seconds = parse_duration(value, unit_needed=True)
    if seconds <= 0:
        raise ValueError(f"{value!r} is not positive; write for instance 20ms")
    return seconds


def _versions(value: Any) -> Versions:
    if value == "latest":
        return Versions()
    if value == "all":
        return Versions(latest=None)
    if isinstance(value, Mapping) and set(value) == {"latest"} and _is_version(value["latest"]):
        return Versions(latest=value["latest"])
    if isinstance(value, list) and value and all(map(_is_version, value)):
        return Versions(latest=None, listed=tuple(sorted(set(value))))
    raise ValueError(f"{value!r} is not latest, {{latest: 2}}, all, or a list of positive integers")


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _batching(value: Any) -> str:
    # YAML 1.1 reads a bare on and off as booleans.
    value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    if value not in ("auto", "verify", "on", "off"):
        raise ValueError(f"{value!r} is not auto, verify, on or off")
    return str(value)


def _tensors(value: Any) -> tuple[TensorSpec, ...]:
    try:
        return tuple(msgspec.convert(value, list[TensorSpec], strict=True))
    except (msgspec.ValidationError, InvalidInput) as fault:
        raise ValueError(f"{_expected(str(fault))}; write - {{name: x, datatype: FP32, shape: [-1, 30]}}") from None


def _shares(value: Any) -> dict[str, int]:
    """Return traffic weights by model name."""
    shares = {value: 1} if isinstance(value, str) else value
    if not isinstance(shares, Mapping) or not shares or not all(isinstance(name, str) for name in shares):
        raise ValueError(f"{value!r} names no model; write a name, or names with weights: {{new: 1, old: 9}}")
    for name, share in shares.items():
        if (
            isinstance(share, bool)
            or not isinstance(share, int)
            or not 0 <= share <= 1_000_000
            or not any(shares.values())
        ):
            raise ValueError(f"weight of '{name}': {share!r}; write integers from 0, not all 0: {{new: 1, old: 9}}")
    return dict(shares)


def _sources(value: Any) -> dict[str, list[str]]:
    """Return the sources of each tensor by name."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError("write NAME: tensor for each, a tensor as step.output or the name of a pipeline's input")
    sources = {str(name): [source] if isinstance(source, str) else source for name, source in value.items()}
    for name, source in sources.items():
        if not isinstance(source, list) or not source or not all(isinstance(one, str) and one for one in source):
            raise ValueError(f"'{name}': invalid source {source!r}; write step.output, or a list of such")
    return sources


_TESTS = ("equals", "in", "above", "below")


def _when(value: Any) -> dict[str, Any]:
    example = "write {tensor: step.output, equals: 3}, or in: [1, 2], above: 0.5, below: 0.5"
    if not isinstance(value, Mapping) or len(value) != 2 or not isinstance(value.get("tensor"), str):
        raise ValueError(f"{value!r} is not a condition; {example}")
    (test,) = set(value) - {"tensor"}
    if test not in _TESTS:
        raise ValueError(f"unknown test '{test}'{nearest(str(test), list(_TESTS))}; {example}")
    wanted = value[test]
    if test in ("above", "below"):
        if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
            raise ValueError(f"{test}: {wanted!r} is not a number; {example}")
        return {"tensor": value["tensor"], "test": {test: float(wanted)}}
    values = wanted if test == "in" else [wanted]
    if not isinstance(values, list) or not all(isinstance(one, (str, int, float)) for one in values):
        raise ValueError(f"{test}: {wanted!r} is not a list of numbers or texts; {example}")
    plain = [float(one) if isinstance(one, bool) else one for one in values]
    return {"tensor": value["tensor"], "test": {"in": plain}}


def _padding(value: Any) -> Padding:
    try:
        return msgspec.convert(value, Padding, strict=True)
    except msgspec.ValidationError as fault:
        form = "{inputs: {tokens: {axis: 1, value: 0}}, outputs: {scores: {axis: 1}}}"
        raise ValueError(f"{_expected(str(fault))}; write {form}") from None


def _sequence(value: Any) -> Sequences:
    form = "{idle_max: 60s, start: INPUT, state: {INPUT: OUTPUT}}, every key optional"
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a mapping; write {form}")
    plain = {str(key): given for key, given in value.items()}
    if "idle_max" in plain:
        plain["idle_max_s"] = _seconds(plain.pop("idle_max"))
    state = plain.get("state")
    if isinstance(state, Mapping):
        plain["state"] = {name: {"output": one} if isinstance(one, str) else one for name, one in state.items()}
    try:
        return msgspec.convert(plain, Sequences, strict=True)
    except msgspec.ValidationError as fault:
        raise ValueError(f"{_expected(str(fault))}; write {form}") from None


def _values(value: Any) -> dict[str, Any]:
    """Check that ``value`` maps names to JSON values."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{value!r} is not a mapping of names to values; write {{top: 5}}")
    for name, one in value.items():
        try:
            json.dumps(one, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"'{name}': {one!r} is not a number, text, true, false, null or list of such") from None
    return dict(value)


def _seconds(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} is not positive; write for instance 20s")
    return seconds


_PARSERS: dict[Kind, Callable[[Any], Any]] = {
    "duration": _seconds,
    "size": parse_size,
    "objective": _objective,
    "versions": _versions,
    "batching": _batching,
    "tensors": _tensors,
    "padding": _padding,
    "sequence": _sequence,
    "shares": _shares,
    "sources": _sources,
    "when": _when,
    "values": _values,
    "warmup": read_warmup,
}
