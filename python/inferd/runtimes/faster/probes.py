"""Generate rows that reveal differences between two versions of a model, and rows that a library may reject.

Reads a converted model and its input's schema, hands on named matrices, deterministic. Knows nothing of libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inferd.types import InputSchema, TensorSpec

__all__ = ["Probe", "allowed", "points_of", "probes"]

_ROWS = 2048
_EDGE_ROWS_MAX = 16384
_CELLS_MAX = 1 << 22
"""Maximum cells of one matrix: 32 MiB in FP64."""
_SINGLE_COLUMNS_MAX = 256
"""Wider matrices have NaN and infinity in groups of columns."""

_FP32_MAX = float(np.finfo(np.float32).max)
_FP32_LEAST = float(np.finfo(np.float32).smallest_subnormal)
_FP64_LEAST = float(np.finfo(np.float64).smallest_subnormal)
# Zeros and values that round to zero; integers that FP32 and FP64 round; values that FP32 rounds to infinity.
_SMALL = [0.0, _FP64_LEAST, 1e-310, _FP32_LEAST, 1e-40, 1e-36, 1e-35, float(np.float32(1e-35)), 1e-30, 0.5, 1.0]
_WHOLE = [255.0, 256.0, 2.0**24 + 1, 2.0**24 + 3, 123456789.25, 2.0**31, 2.0**32 + 3, 2.0**53, 1e18]
_LARGE = [1e30, _FP32_MAX, 2.0**128 - 2.0**103 - 2.0**75, 1e39, 1e150, 1e300, float(np.finfo(np.float64).max)]
_ORDINARY_MAX = 1e30
_NOTABLE = [*_SMALL, *_WHOLE, *_LARGE]


class Probe(NamedTuple):
    """Rows of one kind."""

    names: Sequence[str]
    """Content of the rows: one name for all, or one each."""
    rows: np.ndarray


def probes(points: list[np.ndarray], x: TensorSpec, schema: InputSchema) -> Iterator[Probe]:
    """Yield rows of every kind; the first are ordinary.

    Args:
        points: for each column the values at which outputs may change.
        x: the model's input matrix.
        schema: its schema. Rows may violate it.
    """
    dtype = np.dtype(np.float64 if x.datatype == "FP64" else np.float32)
    generator = _Generator(points, dtype, schema)
    with np.errstate(over="ignore"):
        for name, rows in generator.kinds():
            yield Probe([name], rows.astype(dtype))
        names, rows = generator.rejectable()
        for begin in range(0, len(rows), generator.rows_max):
            part = slice(begin, begin + generator.rows_max)
            yield Probe(names[part], rows[part].astype(dtype))


def allowed(rows: np.ndarray, schema: InputSchema) -> np.ndarray:
    """Return a mask of the rows that the gateway accepts for this schema."""
    kept = np.ones(len(rows), bool)
    if not schema.missing:
        kept &= ~np.isnan(rows).any(axis=1)
    if schema.largest is not None:
        kept &= ~(np.abs(rows) > schema.largest).any(axis=1)
    return kept


class _Generator:
    def __init__(self, points: list[np.ndarray], dtype: np.dtype[Any], schema: InputSchema) -> None:
        self._points, self._dtype, self._schema = points, dtype, schema
        self._columns = len(points)
        self.rows_max = max(1, _CELLS_MAX // max(1, self._columns))
        self._rows = max(64, min(_ROWS, self.rows_max))
        self._random = np.random.default_rng(0)
        largest = float(np.finfo(dtype).max) if schema.largest is None else schema.largest
        notable = np.array([value for value in _NOTABLE if value <= largest])
        self._notable = np.concatenate([notable, -notable])
        self._largest = largest

    def kinds(self) -> Iterator[tuple[str, np.ndarray]]:
        yield "ordinary values", self._near_points(self._rows)
        edges = [_neighbours(points, self._dtype) for points in self._points]
        count = min(_EDGE_ROWS_MAX, max(map(len, edges)), self.rows_max)
        yield "values at which the model decides, and their neighbours", self._columnwise(edges, max(count, self._rows))
        yield "whole numbers", self._random.integers(-3, 300, (self._rows // 4, self._columns)).astype(float)
        yield "values of every magnitude", self._magnitudes(self._rows // 2)
        yield "extreme values", self._random.choice(self._notable, (self._rows // 4, self._columns))
        yield "one extreme value", self._one_extreme()
        missing = self._near_points(self._rows // 2)
        missing[self._random.random(missing.shape) < 0.3] = np.nan
        yield "missing values", missing

    def _near_points(self, rows: int) -> np.ndarray:
        # A threshold of 1e300 represents infinity, and is not an ordinary value.
        points = [of_column[np.abs(of_column) <= _ORDINARY_MAX] for of_column in self._points]
        spread = [max(float(np.std(one)), 1e-3 * float(np.max(np.abs(one)))) for one in points]
        near = self._random.normal([float(np.mean(one)) for one in points], spread, (rows - rows // 2, self._columns))
        least, greatest = ([function(one) for one in points] for function in (np.min, np.max))
        within = self._random.uniform(least, greatest, (rows // 2, self._columns))
        around: np.ndarray = np.clip(np.concatenate([near, within]), -self._largest, self._largest)
        return around

    def _columnwise(self, values: list[np.ndarray], rows: int) -> np.ndarray:
        """Return rows that cover every value of every column, as far as their number allows."""
        columns = [np.resize(self._random.permutation(of_column), rows) for of_column in values]
        for column in columns:
            self._random.shuffle(column)
        return np.stack(columns, axis=1)

    def _magnitudes(self, rows: int) -> np.ndarray:
        shape = (rows, self._columns)
        top = float(np.log10(self._largest))
        usual, any_size = self._random.uniform(-12, min(12.0, top), shape), self._random.uniform(-40, top, shape)
        exponents = np.where(self._random.random((rows, 1)) < 0.75, usual, any_size)
        signed: np.ndarray = self._random.choice([-1.0, 1.0], shape) * np.minimum(10.0**exponents, self._largest)
        return signed

    def _one_extreme(self) -> np.ndarray:
        rows = self._near_points(self._rows // 2)
        indices = self._random.integers(0, self._columns, len(rows))
        rows[np.arange(len(rows)), indices] = self._random.choice(self._notable, len(rows))
        return rows

    def rejectable(self) -> tuple[list[str], np.ndarray]:
        """Return names and rows of values that libraries may reject, in each column alone and in all."""
        values = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf}
        if self._dtype == np.float64:
            values |= {"1e39": 1e39, "-1e39": -1e39}
        groups = np.array_split(np.arange(self._columns), min(self._columns, _SINGLE_COLUMNS_MAX))
        groups = [*groups, np.arange(self._columns)]
        named = [self._named(group) for group in groups]
        rows = np.repeat(self._near_points(2)[:1], len(values) * len(groups), axis=0)
        row = iter(rows)
        for value in values.values():
            for group in groups:
                next(row)[group] = value
        return [f"{value} in {group}" for value in values for group in named], rows

    def _named(self, group: np.ndarray) -> str:
        if len(group) == self._columns > 1:
            return "all columns"
        names = self._schema.columns
        called = [f"'{names[index]}'" if names else str(index) for index in (group[0], group[-1])]
        return f"column {called[0]}" if len(group) == 1 else f"columns {called[0]} to {called[1]}"


def _neighbours(points: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the points and their adjacent numbers, in FP64 and in FP32."""
    single = points.astype(np.float32)
    found = [single, np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))]
    if dtype == np.float64:
        found += [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)]
    together = np.unique(np.concatenate([part.astype(dtype) for part in found]))
    finite: np.ndarray = together[np.isfinite(together)]
    return finite


