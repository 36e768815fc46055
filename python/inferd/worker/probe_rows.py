"""Generate rows for the probe: ordinary ones, and ones that make many models behave differently.

Reads what a runtime declares and its model provides: an example, schemas of tabular inputs, constants in its code.
Hands on single rows, deterministic, each from its own random stream. Knows nothing of whether a model accepts them: the
probe skips rejected ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.runtimes.base import Controlled, Tabular
from inferd.types import DATATYPES
from inferd.worker import probe_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from inferd.runtimes.base import Batch, Runtime
    from inferd.types import InputSchema, TensorSpec

__all__ = ["Row", "RowGenerator", "recipes", "sample"]

# Sizes to try for dynamic dimensions. Some networks need a minimum size or a multiple of 32.
_SIZES = (3, 8, 32, 64, 224)
_TEXTS = (probe_texts.ORDINARY, b"1", b"{}")
_ELEMENTS_MAX = 1 << 24
"""Maximum elements of one row: the probe should not need more memory than serving."""
_EXAMPLE_ROWS_MAX = 3
"""Rows of the example that run unchanged, besides the first."""


class Recipe(NamedTuple):
    """Parameters of an ordinary row."""

    size: int
    """Size of every dynamic dimension."""
    text: bytes


class Row(NamedTuple):
    """One row and its kind."""

    kind: str
    batch: Batch
    magnitude: float = 0.0
    """Magnitude of its numbers: if such a row is slow, larger ones are skipped. 0: as in an ordinary row."""


class _Kind(NamedTuple):
    name: str
    floats: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    integer_max: int
    """Upper bound of integers from 0; if negative, the value of all integers."""
    magnitude: float = 0.0
    text: int | None = None
    """Index of the text; ``None``: as in an ordinary row."""


def _uniform(maximum: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda random, shape: random.random(shape) * maximum


def _normal(scale: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda random, shape: random.normal(size=shape) * scale


def _constant(value: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda _, shape: np.full(shape, value)


def _integers(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.integers(0, 10, shape).astype(float)


def _both_signs(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Magnitudes above 2, the first value positive: if time allows only two rows, this is the second."""
    values = 2 + np.abs(random.normal(size=shape)) * 3
    values.reshape(-1)[1:] *= random.choice([-1.0, 1.0], max(values.size - 1, 0))
    return values


