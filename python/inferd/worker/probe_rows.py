"""Rows that the probe runs: ordinary ones, and such as make many models do something else.

Reads what a runtime declares and what its model knows: its example, the schemas of its tables, constants in its code.
Hands on single rows, the same ones every time, each from a stream of random numbers of its own. Knows nothing of
whether a model takes them: what it refuses is left out by the probe.
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

__all__ = ["Row", "Rows", "recipes", "sample"]

# A dimension of free size that is not the batch. Some networks need one that is large enough, or a multiple of 32.
_SIZES = (3, 8, 32, 64, 224)
_TEXTS = (probe_texts.ORDINARY, b"1", b"{}")
_ELEMENTS_MAX = 1 << 24
"""Most elements of one row: the probe should not need more memory than the model will."""
_EXAMPLES_MAX = 3
"""Rows of the example that are run as they are, besides the first."""


class Recipe(NamedTuple):
    """How an ordinary row is made up."""

    size: int
    """Of every free dimension."""
    text: bytes


class Row(NamedTuple):
    """One row, with what is particular about it."""

    kind: str
    batch: Batch
    rung: float = 0.0
    """How large its numbers are: where such a row takes long, larger ones are not run. 0: as an ordinary one's."""


class _Kind(NamedTuple):
    name: str
    floats: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    integer_max: int
    """Integers are from 0 to this; below 0: this."""
    rung: float = 0.0
    text: int | None = None
    """The number of the text; ``None``: as in an ordinary row."""