# -- where a model decides ------------------------------------------------------------------------------------------


def points_of(model: Any, columns: int) -> list[np.ndarray]:
    """Return for each column the values at which outputs may change.

    Thresholds of trees and members of their sets, and all constants per column in the graph: offsets, scales, cluster
    centres, training rows of neighbours.
    """
    from onnx import numpy_helper

    found: list[list[np.ndarray]] = [[np.array([0.0, 1.0])] for _ in range(columns)]
    for node in model.graph.node:
        if node.op_type == "TreeEnsemble":
            for feature, values in _decisions(node):
                if feature < columns:
                    found[feature].append(values)
    for constants in model.graph.initializer:
        values = numpy_helper.to_array(constants)
        if values.dtype.kind == "f" and values.ndim and values.shape[-1] == columns:
            for column, of_column in enumerate(values.reshape(-1, columns)[:512].T):
                found[column].append(of_column)
    for offsets, scales in _scaled(model, columns):
        for column, (offset, scale) in enumerate(zip(offsets, scales, strict=True)):
            found[column].append(np.array([offset, offset + scale, offset - scale, offset + 3 * scale]))
    return [_finite(np.concatenate(values)) for values in found]


def _finite(values: np.ndarray) -> np.ndarray:
    return np.unique(values.astype(np.float64)[np.isfinite(values)])


def _decisions(node: Any) -> Iterator[tuple[int, np.ndarray]]:
    from onnx import helper, numpy_helper

    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    features = np.array(attributes["nodes_featureids"])
    splits = numpy_helper.to_array(attributes["nodes_splits"])
    order = np.argsort(features, kind="stable")
    bounds = np.flatnonzero(np.diff(features[order])) + 1
    for group in np.split(order, bounds):
        yield int(features[group[0]]), splits[group]
    if "membership_values" in attributes:
        members = numpy_helper.to_array(attributes["membership_values"])
        indices = np.flatnonzero(numpy_helper.to_array(attributes["nodes_modes"]) == _MEMBER)
        sets = np.split(members, np.flatnonzero(np.isnan(members)) + 1)
        for index, values in zip(indices, sets, strict=False):
            kept = values[~np.isnan(values)]
            yield int(features[index]), np.concatenate([kept, kept + 1, kept + 0.5, kept + 256, -kept])


_MEMBER = 6


def _scaled(model: Any, columns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield offsets and scales of ``(x - offset) / scale``."""
    from onnx import numpy_helper

    constants = {one.name: one for one in model.graph.initializer}
    by_input = {name: node for node in model.graph.node for name in node.input}

    def of(name: str) -> np.ndarray | None:
        values = numpy_helper.to_array(constants[name]).reshape(-1) if name in constants else None
        return values if values is not None and len(values) == columns else None

    for node in model.graph.node:
        then = by_input.get(node.output[0])
        if node.op_type == "Sub" and then is not None and then.op_type == "Div":
            offsets, scales = of(node.input[1]), of(then.input[1])
            if offsets is not None and scales is not None:
                yield offsets, scales
