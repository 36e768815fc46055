"""Wrap a method of a user's model as a function of tensors.

Reads the annotations of one method, hands on a :class:`Call`: arrays by name in, arrays by name out. Knows nothing of
where the method runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from inferd.errors import InferdError, InvalidInput, ModelFailed
from inferd.sdk.arrays import copy_or_view
from inferd.sdk.codecs import Codec, allow_missing, codec_of, codec_of_values
from inferd.sdk.context import Contexts, contexts_of, freeze
from inferd.sdk.streams import is_generator, iterate
from inferd.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["OUTPUT", "Call", "Column"]

_STREAMS = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)

OUTPUT = "output"
"""The name of an output that has none of its own."""


class Column(NamedTuple):
    """One argument or output."""

    name: str
    codec: Codec
    default: Any = inspect.Parameter.empty
    """Value of a row that a request omits; empty: the argument is required."""

    @property
    def spec(self) -> TensorSpec:
        """The tensor specification; dimension 0 is dynamic."""
        return TensorSpec(self.name, self.codec.datatype, (-1, *self.codec.shape))


class Call:
    """A method with its inputs and outputs.

    Args:
        method: bound to its instance.
        outputs: its outputs; None: taken from the return annotation or, without one, from a run at load.
        example: plausible arguments by name for that run; None: generated.
        zero_copy: whether array arguments are views of memory that is reused.

    Raises:
        ModelFailed: an annotation is missing or unsupported; the message has the remedy.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        outputs: Sequence[Column] | None = None,
        example: Mapping[str, Any] | None = None,
        *,
        zero_copy: bool = False,
    ) -> None:
        self._method = method
        self._zero_copy = zero_copy
        self._name = method.__qualname__
        self.streams = is_generator(method)
        hints = _hints(method)
        self.inputs, self.contexts, self.by_row = _arguments(method, hints)
        self._loop = asyncio.Runner() if inspect.iscoroutinefunction(method) else None
        self._example = {column.name: column.codec.sample(2) for column in self.inputs} | dict(example or {})
        self.outputs = list(outputs) if outputs else _outputs(_result_type(hints), f"the result of {self._name}()")
        if not self.outputs:
            self.outputs = self._infer_outputs()

    @staticmethod
    def columns_of(method: Callable[..., Any]) -> list[Column]:
        """Return the arguments of a method that runs in another worker."""
        return _arguments(method, _hints(method))[0]

    def allow_missing(self, names: Collection[str]) -> None:
        """Pass ``None`` for a missing text of these arguments, whatever their annotations say."""
        self.inputs = [
            column._replace(codec=allow_missing(column.codec))
            if column.name in names and column.codec.datatype == "BYTES"
            else column
            for column in self.inputs
        ]

    @property
    def sample(self) -> dict[str, np.ndarray]:
        """A plausible batch of two or more rows."""
        arrays = {column.name: column.codec.encode(self._example[column.name]) for column in self.inputs}
        rows = max(len(array) for array in arrays.values())
        return arrays | (self.contexts.sample(rows) if self.contexts else {})

    @contextlib.contextmanager
    def _arguments(self, batch: Mapping[str, np.ndarray]) -> Iterator[dict[str, Sequence[Any]]]:
        """Yield the method's arguments for ``batch``, whose memory is reused afterwards."""
        arguments = {column.name: self._decoded(column, batch[column.name]) for column in self.inputs}
        if self.contexts is None:
            yield arguments
            return
        rows = len(batch[self.inputs[0].name])
        contexts = self.contexts.decode(batch, rows)
        try:
            yield {**arguments, self.contexts.name: contexts}
        finally:
            freeze(contexts)

    def _decoded(self, column: Column, array: np.ndarray) -> Any:
        values: Any = column.codec.decode(array)
        return copy_or_view(values, zero_copy=self._zero_copy) if isinstance(values, np.ndarray) else values

    @property
    def defaults(self) -> dict[str, np.ndarray]:
        """One row of each optional input.

        Raises:
            ModelFailed: a default does not match its annotation.
        """
        optional = [column for column in self.inputs if column.default is not inspect.Parameter.empty]
        return {column.name: _row(column, self._name) for column in optional}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the method over a batch.

        Raises:
            InvalidInput: a row is invalid; the message begins with its index.
            ModelFailed: the method returned something other than annotated.
        """
        with self._arguments(batch) as arguments:
            return self._encoded(self._run(arguments))

    def stream(self, batch: Mapping[str, np.ndarray]) -> Generator[dict[str, np.ndarray]]:
        """Run a generator method over one request; each yield is a response.

        Raises:
            InvalidInput: the method takes one row and the request has several.
            ModelFailed: the method yielded something other than annotated.
        """
        with self._arguments(batch) as arguments, self._yields(arguments) as yields:
            for found in yields:
                yield self._encoded(found)

    @contextlib.contextmanager
    def _yields(self, arguments: Mapping[str, Sequence[Any]]) -> Iterator[Iterator[Any]]:
        """Yield an iterator over the method's values, each in the form that other methods return."""
        if not self.by_row:
            with iterate(self._method(**arguments)) as yields:
                yield yields
            return
        rows = {name: len(values) for name, values in arguments.items()}
        if set(rows.values()) != {1}:
            raise InvalidInput(f"{self._name}() streams for one row, but the request has {max(rows.values())} rows")
        with iterate(self._method(**{name: values[0] for name, values in arguments.items()})) as yields:
            yield (_transposed([found]) for found in yields)

    def close(self) -> None:
        """Close the event loop of an async method."""
        if self._loop is not None:
            self._loop.close()

    def _run(self, arguments: Mapping[str, Sequence[Any]]) -> Any:
        if self._loop is not None:
            return self._loop.run(self._rows_at_once(arguments) if self.by_row else self._method(**arguments))
        return self._row_by_row(arguments) if self.by_row else self._method(**arguments)

    def _row_by_row(self, arguments: Mapping[str, Sequence[Any]]) -> Any:
        results = []
        for row in range(len(next(iter(arguments.values())))):
            try:
                results.append(_detached(self._method(**{name: values[row] for name, values in arguments.items()})))
            except InvalidInput as fault:
                raise fault.at_row(row) from fault
            except Exception as fault:
                _add_row_note(fault, row)
                raise
        return _transposed(results)

    async def _rows_at_once(self, arguments: Mapping[str, Sequence[Any]]) -> Any:
        async def one(row: int) -> Any:
            return _detached(await self._method(**{name: values[row] for name, values in arguments.items()}))

        count = len(next(iter(arguments.values())))
        results = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
        for row, result in enumerate(results):
            if isinstance(result, InvalidInput):
                raise result.at_row(row)
            if isinstance(result, BaseException):
                _add_row_note(result, row)
                raise result
        return _transposed(results)

    def _by_name(self, found: Any) -> dict[str, Any]:
        if isinstance(found, dict):
            return found
        names = [column.name for column in self.outputs] or [OUTPUT]
        if len(names) != 1:
            raise ModelFailed(f"{self._name}() returned {type(found).__name__}, not a dict with {', '.join(names)}")
        return {names[0]: found}

    def _encoded(self, found: Any) -> dict[str, np.ndarray]:
        named = self._by_name(found)
        return {column.name: self._encode(column, named) for column in self.outputs}

    def _encode(self, column: Column, found: dict[str, Any]) -> np.ndarray:
        if column.name not in found:
            raise ModelFailed(f"{self._name}() did not return '{column.name}'; it returned {sorted(found)}")
        values = found[column.name]
        if isinstance(values, list | tuple):
            for row, value in enumerate(values):
                if isinstance(value, InferdError):
                    raise value.at_row(row) if isinstance(value, InvalidInput) else value
        try:
            array = column.codec.encode(values)
        except (TypeError, ValueError, NotImplementedError) as fault:
            raise ModelFailed(f"{self._name}() returned an invalid '{column.name}': {fault}") from fault
        if array.dtype.hasobject and any(element is None for element in array.flat):
            raise ModelFailed(f"{self._name}() returned None in a row of '{column.name}'\nhelp: return an empty text")
        return array

    def _first(self, arguments: Mapping[str, Sequence[Any]]) -> Any:
        if self.by_row:
            arguments = {name: values[:1] for name, values in arguments.items()}
        with self._yields(arguments) as yields:
            for found in yields:
                return found
        raise ValueError("it yielded no value")

    def _infer_outputs(self) -> list[Column]:
        """Run the method once and derive its outputs from the result."""
        try:
            with self._arguments(self.sample) as arguments:
                found = self._by_name(self._first(arguments) if self.streams else self._run(arguments))
        except Exception as fault:
            raise ModelFailed(
                f"{self._name}() has no return annotation, and a run to infer its outputs raised "
                f"{type(fault).__name__}: {fault}\n"
                "help: annotate its result, or give the class an example = {argument: [two, values]}"
            ) from fault
        return [Column(name, codec_of_values(values, f"'{name}'")) for name, values in found.items()]


