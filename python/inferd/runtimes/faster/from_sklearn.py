"""Convert scikit-learn models to ONNX, in scikit-learn's precision.

Reads a fitted estimator, hands on a ``ModelProto``. Joins the steps of a pipeline; skl2onnx converts most of them.
Knows nothing of the others, which :mod:`inferd.runtimes.faster.sklearn_parts` converts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.runtimes.faster import sklearn_parts as parts
from inferd.runtimes.faster.compare import SMALL, magnitude
from inferd.runtimes.faster.graph import FP32, FP64, OPSET, Graph, element_type, refuse, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from inferd.runtimes.faster.compare import Margin
    from inferd.runtimes.faster.graph import Builder
    from inferd.types import InputSchema, Signature, TensorSpec

__all__ = ["convert", "margin"]

# The latest that skl2onnx knows; it passes later operators through.
_OPSET_ML = 3


def convert(library: Any, signature: Signature) -> Iterator[Any]:
    """Yield the ``ModelProto`` of an estimator, for each possible mapping of skl2onnx's outputs to the signature's.

    Args:
        library: its loaded runtime.
        signature: one matrix as input.

    Raises:
        Exception: any, raised by skl2onnx for unsupported estimators.
    """
    _register()
    (x,) = signature.inputs
    first, *later = _steps(library.estimator)
    inputs = _Columns(first, x, getattr(library, "schemas", ()))
    models = [_model(first, inputs.types), *(_model(step, {"x": _width(step)}) for step in later)]
    for mapping in _mappings([output.name for output in models[-1].graph.output], signature.outputs):
        graph = Graph()
        found = graph.include(models[0], inputs.tensors(graph))
        for index, (step, model) in enumerate(zip(later, models[1:], strict=True), start=2):
            (rows,) = found.values()
            found = graph.include(model, {"x": _step_input(graph, rows, step, f"step {index} ({type(step).__name__})")})
        sources = {name: _source(graph, found[source], column) for name, (source, column) in mapping.items()}
        yield graph.model(signature, sources)


def _steps(estimator: Any) -> list[Any]:
    """Return the estimators of nested pipelines and searches, in order."""
    from sklearn.model_selection._search import BaseSearchCV
    from sklearn.pipeline import Pipeline

    while isinstance(estimator, BaseSearchCV):
        estimator = estimator.best_estimator_
    if type(estimator) is not Pipeline:
        return [estimator]
    found = [step for _, held in estimator.steps if held not in (None, "passthrough") for step in _steps(held)]
    return found or [estimator]


def _model(step: Any, inputs: dict[str, int | None]) -> Any:
    """Convert one estimator with skl2onnx.

    Args:
        step: the estimator.
        inputs: width by name; all are FP64.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.base import is_classifier

    return to_onnx(
        step,
        initial_types=[(name, DoubleTensorType([None, columns])) for name, columns in inputs.items()],
        options={"zipmap": False} if is_classifier(step) else None,
        target_opset={"": OPSET, "ai.onnx.ml": _OPSET_ML},
    )


def _width(step: Any) -> int | None:
    width: int | None = getattr(step, "n_features_in_", None)
    return width


class _Columns:
    """The inputs of a first step: the matrix, or an input per column for a column transformer."""

    def __init__(self, step: Any, x: TensorSpec, schemas: Sequence[InputSchema]) -> None:
        from sklearn.compose import ColumnTransformer

        self._x, width = x, x.shape[1]
        self._names: list[str] = []
        self._indices: list[int | None] = []
        if not isinstance(step, ColumnTransformer):
            return
        count = int(step.n_features_in_)
        self._names = [
            str(name) for name in getattr(step, "feature_names_in_", [f"x{index}" for index in range(count)])
        ]
        known = next((schema.columns for schema in schemas if schema.input == x.name and schema.columns), ())
        if count == width:
            self._indices = list(range(count))
        elif len(known) == width and set(known) <= set(self._names):
            # Columns that no step reads are not inputs of the model.
            self._indices = [known.index(name) if name in known else None for name in self._names]
        else:
            raise NotImplementedError("columns that have no names and are not all read")

    @property
    def types(self) -> dict[str, int | None]:
        """Width by input name."""
        return dict.fromkeys(self._names, 1) if self._names else {"x": self._x.shape[1]}

    def tensors(self, graph: Graph) -> dict[str, str]:
        """Return the tensor of ``graph`` for each input."""
        rows = graph.add("Cast", self._x.name, to=FP64)
        if not self._names:
            return {"x": rows}
        columns = [graph.add("Gather", rows, graph.constant(np.array([index or 0])), axis=1) for index in self._indices]
        return dict(zip(self._names, columns, strict=True))


