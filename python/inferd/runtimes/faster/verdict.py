"""Convert a model, compare it with its library, and decide which one to serve.

Reads load settings, hands on ``model.onnx`` in a folder and a :class:`Verdict`. Knows nothing of how models are
converted and rows are generated.
"""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import InferdError
from inferd.runtimes.faster import Verdict
from inferd.runtimes.faster.compare import Comparison
from inferd.runtimes.faster.probes import Probe, allowed, points_of, probes
from inferd.runtimes.registry import runtime
from inferd.types import InputSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch, Runtime

__all__ = ["try_onnx"]

_RUNS_S = 0.15
_SINGLE_ROWS = 64
_TOLERANCE_MAX = 0.01
"""A greater tolerance is not proposed: the models differ."""
_NO_OUTPUT = "no output of the converted model corresponds to the library's"
_WORTH_THREADS = 1.25
"""Speedup that justifies several threads over one, which adds in the library's order."""


class _Refused(Exception):
    """The library rejects a row that its schema allows and its conversion accepts."""


def try_onnx(load: dict[str, Any], folder: Path, tolerance: float | None) -> Verdict:
    """Convert the model of ``load``, compare, and decide which one to serve.

    Args:
        load: ``Launch.load`` of the model.
        folder: receives ``model.onnx`` if that is chosen.
        tolerance: maximum difference that counts as equal, as a fraction; ``None``: the default of each datatype.

    Raises:
        Exception: any, raised by a converter for unsupported models.
    """
    library = runtime(load["runtime"]).load(load)
    inputs = library.signature.inputs
    if len(inputs) != 1 or inputs[0].datatype not in ("FP32", "FP64") or not _is_matrix(inputs[0].shape):
        return Verdict("library", "only models with one FP32 or FP64 matrix of known width as input are converted")
    trial = _Trial(library, load)
    why = ""
    for model in _converter(load["runtime"]).convert(library, library.signature):
        try:
            conversions = trial.compare(model)
        except _Refused as refused:
            return Verdict("library", f"the library refuses what its schema does not tell: {refused}")
        alike = [
            one for one in conversions if not one.comparison.fault and one.comparison.needed(0.0) <= _TOLERANCE_MAX
        ]
        if not alike:
            why = why or _worst(conversions[0].comparison)
            continue
        trial.measure(alike)
        same = [one for one in alike if not one.comparison.needed(tolerance)]
        if not same:
            closest = min(alike, key=lambda one: one.comparison.needed(tolerance))
            return Verdict("library", _needs_tolerance(closest, tolerance))
        best = max(same, key=_score)
        if min(best.gains.values()) < 1:
            return Verdict("library", f"as ONNX it gives the same answers, but not faster ({best.figures})")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return _converted(library, best)
    return Verdict("library", f"as ONNX it does not give the same answers: {why or _NO_OUTPUT}")


