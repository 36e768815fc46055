"""Converts a model, compares it with its library, and says which one to serve.

Reads what would load the model, hands on ``model.onnx`` in a folder and a :class:`Verdict`. Knows nothing of how
models are converted and rows are made.
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
_LONE_ROWS = 64
_TOLERANCE_MAX = 0.01
"""A greater one is not proposed: what differs by more is another model."""
_NO_OUTPUT = "no output of the converted model corresponds to the library's"
_WORTH_THREADS = 1.25
"""How many times as fast several threads must be to take the place of one, which adds in the library's order."""


class _Refused(Exception):
    """The library refuses a row that its schema lets through, and its conversion does not."""


def try_onnx(load: dict[str, Any], folder: Path, tolerance: float | None) -> Verdict:
    """Convert the model that ``load`` describes, compare, and say which one to serve.

    Args:
        load: ``Launch.load`` of the model.
        folder: takes ``model.onnx`` where that is chosen.
        tolerance: largest difference that counts as none, as a fraction; ``None``: the precision of each output.

    Raises:
        Exception: whatever a converter raises on models that it does not know.
    """
    library = runtime(load["runtime"]).load(load)
    inputs = library.signature.inputs
    if len(inputs) != 1 or inputs[0].datatype not in ("FP32", "FP64") or not _wide(inputs[0].shape):
        return Verdict("library", "only models with one FP32 or FP64 matrix of known width as input are converted")
    trial = _Trial(library, load)
    why = ""
    for model in _converter(load["runtime"]).convert(library, library.signature):
        try:
            tried = trial.compare(model)
        except _Refused as refused:
            return Verdict("library", f"the library refuses what its schema does not tell: {refused}")
        alike = [one for one in tried if not one.comparison.fault and one.comparison.needed(0.0) <= _TOLERANCE_MAX]
        if not alike:
            why = why or _worst(tried[0].comparison)
            continue
        trial.measure(alike)
        same = [one for one in alike if not one.comparison.needed(tolerance)]
        if not same:
            return Verdict("library", _almost(min(alike, key=lambda one: one.comparison.needed(tolerance)), tolerance))
        best = max(same, key=_worth)
        if min(best.gains.values()) < 1:
            return Verdict("library", f"as ONNX it gives the same answers, but not faster ({best.figures})")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return _converted(library, best)
    return Verdict("library", f"as ONNX it does not give the same answers: {why or _NO_OUTPUT}")


def _wide(shape: tuple[int, ...]) -> bool:
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


def _almost(closest: _Conversion, tolerance: float | None) -> str:
    """What a user decides by who may allow for more."""
    needed = closest.comparison.needed(tolerance)
    # Rounded up, so that what is proposed does.
    return (
        f"as ONNX its answers are apart by up to {needed:.1e} of their value ('{closest.comparison.worst}'); "
        f"faster_tolerance: {needed * 1.05:.1e} would allow that, and serve it {closest.figures}"
    )


# -- the trial ------------------------------------------------------------------------------------------------------