def _step_input(graph: Graph, rows: str, step: Any, name: str) -> str:
    """Return the input of a step, in a graph that refuses what the step refuses."""
    rows = graph.add("Cast", rows, to=FP64)
    refused = [value for value in (np.nan, np.inf, 1e39) if _refuses(step, value)]
    if 1e39 in refused:
        beyond = graph.add("IsInf", graph.add("Cast", rows, to=FP32))
        rows = refuse(graph, rows, beyond, f"a value is beyond FP32 before {name}")
    elif np.inf in refused:
        rows = refuse(graph, rows, graph.add("IsInf", rows), f"a value is infinite before {name}")
    if any(np.isnan(value) for value in refused):
        rows = refuse(graph, rows, graph.add("IsNaN", rows), f"a value is missing before {name}")
    return rows


def _refuses(step: Any, value: float) -> bool:
    method = step.predict if hasattr(step, "predict") else step.transform
    try:
        with np.errstate(all="ignore"):
            method(np.full((1, _width(step) or 1), value))
    except ValueError:
        return True
    return False


def _mappings(names: Sequence[str], outputs: Sequence[TensorSpec]) -> Iterator[dict[str, tuple[str, int | None]]]:
    """Yield mappings of the signature's outputs to an output of a converted model and a column, ``None`` for all."""
    wanted = [spec.name for spec in outputs]
    if set(wanted) <= set(names):
        yield {name: (name, None) for name in wanted}
    elif wanted == ["label", "decision"]:
        for scores in set(names) - {"label"}:
            yield {"label": ("label", None), "decision": (scores, 1 if len(outputs[1].shape) == 1 else None)}
            yield {"label": ("label", None), "decision": (scores, None)}
    elif len(wanted) == 1:
        for name in names:
            yield {wanted[0]: (name, None)}


def _source(graph: Graph, found: str, column: int | None) -> str:
    return found if column is None else graph.add("Gather", found, graph.constant(np.int64(column)), axis=1)