def _is_matrix(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[1] > 0


def _converter(name: str) -> Any:
    return import_module(f"inferd.runtimes.faster.from_{name}")


# -- in words -------------------------------------------------------------------------------------------------------


def _converted(library: Runtime, chosen: _Conversion) -> Verdict:
    comparison = chosen.comparison
    apart = f"answers to {comparison.rows:,} rows differ by at most {comparison.needed(0.0):.1e} of their value"
    return Verdict(
        "onnx",
        f"converted from {library.facts['runtime']}: {chosen.figures}; {apart}",
        chosen.threads,
        tuple(schema.to_json() for schema in getattr(library, "schemas", ())),
        tuple(getattr(library, "ignored_columns", ())),
    )


def _worst(comparison: Comparison) -> str:
    apart = f"'{comparison.worst}' is apart by up to {comparison.apart[comparison.worst]:.1e} of its value"
    return comparison.fault or apart


def _needs_tolerance(closest: _Conversion, tolerance: float | None) -> str:
    """Return the reason for users, who may set a larger tolerance."""
    needed = closest.comparison.needed(tolerance)
    # Rounded up, so that the proposed tolerance suffices.
    return (
        f"as ONNX its answers are apart by up to {needed:.1e} of their value ('{closest.comparison.worst}'); "
        f"faster_tolerance: {needed * 1.05:.1e} would allow that, and serve it {closest.figures}"
    )


# -- the trial ------------------------------------------------------------------------------------------------------


class _Conversion:
    """A converted model in ONNX Runtime, with a fixed number of threads."""

    comparison: Comparison

    def __init__(self, model: Any, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Rejected rows must not be logged as errors.
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name
        self.threads = threads
        self.gains: dict[int, float] = {}
        """Speedup over the library by number of rows."""

    def run(self, rows: np.ndarray) -> Batch:
        """Return its outputs."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: rows}), strict=True))

    def add(self, rows: np.ndarray, wanted: Batch) -> None:
        """Compare its outputs for ``rows`` with the library's."""
        try:
            found = self.run(rows)
        except Exception as fault:  # noqa: BLE001 (ONNX Runtime has many exception types)
            self.comparison.note(f"it fails where the library answers ({' '.join(str(fault).split())[:160]})")
        else:
            self.comparison.add(rows, wanted, found)

    def refuses(self, rows: np.ndarray) -> bool:
        """Whether it rejects the rows with an error that the native worker recognises."""
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        try:
            self.run(rows)
        except InvalidArgument:
            return True
        return False

    @property
    def figures(self) -> str:
        """The speedups, for messages."""
        return ", ".join(
            f"{gain:.1f} times as fast at {count} {'row' if count == 1 else 'rows'}"
            for count, gain in self.gains.items()
        )


def _score(conversion: _Conversion) -> float:
    gain = conversion.gains[max(conversion.gains)]
    return gain if conversion.threads == 1 else gain / _WORTH_THREADS


class _Trial:
    """The comparison of a library's model with its conversions."""

    def __init__(self, library: Runtime, load: dict[str, Any]) -> None:
        self._library = library
        self._load = load
        (self._x,) = library.signature.inputs
        known = {schema.input: schema for schema in getattr(library, "schemas", ())}
        self._schema = known.get(self._x.name, InputSchema(self._x.name))
        self._usual = np.empty((0, self._x.shape[1]))

    def compare(self, model: Any) -> Sequence[_Conversion]:
        """Run all rows through the library and a converted model, with one thread and with the maximum.

        Raises:
            _Refused: only one of the two rejects a row that the gateway accepts.
        """
        conversions = [_Conversion(model, threads) for threads in sorted({1, self._load["threads"]})]
        self._usual = self._usual[:0]
        for probe in probes(points_of(model, self._x.shape[1]), self._x, self._schema):
            rows = self._accepted(probe, conversions[0])
            if not len(rows):
                continue
            wanted = self._predict(rows)
            if not len(self._usual):
                self._usual = rows
                margin = _converter(self._load["runtime"]).margin(self._library, self._schema, rows)
                for one in conversions:
                    one.comparison = Comparison(self._library.signature, wanted, margin)
            for one in conversions:
                one.add(rows, wanted)
            if all(one.comparison.fault for one in conversions):
                break
        if not len(self._usual):
            raise InferdError("the library answers no rows of ordinary values")
        for one in conversions:
            self._compare_alone(one)
        return conversions

    def _compare_alone(self, conversion: _Conversion) -> None:
        """Compare rows run alone with the library's batch: in service, requests share runs."""
        rows = self._usual[:_SINGLE_ROWS]
        if not conversion.comparison.fault:
            alone = [conversion.run(rows[index : index + 1]) for index in range(len(rows))]
            together = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
            conversion.comparison.add(rows, self._predict(rows), together)

    def measure(self, conversions: Sequence[_Conversion]) -> None:
        """Measure the speedup of each conversion, for one row and for a full batch."""
        for count in sorted({1, self._load["batch_rows_max"]}):
            some = self._usual[np.resize(np.arange(len(self._usual)), count)]
            library = _seconds(partial(self._library.predict, {self._x.name: some}))
            for one in conversions:
                one.gains[count] = library / _seconds(partial(one.run, some))

    def _accepted(self, probe: Probe, conversion: _Conversion) -> np.ndarray:
        """Return the rows that the library accepts, of those that the gateway accepts.

        The conversion must reject the others too, and only overflows inside the model: for missing or infinite values
        clients get the row and column, which a conversion can't report.
        """
        kept = allowed(probe.rows, self._schema)
        rows: np.ndarray = probe.rows[kept]
        if not len(rows) or self._refusal(rows) is None:
            return rows
        each = len(probe.names) > 1
        names = [name for name, through in zip(probe.names, kept, strict=True) if through] if each else probe.names
        # Row by row, which takes time: a sample of each kind suffices.
        rows = rows if each else rows[:_SINGLE_ROWS]
        accepted = []
        for index in range(len(rows)):
            row = rows[index : index + 1]
            refusal = self._refusal(row)
            if refusal is None:
                accepted.append(index)
            elif not np.isfinite(row).all() or not conversion.refuses(row):
                raise _Refused(f"{names[index if each else 0]} ({refusal})")
        taken: np.ndarray = rows[accepted]
        return taken

    def _refusal(self, rows: np.ndarray) -> str | None:
        try:
            self._predict(rows)
        except Exception as fault:  # noqa: BLE001 (libraries have their own exceptions for rejected values)
            return " ".join(str(fault).split())[:120]
        return None

    def _predict(self, rows: np.ndarray) -> Batch:
        # Copy: a model may keep or change its input.
        return self._library.predict({self._x.name: rows.copy()})


def _seconds(act: Callable[[], object]) -> float:
    """Return the minimum time of many runs: disturbances only add."""
    act()
    best, ends = float("inf"), time.perf_counter() + _RUNS_S
    while time.perf_counter() < ends:
        started = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - started)
    return best
