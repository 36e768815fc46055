"""scikit-learn: estimators and pipelines, saved with skops, or in a pickle that the operator vouches for.

``compose`` reads the model's settings in the control plane; :class:`SklearnRuntime` runs the estimator in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, in_python, require
from inferd.runtimes.trust import refuse_untrusted, trusted_bytes

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "SklearnRuntime", "claims", "compose", "load"]

PLATFORM = "sklearn"
TAKES = Takes(
    title="scikit-learn",
    types="What the estimator was fitted with: FP64 of numbers, INT64 and BOOL where it tells them from"
    " fractions, BYTES of texts. FP32 and integers are widened; what FP64 can't hold is refused.",
    categories="Texts and numbers as the encoders were fitted with; unknown ones as their `handle_unknown` says.",
    missing="NaN, and `null` of texts, where a step takes them; else refused with row and column.",
    names="Those of the data frame, by name in any order; `x` where all columns are numbers. Text vectorizers"
    " take `text`.",
    outputs="`label` and `probabilities` of classifiers, `prediction` of regressors, in the library's own types.",
)
_PICKLES = (".pkl", ".pickle", ".joblib")
# Parts of scikit-learn's own estimators that skops leaves to its users to trust. They hold numbers; loading them runs
# nothing. (A forged tree can point outside of its arrays: it ends a worker, which is why models have workers.)
_NUMBERS_ONLY = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


def claims(path: Path) -> bool:
    """``.skops`` files, and pickles, which are refused unless they are trusted."""
    return path.is_file() and path.suffix in (".skops", *_PICKLES)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the estimator in ``file`` is started."""
    if file.suffix in _PICKLES:
        refuse_untrusted(
            file,
            spec.trusted_sha256,
            "is a pickle",
            'save the model with skops (skops.io.dump(model, "model.skops")), or as ONNX',
        )
    else:
        require("skops", "sklearn", spec)
    require("sklearn", "sklearn", spec)
    return in_python("sklearn", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The estimator, in this process."""
    return SklearnRuntime(settings)


class SklearnRuntime:
    """A fitted estimator.

    Inputs: one matrix ``x`` (FP32), or ``text`` (BYTES) where the estimator begins with a text vectorizer, or one
    input for each column where it begins with a ``ColumnTransformer``. Outputs: ``label`` and ``probabilities`` of
    classifiers, ``label`` of clusterings, ``prediction`` of regressors, ``transformed`` of the others.

    Raises:
        Forbidden: the file would run code that nobody vouched for.
        ModelFailed: what is in it is no fitted estimator.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import sklearn

        from inferd.runtimes.signatures import declared, outputs_seen, with_declared

        self.estimator = _read(Path(settings["file"]), settings["trusted_sha256"])
        self.facts = {"runtime": f"scikit-learn {sklearn.__version__}", "model": type(self.estimator).__name__}
        inputs = declared(settings, "inputs") or self._inputs()
        self._frame = len(inputs) > 1
        self._inputs_seen = inputs
        self.signature = with_declared(settings, inputs, outputs_seen(self.predict(self._one_row(inputs))))

    def predict(self, batch: Batch) -> Batch:
        """The estimator's answers."""
        x = self._rows(batch)
        try:
            return _answers(self.estimator, x)
        except ValueError as fault:
            # Estimators say so of NaN, infinity and categories that they were not fitted with.
            raise InvalidInput(f"the model can't use this input: {fault}") from fault

    def close(self) -> None:
        """Nothing is held but memory."""

    def _inputs(self) -> tuple[TensorSpec, ...]:
        from inferd.runtimes.signatures import matrix_input
        from inferd.types import TensorSpec

        first = _first(self.estimator)
        if _takes_text(first):
            return (TensorSpec("text", "BYTES", (-1,)),)
        columns = _columns(first)
        if columns:
            self.example = {name: value for name, (_, value) in columns.items()}
            return tuple(TensorSpec(name, datatype, (-1,)) for name, (datatype, _) in columns.items())
        width = getattr(self.estimator, "n_features_in_", None)
        if width is None:
            raise ModelFailed(
                f"{type(self.estimator).__name__} does not say how many features it takes\n"
                "help: write inputs: in model.yaml, for instance [{name: x, datatype: FP32, shape: [-1, 30]}]"
            )
        return matrix_input(int(width))

    def _one_row(self, inputs: tuple[TensorSpec, ...]) -> Batch:
        import numpy as np

        if self.example is not None:
            return self.example
        texts = np.array([b"text"], dtype=object)
        return {
            spec.name: texts.reshape([1] * len(spec.shape))
            if spec.datatype == "BYTES"
            else np.zeros([max(1, dim) for dim in spec.shape], dtype=_numpy_dtype(spec.datatype))
            for spec in inputs
        }

    def _rows(self, batch: Batch) -> Any:
        from inferd.runtimes.signatures import as_text

        columns = {
            spec.name: as_text(batch[spec.name]) if spec.datatype == "BYTES" else batch[spec.name]
            for spec in self._inputs_seen
        }
        if self._frame:
            import pandas as pd

            return pd.DataFrame({name: column.reshape(len(column)) for name, column in columns.items()})
        (x,) = columns.values()
        return x


def _read(file: Path, trusted_sha256: str | None) -> Any:
    if file.suffix in _PICKLES:
        import io

        import joblib

        # joblib reads plain pickles, too.
        estimator = joblib.load(io.BytesIO(trusted_bytes(file, trusted_sha256)))
    else:
        import skops.io

        unknown = skops.io.get_untrusted_types(file=file)
        if not _NUMBERS_ONLY.issuperset(unknown):
            refuse_untrusted(
                file,
                trusted_sha256,
                f"holds types that skops does not know to be safe ({', '.join(sorted(set(unknown) - _NUMBERS_ONLY))})",
                "save the model as ONNX, or without them",
            )
        estimator = skops.io.load(file, trusted=unknown)
    if not any(hasattr(estimator, method) for method in ("predict", "transform")):
        kind = type(estimator).__name__
        raise ModelFailed(f"'{file.name}' holds {kind}, which has neither predict() nor transform()")
    return estimator


def _answers(estimator: Any, x: Any) -> Batch:
    from sklearn.base import is_classifier, is_clusterer

    if not hasattr(estimator, "predict"):
        return {"transformed": _dense(estimator.transform(x))}
    predicted = estimator.predict(x)
    if is_classifier(estimator):
        if hasattr(estimator, "predict_proba"):
            probabilities = estimator.predict_proba(x)
            if not isinstance(probabilities, list):
                return {"label": predicted, "probabilities": probabilities.astype("float32")}
        return {"label": predicted}
    if is_clusterer(estimator):
        return {"label": predicted}
    return {"prediction": predicted.astype("float32") if predicted.dtype == "float64" else predicted}


def _dense(values: Any) -> Any:
    dense = values.toarray() if hasattr(values, "toarray") else values
    return dense.astype("float32") if getattr(dense, "dtype", None) == "float64" else dense


def _first(estimator: Any) -> Any:
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    return estimator


def _takes_text(step: Any) -> bool:
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(step, CountVectorizer | HashingVectorizer)


def _columns(step: Any) -> dict[str, tuple[str, Any]]:
    """Datatype and a plausible value of each column that a ``ColumnTransformer`` takes by name."""
    import numpy as np
    from sklearn.compose import ColumnTransformer

    if not isinstance(step, ColumnTransformer) or not hasattr(step, "feature_names_in_"):
        return {}
    found: dict[str, tuple[str, Any]] = {
        str(name): ("FP32", np.zeros(1, np.float32)) for name in step.feature_names_in_
    }
    for _, transformer, columns in step.transformers_:
        last = _categories(transformer)
        if last is None:
            continue
        names = [columns] if isinstance(columns, str) else list(columns)
        for name, categories in zip(names, last, strict=False):
            if categories.dtype.kind in "OUS":
                text = next((value for value in categories if isinstance(value, str)), "")
                found[str(name)] = ("BYTES", np.array([text.encode()], dtype=object))
            else:
                found[str(name)] = ("FP32", np.asarray(categories[:1], np.float32))
    return found


def _categories(transformer: Any) -> Any:
    steps = [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
    return next((step.categories_ for step in steps if hasattr(step, "categories_")), None)


def _numpy_dtype(datatype: str) -> str:
    from inferd.types import DATATYPES

    return DATATYPES[datatype]