def margin(library: Any, schema: InputSchema, usual: np.ndarray) -> Margin:
    """Return by how much the estimator prefers its own labels.

    Args:
        library: its loaded runtime.
        schema: with the column names.
        usual: ordinary rows, which give the magnitude of scores.
    """
    estimator = library.estimator

    def scores(rows: np.ndarray) -> np.ndarray | None:
        if not hasattr(estimator, "classes_"):
            return None
        x: Any = rows
        if schema.columns:
            import pandas as pd

            x = pd.DataFrame(rows, columns=schema.columns)
        if hasattr(estimator, "decision_function"):
            decided = np.asarray(estimator.decision_function(x))
            return np.stack([-decided, decided], axis=1) if decided.ndim == 1 else decided
        return np.asarray(estimator.predict_proba(x)) if hasattr(estimator, "predict_proba") else None

    def preferred(rows: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        found = scores(rows)
        indices = {str(name): index for index, name in enumerate(getattr(estimator, "classes_", ()))}
        if found is None or found.shape[1:] != (len(indices),):
            return np.full(len(rows), np.inf)
        row = np.arange(len(rows))
        one, two = (found[row, [indices[str(label)] for label in labels]] for labels in (own, other))
        usually = magnitude(scores(usual))
        with np.errstate(all="ignore"):
            fraction = (one - two) / np.maximum(np.abs(one), SMALL * usually)
        # Labels that scores do not decide have no margin; overflowing scores decide arbitrarily.
        overflowed = ~(np.isfinite(one) & np.isfinite(two)) & np.isfinite(rows).all(axis=1)
        return np.where(overflowed, 0, np.where(fraction >= 0, fraction, np.inf))

    return preferred


def _register() -> None:
    """Register the converters of :mod:`sklearn_parts` in index of skl2onnx's own, for this process."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes
    from sklearn import ensemble, impute, linear_model, preprocessing, svm, tree

    classified, predicted = (
        shapes.calculate_linear_classifier_output_shapes,
        shapes.calculate_linear_regressor_output_shapes,
    )
    for module, name, act in (
        (tree, "DecisionTree", parts.forest),
        (tree, "ExtraTree", parts.forest),
        (ensemble, "RandomForest", parts.forest),
        (ensemble, "ExtraTrees", parts.forest),
        (ensemble, "GradientBoosting", parts.boosted),
        (ensemble, "HistGradientBoosting", parts.boosted_by_histograms),
    ):
        for side, shape, options in (("Classifier", classified, _OPTIONS), ("Regressor", predicted, None)):
            kind = getattr(module, f"{name}{side}")
            update_registered_converter(kind, kind.__name__, _in_fp64(shape), _converter(act), options=options)
    for kind in (svm.LinearSVC, linear_model.RidgeClassifier, linear_model.RidgeClassifierCV):
        convert_label = _converter(parts.linear_label)
        update_registered_converter(kind, kind.__name__, _in_fp64(classified), convert_label, options=_OPTIONS)
    update_registered_converter(
        ensemble.IsolationForest,
        "IsolationForest",
        _outliers,
        _converter(parts.isolation),
        options={"score_samples": [True, False]},
    )
    for kind, convert_rows in (
        (impute.SimpleImputer, _converter(parts.imputed)),
        (preprocessing.PolynomialFeatures, _converter(parts.polynomial)),
    ):
        update_registered_converter(kind, kind.__name__, _transformed, convert_rows)


def _transformed(operator: Any) -> None:
    """Set the output shape of a transformer; called by skl2onnx."""
    from skl2onnx.common.data_types import DoubleTensorType

    columns = len(operator.raw_operator.get_feature_names_out())
    operator.outputs[0].type = DoubleTensorType([operator.inputs[0].get_first_dimension(), columns])


def _outliers(operator: Any) -> None:
    """Set the output shapes of an outlier detector; called by skl2onnx."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType

    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = Int64TensorType([rows, 1])
    operator.outputs[1].type = DoubleTensorType([rows, 1])


def _in_fp64(shape: Callable[[Any], None]) -> Callable[[Any], None]:
    """Adapt ``shape`` to an operator whose last output is FP64 for any input."""

    def calculate(operator: Any) -> None:
        from skl2onnx.common.data_types import DoubleTensorType

        shape(operator)
        operator.outputs[-1].type = DoubleTensorType(operator.outputs[-1].type.shape)

    return calculate


_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}


def _converter(act: Callable[[Builder, str, Any], dict[str, str]]) -> Callable[[Any, Any, Any], None]:
    """Adapt ``act`` to skl2onnx's converter interface; its results follow the order of skl2onnx's outputs."""

    def convert_operator(scope: Any, operator: Any, container: Any) -> None:
        found = act(_Container(scope, container), operator.inputs[0].full_name, operator.raw_operator)
        for name, output in zip(found.values(), operator.outputs, strict=True):
            container.add_node("Identity", [name], [output.full_name], name=scope.get_unique_operator_name("out"))

    return convert_operator


class _Container:
    """Adapts skl2onnx's graph to :class:`Builder`."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        output: str = self._scope.get_unique_variable_name(operator)
        name = attributes.pop("name", None) or self._scope.get_unique_operator_name(operator)
        version = _OPSET_ML if domain else None
        self._container.add_node(operator, list(inputs), [output], domain, version, name, **attributes)
        return output

    def constant(self, value: Any) -> str:
        """Add a constant tensor; return its name."""
        name: str = self._scope.get_unique_variable_name("constant")
        array = np.asarray(value)
        if array.dtype.kind in "OUS":
            content = [text.encode() for text in array.ravel()]
            self._container.add_initializer(name, element_type("BYTES"), list(array.shape), content)
        else:
            self._container.add_initializer(name, None, None, tensor(array))
        return name