class _Conversion:
    """A converted model in ONNX Runtime, with a number of threads."""

    comparison: Comparison

    def __init__(self, model: Any, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # That it refuses rows is no fault to be logged.
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name
        self.threads = threads
        self.gains: dict[int, float] = {}
        """How many times as fast as the library it is, by the number of rows."""

    def run(self, rows: np.ndarray) -> Batch:
        """Its answers."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: rows}), strict=True))

    def add(self, rows: np.ndarray, wanted: Batch) -> None:
        """Compare its answers to ``rows`` with those of the library."""
        try:
            found = self.run(rows)
        except Exception as fault:  # noqa: BLE001 (ONNX Runtime has one for each kind of failure)
            self.comparison.note(f"it fails where the library answers ({' '.join(str(fault).split())[:160]})")
        else:
            self.comparison.add(rows, wanted, found)

    def refuses(self, rows: np.ndarray) -> bool:
        """Whether it refuses rows in the way that the native worker understands."""
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        try:
            self.run(rows)
        except InvalidArgument:
            return True
        return False

    @property
    def figures(self) -> str:
        """The gains in words."""
        return ", ".join(
            f"{gain:.1f} times as fast at {count} {'row' if count == 1 else 'rows'}"
            for count, gain in self.gains.items()
        )


def _worth(conversion: _Conversion) -> float:
    gain = conversion.gains[max(conversion.gains)]
    return gain if conversion.threads == 1 else gain / _WORTH_THREADS


class _Trial:
    """A library's model, and what is asked of it and of its conversions."""

    def __init__(self, library: Runtime, load: dict[str, Any]) -> None:
        self._library = library
        self._load = load
        (self._x,) = library.signature.inputs
        known = {schema.input: schema for schema in getattr(library, "schemas", ())}
        self._schema = known.get(self._x.name, InputSchema(self._x.name))
        self._usual = np.empty((0, self._x.shape[1]))

    def compare(self, model: Any) -> Sequence[_Conversion]:
        """Ask the library and a converted model everything; the latter with one thread and with as many as it may have.

        Raises:
            _Refused: only one of the two refuses a row that the gateway lets through.
        """
        tried = [_Conversion(model, threads) for threads in sorted({1, self._load["threads"]})]
        self._usual = self._usual[:0]
        for probe in probes(points_of(model, self._x.shape[1]), self._x, self._schema):
            rows = self._answered(probe, tried[0])
            if not len(rows):
                continue
            wanted = self._predict(rows)
            if not len(self._usual):
                self._usual = rows
                margin = _converter(self._load["runtime"]).margin(self._library, self._schema, rows)
                for one in tried:
                    one.comparison = Comparison(self._library.signature, wanted, margin)
            for one in tried:
                one.add(rows, wanted)
            if all(one.comparison.fault for one in tried):
                break
        if not len(self._usual):
            raise InferdError("the library answers no rows of ordinary values")
        for one in tried:
            self._one_by_one(one)
        return tried

    def _one_by_one(self, conversion: _Conversion) -> None:
        """Compare rows that run alone with the same rows in company: what is served shares runs of the model."""
        rows = self._usual[:_LONE_ROWS]
        if not conversion.comparison.fault:
            alone = [conversion.run(rows[place : place + 1]) for place in range(len(rows))]
            together = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
            conversion.comparison.add(rows, self._predict(rows), together)

    def measure(self, conversions: Sequence[_Conversion]) -> None:
        """Find out how much faster than the library each conversion is, for one row and for a full batch."""
        for count in sorted({1, self._load["batch_rows_max"]}):
            some = self._usual[np.resize(np.arange(len(self._usual)), count)]
            library = _seconds(partial(self._library.predict, {self._x.name: some}))
            for one in conversions:
                one.gains[count] = library / _seconds(partial(one.run, some))

    def _answered(self, probe: Probe, conversion: _Conversion) -> np.ndarray:
        """The rows that the library answers, of those that the gateway lets through.

        Those that it refuses the conversion must refuse, too, and only numbers that become too large inside: of what is
        missing or infinite clients are told the row and the column, which no conversion can.
        """
        kept = allowed(probe.rows, self._schema)
        rows: np.ndarray = probe.rows[kept]
        if not len(rows) or self._refusal(rows) is None:
            return rows
        each = len(probe.names) > 1
        names = [name for name, through in zip(probe.names, kept, strict=True) if through] if each else probe.names
        # Row by row, which takes time: of rows of one kind some will do.
        rows = rows if each else rows[:_LONE_ROWS]
        answered = []
        for place in range(len(rows)):
            row = rows[place : place + 1]
            refusal = self._refusal(row)
            if refusal is None:
                answered.append(place)
            elif not np.isfinite(row).all() or not conversion.refuses(row):
                raise _Refused(f"{names[place if each else 0]} ({refusal})")
        taken: np.ndarray = rows[answered]
        return taken

    def _refusal(self, rows: np.ndarray) -> str | None:
        try:
            self._predict(rows)
        except Exception as fault:  # noqa: BLE001 (each library has its own for values that it refuses)
            return " ".join(str(fault).split())[:120]
        return None

    def _predict(self, rows: np.ndarray) -> Batch:
        # A copy: what a model keeps or changes is its own.
        return self._library.predict({self._x.name: rows.copy()})


def _seconds(act: Callable[[], object]) -> float:
    """The least time of many runs: what disturbs only ever adds."""
    act()
    best, ends = float("inf"), time.perf_counter() + _RUNS_S
    while time.perf_counter() < ends:
        started = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - started)
    return best