def _uniform(most: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda random, shape: random.random(shape) * most


def _normal(magnitude: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda random, shape: random.normal(size=shape) * magnitude


def _constant(value: float) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    return lambda _, shape: np.full(shape, value)


def _whole(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.integers(0, 10, shape).astype(float)


def _both_signs(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Each above 2 in magnitude, and the first above 2 for certain: the only row where there is time for two."""
    values = 2 + np.abs(random.normal(size=shape)) * 3
    values.reshape(-1)[1:] *= random.choice([-1.0, 1.0], max(values.size - 1, 0))
    return values


def _missing(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = random.normal(size=shape)
    values.reshape(-1)[:1] = np.nan
    return values


# By their use: what comes first is run where there is time for little. Larger numbers come after smaller ones.
_KINDS = (
    _Kind("within 1", _uniform(1.0), 1),
    _Kind("of both signs", _both_signs, 9, 4.0, 2),
    _Kind("up to 8", _uniform(8.0), 9, 8.0, 6),
    _Kind("up to 255", _uniform(255.0), 255, 255.0, 7),
    _Kind("thousands", _normal(1e3), 255, 1e3, 1),
    _Kind("zeros", _constant(0.0), 0, 0.0, 0),
    _Kind("whole numbers", _whole, 9, 9.0, 5),
    _Kind("about 1", _normal(1.0), 1),
    _Kind("minus one", _constant(-1.0), -1, 1.0),
    _Kind("thousandths", _normal(1e-3), 1, 0.0, 3),
    _Kind("millions", _normal(1e6), 255, 1e6, 9),
    _Kind("about 1 again", _normal(1.0), 9, 4.0, 4),
    _Kind("missing", _missing, 1, 4.0, 8),
)
_ABOUT_1 = next(kind for kind in _KINDS if kind.name == "about 1")
_TEXT_FOR_MISSING = 4
"""The kind of row in which there is a text where ordinary rows have none."""
_TEXT_MOST = 1 << 14
"""Greatest number in a class's code that may be a bound on the length of texts."""
_TRAINED_INTEGER_MAX = 9
"""Of runtimes whose library may end the process where an integer is beyond a vocabulary."""


def recipes(runtime: Runtime) -> Iterator[Recipe]:
    """What to try for an ordinary row, likeliest first."""
    specs = runtime.signature.inputs
    free = any(dim < 0 for spec in specs for dim in spec.shape[1:])
    texts = _TEXTS if any(spec.datatype == "BYTES" for spec in specs) else _TEXTS[:1]
    if runtime.example is not None:
        free, texts = False, _TEXTS[:1]
    for size in _SIZES if free else _SIZES[:1]:
        for text in texts:
            yield Recipe(size, text)


def sample(runtime: Runtime, rows: int) -> Batch:
    """``rows`` rows of ordinary input: the model's own example repeated, or made up, the same every time."""
    made = Rows(runtime, next(recipes(runtime)))
    batches = [made.ordinary(row) for row in range(rows)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


class Rows:
    """Makes rows up.

    Args:
        runtime: the loaded model.
        recipe: what ordinary rows are like where it has no example.
        samples: more rows like those of the example, or all that there are: plain values by input.
        wild: whether integers beyond a vocabulary are an exception at worst. A library may end the process at them.
    """

    def __init__(
        self, runtime: Runtime, recipe: Recipe, samples: Sequence[Mapping[str, Any]] = (), *, wild: bool = False
    ) -> None:
        self._specs = runtime.signature.inputs
        self._recipe, self._wild = recipe, wild
        example = runtime.example
        self._example = None if example is None else _arrays(self._specs, example)
        for sample_ in samples:
            self._example = _joined(self._specs, self._example, sample_)
        self._controls = dict(runtime.controls) if isinstance(runtime, Controlled) else {}
        schemas = runtime.schemas if isinstance(runtime, Tabular) else ()
        self._schemas: dict[str, InputSchema] = {schema.input: schema for schema in schemas}
        constants = getattr(runtime, "constants", None)
        self._numbers: Sequence[float] = constants.numbers if constants else ()
        self._words: Sequence[str] = constants.words if constants else ()

    def ordinary(self, seed: int = 0) -> Batch:
        """Row ``seed`` of the example, from the front again behind its last; else numbers from 0 to 1."""
        return self._row(lambda spec, random: self._ordinary(spec, random, seed), seed)

    def each(self) -> Iterator[Row]:
        """The rows, each once, the most useful first; the very first is an ordinary one."""
        known: list[Batch] = []
        for row in self._each():
            if not any(_same(row.batch, other) for other in known):
                known.append(row.batch)
                yield row

    def _each(self) -> Iterator[Row]:
        yield Row("ordinary", self.ordinary())
        yield from self._of(_KINDS[1:2])
        if self._example is not None:
            yield Row("near ordinary ones", self._row(self._around, 101))
        yield from self._of(_KINDS[2:5])
        greatest = max(map(abs, self._numbers), default=0.0)
        if self._numbers or self._words:
            yield Row("near the model's constants", self._row(self._near, 102), greatest)
        yield from self._of(_KINDS[5:])
        if self._numbers:
            yield Row("beyond the model's constants", self._row(self._beyond, 103), greatest)
        if self._example is None:
            return
        known = min(_EXAMPLES_MAX, max(len(array) for array in self._example.values()) - 1)
        for row in range(1, known + 1):
            yield Row("of the example", self.ordinary(row))
        yield Row("within 1", self._row(lambda spec, random: self._kind(_KINDS[0], spec, random), 104))
        yield Row("near ordinary ones", self._row(self._around, 105))

    def _of(self, kinds: Sequence[_Kind]) -> Iterator[Row]:
        for kind in kinds:
            seed = 1 + _KINDS.index(kind)
            batch = self._row(lambda spec, random, kind=kind: self._kind(kind, spec, random), seed)  # type: ignore[misc]
            yield Row(kind.name, batch, kind.rung)

    def _row(self, make: Callable[[TensorSpec, np.random.Generator], np.ndarray], seed: int) -> Batch:
        return {
            spec.name: self._allowed(make(spec, np.random.default_rng([seed, place])), spec, place)
            for place, spec in enumerate(self._specs)
        }

    def _allowed(self, values: np.ndarray, spec: TensorSpec, place: int) -> np.ndarray:
        """What the gateway would let through, in the type of the input."""
        if spec.name in self._controls:
            return self._controlled(spec)
        schema = self._schemas.get(spec.name)
        if schema is not None and spec.datatype.startswith("FP"):
            if not schema.missing and np.isnan(values).any():
                values = self._ordinary(spec, np.random.default_rng([0, place]), 0)
            if schema.largest is not None:
                values = np.clip(values, -schema.largest, schema.largest)
        return _typed(values, spec)

    def _controlled(self, spec: TensorSpec) -> np.ndarray:
        """What the server fills in: of a request that nothing came with."""
        value: Any = b"" if spec.datatype == "BYTES" else self._controls[spec.name] == "sequence_ready"
        return np.full(self._shape(spec), value, DATATYPES[spec.datatype])

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        if self._example is not None and spec.name in self._example:
            return (1, *self._example[spec.name].shape[1:])
        shape = (1, *(self._recipe.size if dim < 0 else dim for dim in spec.shape[1:]))
        if math.prod(shape) > _ELEMENTS_MAX:
            raise ValueError(f"one row of '{spec.name}' has {math.prod(shape)} elements, too many to make one up")
        return shape

    def _ordinary(self, spec: TensorSpec, random: np.random.Generator, seed: int) -> np.ndarray:
        if self._example is not None and spec.name in self._example:
            array = self._example[spec.name]
            place = seed % len(array)
            return array[place : place + 1]
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

        def text(place: int) -> Any:
            if example[place] is None and number != _TEXT_FOR_MISSING:
                # An input that stands for nothing where it is left out may not be taken at all.
                return None
            return probe_texts.varied(example[place], number + place, random, self._words)

        return _texts(usual.shape, text)

    def _numeric(self, kind: _Kind, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        shape = self._shape(spec)
        if _is_float(spec):
            return kind.floats(random, shape)
        most = 1 if spec.datatype == "BOOL" else kind.integer_max
        if not self._wild and spec.datatype != "UINT8":
            known = 0 if self._example is None else int(max(self._example[spec.name].max(initial=0), 0))
            most = min(max(most, 0), known or _TRAINED_INTEGER_MAX)
        if most < 0:
            return np.full(shape, most if spec.datatype.startswith("INT") else 0)
        return random.integers(0, most + 1, shape)

    def _around(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        """Like the rows of the example, and none of them."""
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

    def _near(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        """Numbers on both sides of the model's constants, never a constant itself: it may be an order."""
        usual = self._ordinary(spec, random, 0)
        if spec.datatype == "BYTES":
            lengths = [int(number) for number in self._numbers if 0 < number <= _TEXT_MOST]
            flat = usual.reshape(-1)
            return _texts(
                usual.shape, lambda place: probe_texts.holding(flat[place], self._words, max(lengths, default=0))
            )
        if not self._numbers:
            return self._numeric(_ABOUT_1, spec, random)
        chosen = random.choice(np.array(self._numbers), usual.shape)
        if _is_float(spec):
            near: np.ndarray = chosen * random.uniform(0.8, 1.2, usual.shape)
            return near
        if not self._wild or spec.datatype == "BOOL":
            return self._numeric(_KINDS[0], spec, random)
        beside: np.ndarray = np.trunc(chosen) + random.choice([-1, 1], usual.shape)
        return beside

    def _beyond(self, spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
        if not _is_float(spec):
            return self._near(spec, random)
        return random.uniform(1.1, 1.5, self._shape(spec)) * max(map(abs, self._numbers))


def _is_float(spec: TensorSpec) -> bool:
    return spec.datatype.startswith("FP") or spec.datatype == "BF16"


def _arrays(specs: Sequence[TensorSpec], example: Batch) -> dict[str, np.ndarray]:
    """The example's rows in the types of the inputs."""
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


def _joined(
    specs: Sequence[TensorSpec], known: dict[str, np.ndarray] | None, sample: Mapping[str, Any]
) -> dict[str, np.ndarray] | None:
    """``known`` with the rows of a sample behind it; as it was where they don't fit."""
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
    array[:] = [text(place) for place in range(array.size)]
    return array.reshape(shape)


def _bytes(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else text


def _same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