_IMMUTABLE = frozenset((str, bytes, int, float, bool, type(None)))


def _detached(result: Any) -> Any:
    """Copy ``result`` unless it is immutable: the method may reuse the object for the next row."""
    return result if type(result) in _IMMUTABLE else copy.deepcopy(result)


def _add_row_note(fault: BaseException, row: int) -> None:
    """Add the row to the operator's traceback only: a client's message must not name another caller's row."""
    fault.add_note(f"(raised for row {row} of the batch, counted from 0)")


def _hints(method: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(method, include_extras=True)
    except NameError as fault:
        raise ModelFailed(f"unresolved annotation of {method.__qualname__}(): {fault}") from fault


def _result_type(hints: dict[str, Any]) -> Any:
    """Return the annotated type of the result, or of each yield."""
    annotation = hints.get("return")
    if get_origin(annotation) in _STREAMS:
        return get_args(annotation)[0]
    return None if annotation in _STREAMS else annotation


def _arguments(method: Callable[..., Any], hints: dict[str, Any]) -> tuple[list[Column], Contexts | None, bool]:
    """Return the method's inputs, its context argument, and whether it takes one row at a time."""
    columns, whole, contexts = [], [], None
    name = method.__qualname__
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ModelFailed(f"{name}() has a variadic parameter *{parameter.name}\nhelp: name each input")
        if parameter.name not in hints:
            raise ModelFailed(
                f"'{parameter.name}' of {name}() has no annotation\nhelp: annotate it, for instance as "
                f"{parameter.name}: list[str], or Annotated[NDArray[np.float32], Shape(30)]"
            )
        found = contexts_of(parameter.name, hints[parameter.name])
        if found is not None:
            contexts = found
            whole.append(found.whole)
            continue
        codec, is_whole = codec_of(hints[parameter.name], f"'{parameter.name}' of {name}()")
        columns.append(Column(parameter.name, codec, parameter.default))
        whole.append(is_whole)
    if not columns:
        raise ModelFailed(f"{name}() has no arguments\nhelp: give it one for each input")
    # Arrays are valid for one row and for all rows; a single scalar argument decides.
    by_row = not all(whole)
    if contexts is not None:
        lists = any(get_origin(hints[column.name]) is list for column in columns)
        if (contexts.whole and by_row) or (lists and not contexts.whole):
            raise ModelFailed(
                f"'{contexts.name}' of {name}() is for {'all rows' if contexts.whole else 'one row'}, unlike the other"
                f" arguments\nhelp: annotate it as {'Context' if contexts.whole else 'list[Context]'}"
            )
    return columns, contexts, by_row


def _row(column: Column, method: str) -> np.ndarray:
    """Encode the default of ``column`` as one row."""
    default, codec = column.default, column.codec
    try:
        row = codec.encode([default])
        (back,) = codec.decode(row)
        # The default must survive a round trip: 5 is not text, and 0.5 is not an integer.
        same = not isinstance(default, int | float | str | bytes) or back == default or repr(back) == repr(default)
        if same and len(row.shape) == 1 + len(codec.shape):
            return row
    except (ArithmeticError, AttributeError, TypeError, ValueError, InferdError, NotImplementedError):
        pass
    raise ModelFailed(
        f"default {default!r} of '{column.name}' of {method}() does not match its annotation\n"
        "help: write the value of one row that omits the input"
    )


def _outputs(annotation: Any, place: str) -> list[Column]:
    """Return the outputs that a return annotation names; none if it leaves them open."""
    if annotation is None or annotation in (dict, Any) or str(annotation).startswith(("dict[", "typing.Any")):
        return []
    if is_typeddict(annotation):
        fields = get_type_hints(annotation, include_extras=True)
        return [Column(name, codec_of(field, f"'{name}' of {place}")[0]) for name, field in fields.items()]
    return [Column(OUTPUT, codec_of(annotation, place)[0])]


def _transposed(results: Sequence[Any]) -> Any:
    """Turn a list of row results into results by name."""
    if results and all(isinstance(result, dict) for result in results):
        return {name: [result[name] for result in results] for name in results[0]}
    return list(results)
