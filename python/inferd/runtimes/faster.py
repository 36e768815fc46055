"""The same model as ONNX, where that gives the same answers in less time.

    python -m inferd.runtimes.faster < request.json

Reads what would load the model and a folder, hands on ``model.onnx`` in that folder and a verdict on stdout. A process
of its own, run once for each model: the server that starts after it imports no framework at all.

Conversion is skl2onnx's and onnxmltools'. Whether it is lossless is not believed but tried, on rows made to find
differences: every threshold of every tree and its two neighbours among the floats, missing values, ordinary numbers
and extreme ones.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.errors import InferdError
from inferd.runtimes.registry import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from inferd.runtimes.base import Batch, Runtime
    from inferd.types import Signature

__all__ = ["CONVERTIBLE", "Verdict", "main", "try_onnx"]

CONVERTIBLE = {
    "sklearn": ("scikit-learn", "skl2onnx"),
    "xgboost": ("xgboost", "onnxmltools"),
    "lightgbm": ("lightgbm", "onnxmltools"),
}
"""Runtimes whose models may be converted, with the packages whose versions decide how."""

_OPSET, _OPSET_ML = 18, 3
_PROBE_ROWS = 2048
_RUNS_S = 0.15


class Verdict(NamedTuple):
    """What became of a model."""

    chosen: str
    """``onnx`` or ``library``."""
    why: str
    """One sentence, with figures."""


def main() -> int:
    """Serve the one request on stdin."""
    request = json.load(sys.stdin)
    # What libraries print belongs into the log; stdout has the verdict alone.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        verdict = try_onnx(request["load"], Path(request["folder"]), request["tolerance"])
    except Exception as fault:  # noqa: BLE001 (converters raise anything; the library still serves)
        message = str(fault) if isinstance(fault, InferdError) else f"{type(fault).__name__}: {fault}"
        verdict = Verdict("library", f"it can't be converted to ONNX ({' '.join(message.split())[:200]})")
    answer.write(json.dumps(verdict._asdict()))
    return 0


def try_onnx(load: dict[str, Any], folder: Path, tolerance: float) -> Verdict:
    """Convert the model that ``load`` describes, compare, and say which one to serve.

    Args:
        load: ``Launch.load`` of the model.
        folder: takes ``model.onnx`` where that is chosen.
        tolerance: largest difference that counts as none, relative to values above 1.

    Raises:
        Exception: whatever a converter raises on models that it does not know.
    """
    library = runtime(load["runtime"]).load(load)
    inputs = library.signature.inputs
    if len(inputs) != 1 or inputs[0].datatype != "FP32" or len(inputs[0].shape) != 2:
        return Verdict("library", "only models with one FP32 matrix as input are converted")
    converted = _CONVERT[load["runtime"]](library, inputs[0].shape[1])
    rows = _probe_rows(converted, inputs[0].shape[1])
    rows, wanted = _answered(library, rows)
    worst = "no output of the converted model corresponds to the library's"
    for candidate in _candidates(converted, library.signature):
        session = _session(candidate, load["threads"])
        found = _run(session, rows)
        differs, text = _difference(library.signature, wanted, found, tolerance)
        if differs:
            worst = text
            continue
        gains = _gains(library, session, rows, load["batch_rows_max"])
        figures = ", ".join(
            f"{gain:.1f} times as fast at {count} {'row' if count == 1 else 'rows'}" for count, gain in gains.items()
        )
        if min(gains.values()) < 1:
            return Verdict("library", f"as ONNX it gives the same answers, but not faster ({figures})")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(candidate.SerializeToString())
        return Verdict("onnx", f"converted from {library.facts['runtime']}: {figures}; {text}")
    return Verdict("library", f"as ONNX it does not give the same answers: {worst}")


# -- conversion -----------------------------------------------------------------------------------------------------


def _from_sklearn(library: Any, columns: int) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    estimator = library.estimator
    converted = to_onnx(
        estimator,
        initial_types=[("x", FloatTensorType([None, columns]))],
        options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,
        target_opset={"": _OPSET, "ai.onnx.ml": _OPSET_ML},
    )
    _lead_missing(converted, estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator)
    return converted


def _lead_missing(converted: Any, estimator: Any) -> None:
    """Send missing values where scikit-learn's trees and forests send them, which the converter leaves out."""
    from onnx import helper

    members = list(getattr(estimator, "estimators_", [estimator]))
    if not all(hasattr(member, "tree_") for member in members):
        return
    for node in converted.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if "nodes_values" not in attributes or max(attributes["nodes_treeids"]) >= len(members):
            continue
        to_left = [
            int(mode != b"LEAF" and members[tree].tree_.missing_go_to_left[place])
            for tree, place, mode in zip(
                attributes["nodes_treeids"], attributes["nodes_nodeids"], attributes["nodes_modes"], strict=True
            )
        ]
        kept = [one for one in node.attribute if one.name != "nodes_missing_value_tracks_true"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("nodes_missing_value_tracks_true", to_left)])