def _missing(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = random.normal(size=shape)
    values.reshape(-1)[:1] = np.nan
    return values


# Most useful first: a slow model runs only the first ones. Larger numbers follow smaller ones.
_KINDS = (
    _Kind("within 1", _uniform(1.0), 1),
    _Kind("of both signs", _both_signs, 9, 4.0, 2),
    _Kind("up to 8", _uniform(8.0), 9, 8.0, 6),
    _Kind("up to 255", _uniform(255.0), 255, 255.0, 7),
    _Kind("thousands", _normal(1e3), 255, 1e3, 1),
    _Kind("zeros", _constant(0.0), 0, 0.0, 0),
    _Kind("whole numbers", _integers, 9, 9.0, 5),
    _Kind("about 1", _normal(1.0), 1),
    _Kind("minus one", _constant(-1.0), -1, 1.0),
    _Kind("thousandths", _normal(1e-3), 1, 0.0, 3),
    _Kind("millions", _normal(1e6), 255, 1e6, 9),
    _Kind("about 1 again", _normal(1.0), 9, 4.0, 4),
    _Kind("missing", _missing, 1, 4.0, 8),
)
_ABOUT_1 = next(kind for kind in _KINDS if kind.name == "about 1")
_TEXT_FOR_MISSING = 4
"""Kind of row that has a text where ordinary rows have none."""
_TEXT_MAX = 1 << 14
"""Constants up to this may be limits on text length."""
_TRAINED_INTEGER_MAX = 9
"""Integer bound for runtimes whose library may crash on an index beyond a vocabulary."""


def recipes(runtime: Runtime) -> Iterator[Recipe]:
    """Yield recipes for an ordinary row, likeliest first."""
    specs = runtime.signature.inputs
    free = any(dim < 0 for spec in specs for dim in spec.shape[1:])
    texts = _TEXTS if any(spec.datatype == "BYTES" for spec in specs) else _TEXTS[:1]
    if runtime.example is not None:
        free, texts = False, _TEXTS[:1]
    for size in _SIZES if free else _SIZES[:1]:
        for text in texts:
            yield Recipe(size, text)


def sample(runtime: Runtime, rows: int) -> Batch:
    """Return a batch of ordinary rows, from the example or generated; deterministic."""
    generator = RowGenerator(runtime, next(recipes(runtime)))
    batches = [generator.ordinary(row) for row in range(rows)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


class RowGenerator:
    """Generates rows.

    Args:
        runtime: the loaded model.
        recipe: parameters of ordinary rows if the model has no example.
        samples: additional example rows: plain values by input.
        unbounded: whether integers beyond a vocabulary raise an exception at worst. Otherwise a library may crash.
    """

    def __init__(
        self, runtime: Runtime, recipe: Recipe, samples: Sequence[Mapping[str, Any]] = (), *, unbounded: bool = False
    ) -> None:
        self._specs = runtime.signature.inputs
        self._recipe, self._unbounded = recipe, unbounded
        example = runtime.example
        self._example = None if example is None else _arrays(self._specs, example)
        for sample_ in samples:
            self._example = _append(self._specs, self._example, sample_)
        self._controls = dict(runtime.controls) if isinstance(runtime, Controlled) else {}
        schemas = runtime.schemas if isinstance(runtime, Tabular) else ()
        self._schemas: dict[str, InputSchema] = {schema.input: schema for schema in schemas}
        constants = getattr(runtime, "constants", None)
        self._numbers: Sequence[float] = constants.numbers if constants else ()
        self._words: Sequence[str] = constants.words if constants else ()

    def ordinary(self, seed: int = 0) -> Batch:
        """Return row ``seed`` of the example, cyclically; without an example, numbers from 0 to 1."""
        return self._row(lambda spec, random: self._ordinary(spec, random, seed), seed)

    def each(self) -> Iterator[Row]:
        """Yield distinct rows, most useful first; the first is ordinary."""
        known: list[Batch] = []
        for row in self._each():
            if not any(_same(row.batch, other) for other in known):
                known.append(row.batch)
                yield row

    def _each(self) -> Iterator[Row]:
        yield Row("ordinary", self.ordinary())
        yield from self._of_kinds(_KINDS[1:2])
        if self._example is not None:
            yield Row("near ordinary ones", self._row(self._near_example, 101))
        yield from self._of_kinds(_KINDS[2:5])
        greatest = max(map(abs, self._numbers), default=0.0)
        if self._numbers or self._words:
            yield Row("near the model's constants", self._row(self._near_constants, 102), greatest)
        yield from self._of_kinds(_KINDS[5:])
        if self._numbers:
            yield Row("beyond the model's constants", self._row(self._beyond_constants, 103), greatest)
        if self._example is None:
            return
        known = min(_EXAMPLE_ROWS_MAX, max(len(array) for array in self._example.values()) - 1)
        for row in range(1, known + 1):
            yield Row("of the example", self.ordinary(row))
        yield Row("within 1", self._row(lambda spec, random: self._kind(_KINDS[0], spec, random), 104))
        yield Row("near ordinary ones", self._row(self._near_example, 105))

    def _of_kinds(self, kinds: Sequence[_Kind]) -> Iterator[Row]:
        for kind in kinds:
            seed = 1 + _KINDS.index(kind)
            batch = self._row(lambda spec, random, kind=kind: self._kind(kind, spec, random), seed)  # type: ignore[misc]
            yield Row(kind.name, batch, kind.magnitude)

    def _row(self, make: Callable[[TensorSpec, np.random.Generator], np.ndarray], seed: int) -> Batch:
        return {
            spec.name: self._restricted(make(spec, np.random.default_rng([seed, index])), spec, index)
            for index, spec in enumerate(self._specs)
        }

    def _restricted(self, values: np.ndarray, spec: TensorSpec, index: int) -> np.ndarray:
        """Restrict ``values`` to what the gateway accepts, in the input's dtype."""
        if spec.name in self._controls:
            return self._controlled(spec)
        schema = self._schemas.get(spec.name)
        if schema is not None and spec.datatype.startswith("FP"):
            if not schema.missing and np.isnan(values).any():
                values = self._ordinary(spec, np.random.default_rng([0, index]), 0)
            if schema.largest is not None:
                values = np.clip(values, -schema.largest, schema.largest)
        return _typed(values, spec)

    def _controlled(self, spec: TensorSpec) -> np.ndarray:
        """Return the value that the server fills in for a request with an empty context."""
        value: Any = b"" if spec.datatype == "BYTES" else self._controls[spec.name] == "sequence_ready"
        return np.full(self._shape(spec), value, DATATYPES[spec.datatype])

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        if self._example is not None and spec.name in self._example:
            return (1, *self._example[spec.name].shape[1:])
        shape = (1, *(self._recipe.size if dim < 0 else dim for dim in spec.shape[1:]))
        if math.prod(shape) > _ELEMENTS_MAX:
            raise ValueError(f"one row of '{spec.name}' has {math.prod(shape)} elements, too many to generate")
        return shape

    def _ordinary(self, spec: TensorSpec, random: np.random.Generator, seed: int) -> np.ndarray:
        if self._example is not None and spec.name in self._example:
            array = self._example[spec.name]
            index = seed % len(array)
            return array[index : index + 1]
        if spec.datatype == "BYTES":
            return _texts(self._shape(spec), lambda _: self._recipe.text)
        return self._numeric(_KINDS[0], spec, random)

    def _kind(self, kind: _Kind, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        if spec.datatype != "BYTES":
            return self._numeric(kind, spec, random)
        usual = self._ordinary(spec, random, 0)
        if kind.text is None:
            return usual
        example, number, schema = usual.reshape(-1), kind.text, self._schemas.get(spec.name)
        if kind.floats is _missing and schema is not None and schema.missing:
            return _texts(usual.shape, lambda _: None)

        def text(index: int) -> Any:
            if example[index] is None and number != _TEXT_FOR_MISSING:
                # An optional input that is absent from the example may be invalid if present.
                return None
            return probe_texts.varied(example[index], number + index, random, self._words)

        return _texts(usual.shape, text)

    def _numeric(self, kind: _Kind, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        shape = self._shape(spec)
        if _is_float(spec):
            return kind.floats(random, shape)
        most = 1 if spec.datatype == "BOOL" else kind.integer_max
        if not self._unbounded and spec.datatype != "UINT8":
            known = 0 if self._example is None else int(max(self._example[spec.name].max(initial=0), 0))
            most = min(max(most, 0), known or _TRAINED_INTEGER_MAX)
        if most < 0:
            return np.full(shape, most if spec.datatype.startswith("INT") else 0)
        return random.integers(0, most + 1, shape)

    def _near_example(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        """Return values near the example's rows, but none of them."""
        if self._example is None or spec.name not in self._example:
            return self._kind(_ABOUT_1, spec, random)
        known = self._example[spec.name]
        shape = (1, *known.shape[1:])
        if not spec.datatype.startswith("FP"):
            mixed: np.ndarray = np.take_along_axis(known, random.integers(0, len(known), shape), axis=0)
            return mixed
        values = known.astype(float)
        finite = values[np.isfinite(values)]
        spread = float(np.std(finite)) if finite.size else 1.0
        base = values[[random.integers(0, len(values))]]
        spread = spread or float(np.abs(finite).max(initial=0.0)) * 0.1 or 1.0
        around: np.ndarray = base + random.normal(size=shape) * spread
        return around

    def _near_constants(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        """Return numbers on both sides of the model's constants, never a constant itself: it may be a command."""
        usual = self._ordinary(spec, random, 0)
        if spec.datatype == "BYTES":
            lengths = [int(number) for number in self._numbers if 0 < number <= _TEXT_MAX]
            flat = usual.reshape(-1)
            return _texts(
                usual.shape, lambda index: probe_texts.containing(flat[index], self._words, max(lengths, default=0))
            )
        if not self._numbers:
            return self._numeric(_ABOUT_1, spec, random)
        chosen = random.choice(np.array(self._numbers), usual.shape)
        if _is_float(spec):
            near: np.ndarray = chosen * random.uniform(0.8, 1.2, usual.shape)
            return near
        if not self._unbounded or spec.datatype == "BOOL":
            return self._numeric(_KINDS[0], spec, random)
        adjacent: np.ndarray = np.trunc(chosen) + random.choice([-1, 1], usual.shape)
        return adjacent

    def _beyond_constants(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        if not _is_float(spec):
            return self._near_constants(spec, random)
        return random.uniform(1.1, 1.5, self._shape(spec)) * max(map(abs, self._numbers))


def _is_float(spec: TensorSpec) -> bool:
    return spec.datatype.startswith("FP") or spec.datatype == "BF16"


def _arrays(specs: Sequence[TensorSpec], example: Batch) -> dict[str, np.ndarray]:
    """Return the example's rows in the dtypes of the inputs."""
    found: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.name not in example:
            continue
        values = np.asarray(example[spec.name], object if spec.datatype == "BYTES" else None)
        if spec.datatype == "BYTES":
            flat = [_bytes(text) for text in values.reshape(-1)]
            values = _texts(values.shape, flat.__getitem__)
        found[spec.name] = values
    return found


def _append(
    specs: Sequence[TensorSpec], known: dict[str, np.ndarray] | None, sample: Mapping[str, Any]
) -> dict[str, np.ndarray] | None:
    """Return ``known`` with a sample's rows appended; unchanged if they don't match."""
    try:
        arrays = _arrays(specs, dict(sample))
    except (TypeError, ValueError):
        return known
    fits = all(arrays[spec.name].ndim == len(spec.shape) for spec in specs if spec.name in arrays)
    if not arrays or not fits or not all(map(len, arrays.values())):
        return known
    if known is None:
        return arrays
    rows = max(map(len, arrays.values()))
    joined = {}
    for name, array in known.items():
        more = arrays.get(name, array[:1])
        if more.shape[1:] != array.shape[1:]:
            return known
        joined[name] = np.concatenate([array, np.resize(more, (rows, *more.shape[1:]))])
    return joined


def _typed(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(DATATYPES[spec.datatype])
    if values.dtype == dtype and spec.datatype != "BF16":
        return values
    with np.errstate(all="ignore"):
        if spec.datatype == "BF16":
            if values.dtype == np.uint16:
                return values
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            values = np.clip(values, bounds.min, bounds.max)
        typed: np.ndarray = values.astype(dtype)
        return typed


def _texts(shape: tuple[int, ...], text: Callable[[int], Any]) -> np.ndarray:
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = [text(index) for index in range(array.size)]
    return array.reshape(shape)


def _bytes(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else text


def _same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