def _from_xgboost(library: Any, columns: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert_xgboost(library.booster, initial_types=[("x", FloatTensorType([None, columns]))], target_opset=15)


def _from_lightgbm(library: Any, columns: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    converted = convert_lightgbm(
        library.booster,
        initial_types=[("x", FloatTensorType([None, columns]))],
        target_opset=15,
        zipmap=False,
    )
    _round_down(converted, library.booster.dump_model())
    return converted


def _round_down(converted: Any, dumped: dict[str, Any]) -> None:
    """Make FP32 thresholds decide as LightGBM's FP64 ones do.

    ``x <= t`` with x in FP32 holds just where ``x <= t'``, t' being the greatest FP32 not above t. The converter
    rounds to the nearest, which may lie above.
    """
    import numpy as np
    from onnx import helper

    rounded_up = set()
    waiting = [tree["tree_structure"] for tree in dumped["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "threshold" not in node:
            continue
        waiting += [node["left_child"], node["right_child"]]
        threshold = node["threshold"]
        # Categories are told apart by name, not by order.
        if isinstance(threshold, float) and float(np.float32(threshold)) > threshold:
            rounded_up.add((node["split_feature"], float(np.float32(threshold))))
    for node in converted.graph.node:
        attributes = {one.name: one for one in node.attribute}
        if "nodes_values" in attributes:
            features = helper.get_attribute_value(attributes["nodes_featureids"])
            values = attributes["nodes_values"].floats
            for place, (feature, value) in enumerate(zip(features, values, strict=True)):
                if (feature, value) in rounded_up:
                    values[place] = float(np.nextafter(np.float32(value), np.float32(-np.inf)))


_CONVERT: dict[str, Callable[[Any, int], Any]] = {
    "sklearn": _from_sklearn,
    "xgboost": _from_xgboost,
    "lightgbm": _from_lightgbm,
}


def _candidates(converted: Any, signature: Signature) -> Iterator[Any]:
    """The converted model with the library's names, types and shapes, in every way that its outputs allow."""
    there = {node.name: node for node in converted.graph.output}
    if all(spec.name in there for spec in signature.outputs):
        yield _wrapped(converted, signature, {spec.name: (spec.name, None) for spec in signature.outputs})
        return
    if len(signature.outputs) != 1:
        return
    (spec,) = signature.outputs
    for name in there:
        yield _wrapped(converted, signature, {spec.name: (name, None)})
        if name == "probabilities" and len(spec.shape) == 1:
            # The probability of class 1, which is all that boosters give for two classes.
            yield _wrapped(converted, signature, {spec.name: (name, 1)})


def _wrapped(converted: Any, signature: Signature, sources: dict[str, tuple[str, int | None]]) -> Any:
    """The graph of ``converted`` between inputs and outputs that are as the signature says.

    Args:
        converted: the model.
        signature: what is wanted.
        sources: for each output of the signature, the output of the model, and one of its columns or None for all.
    """
    import onnx
    from onnx import TensorProto, compose, helper

    from inferd.types import DATATYPES

    inner = compose.add_prefix(converted, "inner_")
    if not any(opset.domain == "" for opset in inner.opset_import):
        inner.opset_import.append(helper.make_opsetid("", 15))
    graph = inner.graph
    (spec,) = signature.inputs
    graph.node.insert(0, helper.make_node("Identity", [spec.name], [graph.input[0].name]))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["rows", *spec.shape[1:]]))
    del graph.output[:]
    for wanted in signature.outputs:
        name, column = sources[wanted.name]
        last, kind = f"inner_{name}", getattr(TensorProto, "STRING", 8)
        if column is not None:
            graph.initializer.append(helper.make_tensor(f"{last}_column", TensorProto.INT64, [], [column]))
            graph.node.append(helper.make_node("Gather", [last, f"{last}_column"], [f"{last}_taken"], axis=1))
            last = f"{last}_taken"
        shape = [-1, *wanted.shape[1:]]
        graph.initializer.append(helper.make_tensor(f"{last}_shape", TensorProto.INT64, [len(shape)], shape))
        graph.node.append(helper.make_node("Reshape", [last, f"{last}_shape"], [f"{last}_shaped"]))
        if wanted.datatype == "BYTES":
            graph.node.append(helper.make_node("Identity", [f"{last}_shaped"], [wanted.name]))
        else:
            kind = helper.np_dtype_to_tensor_dtype(_dtype(DATATYPES[wanted.datatype]))
            graph.node.append(helper.make_node("Cast", [f"{last}_shaped"], [wanted.name], to=kind))
        graph.output.append(helper.make_tensor_value_info(wanted.name, kind, ["rows", *wanted.shape[1:]]))
    # What the converter noted of shapes inside is sometimes wrong, and nothing needs it.
    del graph.value_info[:]
    onnx.checker.check_model(inner)
    return inner


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


# -- comparison -----------------------------------------------------------------------------------------------------


def _probe_rows(converted: Any, columns: int) -> np.ndarray:
    """Rows that tell two versions of a model apart, FP32 of shape (n, columns), the same every time."""
    import numpy as np

    random = np.random.default_rng(0)
    points = _points(converted, columns)
    on_edges = np.stack([random.choice(points[column], _PROBE_ROWS) for column in range(columns)], axis=1)
    offsets, scales = ([function(values) for values in points] for function in (np.mean, np.std))
    around = random.normal(offsets, np.maximum(scales, 1e-3), (_PROBE_ROWS, columns))
    usual = random.normal(0, 1, (_PROBE_ROWS // 4, columns))
    extreme = random.choice(np.array([-1e30, -1e6, -1.0, 0.0, 1.0, 1e6, 1e30]), (_PROBE_ROWS // 8, columns))
    missing = around[: _PROBE_ROWS // 8].copy()
    missing[random.random(missing.shape) < 0.3] = np.nan
    return np.concatenate([on_edges, around, usual, extreme, missing]).astype(np.float32)


def _points(converted: Any, columns: int) -> list[np.ndarray]:
    """For each column the values at which something changes: thresholds of trees and their neighbours."""
    import numpy as np
    from onnx import helper

    found: list[list[float]] = [[0.0, 1.0] for _ in range(columns)]
    for node in converted.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type.startswith("TreeEnsemble"):
            leaves = [mode == b"LEAF" for mode in attributes["nodes_modes"]]
            values, features = attributes["nodes_values"], attributes["nodes_featureids"]
            for value, feature, leaf in zip(values, features, leaves, strict=True):
                if not leaf and feature < columns:
                    found[feature].append(value)
        elif node.op_type == "Scaler" and len(attributes["offset"]) == columns:
            for column, (offset, scale) in enumerate(zip(attributes["offset"], attributes["scale"], strict=False)):
                found[column] += [offset, offset + 1 / (scale or 1), offset - 1 / (scale or 1)]
    edges = [np.unique(np.array(values, np.float32)) for values in found]
    return [
        np.concatenate([edge, np.nextafter(edge, np.float32(np.inf)), np.nextafter(edge, np.float32(-np.inf))])
        for edge in edges
    ]


def _answered(library: Runtime, rows: np.ndarray) -> tuple[np.ndarray, Batch]:
    """The rows that the library answers, and its answers: some models take neither NaN nor extremes."""
    import numpy as np

    (name,) = [spec.name for spec in library.signature.inputs]
    for kept in (rows, rows[np.isfinite(rows).all(axis=1)], rows[(np.abs(rows) <= 1e6).all(axis=1)]):
        try:
            return kept, library.predict({name: kept})
        except (InferdError, ValueError):
            continue
    raise InferdError("the library answers none of the probe's rows")


def _session(model: Any, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: Any, rows: np.ndarray) -> Batch:
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows}), strict=True))


def _difference(signature: Signature, wanted: Batch, found: Batch, tolerance: float) -> tuple[bool, str]:
    """Whether the two differ, and that in words."""
    import numpy as np

    largest, rows = 0.0, 0
    for spec in signature.outputs:
        one, other = np.asarray(wanted[spec.name]), np.asarray(found[spec.name])
        if one.shape != other.shape:
            return True, f"'{spec.name}' has shape {list(other.shape)}, not {list(one.shape)}"
        rows = len(one)
        if one.dtype.kind != "f":
            unlike = np.count_nonzero((one.astype(str) != other.astype(str)) & ~_undecided(wanted, one, tolerance))
            if unlike:
                return True, f"'{spec.name}' differs in {unlike} of {one.size} places"
            continue
        both_nan = np.isnan(one) & np.isnan(other)
        apart = np.where(both_nan, 0, np.abs(one - other) / np.maximum(1, np.abs(one)))
        worst = float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0))
        if worst > tolerance:
            count = np.count_nonzero(~(apart <= tolerance))
            return True, f"'{spec.name}' is apart by up to {worst:.1e} in {count} of {one.size} places"
        largest = max(largest, worst)
    return False, f"answers on {rows:,} probe rows differ by at most {largest:.1e}"


def _undecided(wanted: Batch, labels: np.ndarray, tolerance: float) -> np.ndarray:
    """Where a label means nothing: the two most probable ones are as good as equally probable."""
    import numpy as np

    probabilities = wanted.get("probabilities")
    if probabilities is None or labels.ndim != 1 or probabilities.shape[1] < 2:
        return np.zeros(labels.shape, dtype=bool)
    best = np.sort(probabilities, axis=1)
    undecided: np.ndarray = best[:, -1] - best[:, -2] <= tolerance
    return undecided


def _gains(library: Runtime, session: Any, rows: np.ndarray, rows_max: int) -> dict[int, float]:
    """How many times as fast ONNX Runtime is, by the number of rows."""
    (name,) = [spec.name for spec in library.signature.inputs]
    gains = {}
    for count in sorted({1, rows_max}):
        some = rows[[position % len(rows) for position in range(count)]]
        gains[count] = _seconds(partial(library.predict, {name: some})) / _seconds(partial(_run, session, some))
    return gains


def _seconds(act: Callable[[], object]) -> float:
    """The least time of many runs: what disturbs only ever adds."""
    act()
    best, ends = float("inf"), time.perf_counter() + _RUNS_S
    while time.perf_counter() < ends:
        started = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    sys.exit(main())
