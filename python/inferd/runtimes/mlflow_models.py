"""Run the model of an MLflow folder as MLflow's ``predict`` does.

Loads the file of a flavor with the library itself, without MLflow; a Python function through MLflow. Reads rows, hands
on outputs by name. Worker side only. Knows nothing of how rows arrive. Source: the ``_…ModelWrapper`` of each flavor,
MLflow 3.17.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inferd.errors import InferdError, InvalidInput, ModelFailed
from inferd.runtimes.mlflow_folder import PYTHON_FUNCTION
from inferd.runtimes.mlflow_outputs import outputs_of
from inferd.runtimes.registry import runtime
from inferd.runtimes.trust import digest, refuse_untrusted
from inferd.types import DATATYPES

if TYPE_CHECKING:
    from inferd.runtimes.base import Batch, Runtime
    from inferd.runtimes.mlflow_folder import Content, Signed

__all__ = ["Model", "model_of"]


_NUMBERS = ("boolean", "integer", "long", "float", "double")


class Model(Protocol):
    """A loaded model."""

    facts: dict[str, str]
    native: Runtime | None
    """The library's own runtime of the same file, which knows its columns; None: none."""
    independent: str | None
    """Why rows are independent; None: the probe decides."""

    def __call__(self, rows: Any) -> Batch:
        """Return outputs by name; the first is that of MLflow's ``predict``.

        Args:
            rows: as MLflow passes them; a batch if the inputs are those of :attr:`native`.
        """
        ...


def model_of(content: Content, signed: Signed, settings: dict[str, Any]) -> Model:
    """Load the model of a folder.

    Raises:
        Forbidden: loading it would execute untrusted code.
        ModelFailed: it can't be loaded.
    """
    known = bool(signed.columns or signed.tensors) or settings["signature"]["inputs"] is not None
    if not known and content.library in ("xgboost", "catboost"):
        return _Unsigned(content, settings)
    return _LIBRARIES[content.library](content, signed, settings)


def _own_parameters(content: Content, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that the library's own runtime supports."""
    if content.library == PYTHON_FUNCTION:
        return {}
    known = runtime(content.library).TAKES.parameters
    return (
        {}
        if isinstance(known, str)
        else {name: settings["parameters"][name] for name in known if name in settings["parameters"]}
    )


def _native(content: Content, settings: dict[str, Any]) -> Any:
    """Load the library's own runtime, which derives its inputs from the file."""
    parameters = _own_parameters(content, settings)
    own = {"file": content.file, "signature": {"inputs": None, "outputs": None}, "parameters": parameters}
    return runtime(content.library).load({**settings, **own})


def _params(signed: Signed, settings: dict[str, Any], function: Any) -> dict[str, Any]:
    """Return the parameters that ``function`` accepts, from the settings or the signature's defaults."""
    params = {name: settings["parameters"].get(name, default) for name, default in signed.params.items()}
    accepted = inspect.signature(function).parameters
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in accepted.values()):
        return params
    return {name: value for name, value in params.items() if name in accepted}


def _refuse_unknown(content: Content, signed: Signed, settings: dict[str, Any]) -> None:
    known = {*signed.params, *_own_parameters(content, settings)}
    unknown = sorted(settings["parameters"].keys() - known)
    if unknown:
        raise ModelFailed(
            f"parameters: {', '.join(map(repr, unknown))}: not in the model's signature\n"
            f"help: it has {', '.join(map(repr, sorted(signed.params))) or 'none'}"
        )


class _Library:
    """A model whose library rejects rows with its own exceptions."""

    rejections: tuple[type[Exception], ...] = (ValueError, LookupError)

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        _refuse_unknown(content, signed, settings)
        self.facts: dict[str, str] = {}
        self.independent: str | None = None
        self.native: Any = None
        self._content, self._signed, self._settings = content, signed, settings
        self._names = signed.outputs

    def __call__(self, rows: Any) -> Batch:
        """Return outputs by name."""
        try:
            return self._predict(rows)
        except InferdError:
            raise
        except self.rejections as fault:
            raise InvalidInput(f"the model can't use this input: {fault}") from fault

    def _predict(self, rows: Any) -> Batch:
        raise NotImplementedError

    def _name(self, usual: str) -> str:
        """Return the output's name: the signature's if it names exactly one."""
        return self._names[0] if len(self._names) == 1 and self._names[0] is not None else usual


class _Sklearn(_Library):
    """scikit-learn, and classes with its interface: LightGBM's classifiers."""

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        from inferd.runtimes.sklearn_files import read
        from inferd.runtimes.sklearn_independent import independent
        from inferd.runtimes.sklearn_outputs import Outputs

        super().__init__(content, signed, settings)
        # Without its signature a column's type may be unknown.
        with contextlib.suppress(ModelFailed):
            self.native = _native(content, settings)
        estimator = read(Path(content.file), None) if self.native is None else self.native.estimator
        package = type(estimator).__module__.partition(".")[0]
        self.facts = {
            "runtime": f"{'scikit-learn' if package == 'sklearn' else package} {import_module(package).__version__}",
            "model": type(estimator).__name__,
        }
        self._plain = content.method in ("predict", "predict_proba")
        # The dtype of a text column without any text depends on all rows.
        numbers = all(column.type in _NUMBERS for column in signed.columns)
        numbers &= all(np.dtype(tensor.dtype).kind in "bfiu" for tensor in signed.tensors)
        self.independent = independent(estimator) if self._plain and numbers else None
        self._function = Outputs(estimator) if self._plain else getattr(estimator, content.method)

    def _predict(self, rows: Any) -> Batch:
        if not self._plain:
            return outputs_of(self._function(rows), self._names)
        found = self._function(rows)
        usual = "probabilities" if self._content.method == "predict_proba" else next(iter(found))
        first = {self._name(usual): found.pop(usual)}
        return first | found


class _Booster(_Library):
    """A booster of LightGBM or XGBoost.

    MLflow writes pandas categories to a signature as text, which the libraries reject. The library's own runtime knows
    the categories in the file: it serves those.
    """

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        self.independent = self.native.independent
        self.facts = dict(self.native.facts)
        self._categories = any(spec.datatype == "BYTES" for spec in self.native.signature.inputs)

    def _predict_categories(self, rows: Any) -> np.ndarray:
        batch = {spec.name: _column(rows[spec.name], spec.datatype) for spec in self.native.signature.inputs}
        return np.asarray(self.native.predict(batch)["prediction"])


class _Lightgbm(_Booster):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import lightgbm

        super().__init__(content, signed, settings)
        self.rejections = (*self.rejections, lightgbm.basic.LightGBMError)

    def _predict(self, rows: Any) -> Batch:
        if self._categories:
            return {self._name("prediction"): self._predict_categories(rows)}
        return {self._name("prediction"): self.native.booster.predict(rows, num_threads=self._settings["threads"])}


class _Xgboost(_Booster):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import xgboost

        super().__init__(content, signed, settings)
        self.facts["model"] = content.kind
        self._model = self.native.booster
        if content.kind != "Booster":
            self._model = getattr(xgboost, content.kind)(n_jobs=settings["threads"])
            self._model.load_model(content.file)
        self._params = _params(signed, settings, self._model.predict)
        self._labels = hasattr(self._model, "predict_proba") and not self._params
        if self._categories and self._params:
            raise ModelFailed(
                f"the model has categories, and its signature the parameters {', '.join(self._params)}: XGBoost accepts"
                " no text then\nhelp: log it without parameters"
            )

    def _predict(self, rows: Any) -> Batch:
        import xgboost

        if self._categories:
            found = self._predict_categories(rows)
            if not self._labels:
                return {self._name("prediction"): found}
            label, probabilities = _labelled(found, self.native.booster)
            return {self._name("label"): label, "probabilities": probabilities}
        given = xgboost.DMatrix(rows, nthread=self._settings["threads"]) if self._content.kind == "Booster" else rows
        found = self._model.predict(given, validate_features=True, **self._params)
        if not self._labels:
            return {self._name("prediction"): found}
        return {self._name("label"): found, "probabilities": self._model.predict_proba(rows)}


def _column(values: Any, datatype: str) -> np.ndarray:
    """Return a column of a frame in its wire format."""
    if datatype != "BYTES":
        return np.asarray(values.to_numpy(DATATYPES[datatype]))
    found = np.empty(len(values), dtype=object)
    found[:] = [value.encode() if isinstance(value, str) else None for value in values]
    return found


def _labelled(prediction: np.ndarray, booster: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the label and probabilities that ``XGBClassifier`` derives from a booster's prediction."""
    if json.loads(booster.save_config())["learner"]["objective"]["name"].startswith("multi:"):
        return prediction.argmax(axis=1), prediction
    label = (prediction > 0.5).astype(np.int64)
    return label, prediction if prediction.ndim > 1 else np.stack([1 - prediction, prediction], axis=1)


class _Catboost(_Library):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import catboost

        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        self.independent = self.native.independent
        self._model = getattr(catboost, content.kind)()
        self.rejections = (*self.rejections, catboost.CatBoostError)
        binary = Path(content.file).read_bytes()[:4] == b"CBM1"
        self._model.load_model(content.file, format="cbm" if binary else "json")
        self.facts = {"runtime": f"catboost {catboost.__version__}", "model": content.kind}

    def _predict(self, rows: Any) -> Batch:
        threads = self._settings["threads"]
        found = self._model.predict(rows, thread_count=threads)
        if self._content.kind != "CatBoostClassifier":
            return {self._name("prediction"): found}
        # Labels have shape (n, 1) with more than two classes.
        label = found.reshape(-1) if found.shape[1:] == (1,) else found
        return {self._name("label"): label, "probabilities": self._model.predict_proba(rows, thread_count=threads)}


class _Onnx(_Library):
    """A graph that takes a data frame: as its only input, or one column per input."""

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import onnxruntime

        super().__init__(content, signed, settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content.file, options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name: node.type for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self.facts = {"runtime": f"onnxruntime {onnxruntime.__version__}"}
        self.rejections = (*self.rejections, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument)

    def _predict(self, rows: Any) -> Batch:
        single = len(self._inputs) == 1
        feeds = {name: rows.to_numpy() if single else rows[name].to_numpy() for name in self._inputs}
        for name, kind in self._inputs.items():
            if kind == "tensor(float)" and feeds[name].dtype == np.float64:
                feeds[name] = feeds[name].astype(np.float32)
        found = self._session.run(self._outputs, feeds)
        return outputs_of(dict(zip(self._outputs, found, strict=True)), self._names)


class _Function(_Library):
    """A Python function, loaded by MLflow."""

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import mlflow

        super().__init__(content, signed, settings)
        folder = Path(settings["file"])
        if digest(folder) != settings["trusted_sha256"]:
            refuse_untrusted(folder, settings["trusted_sha256"], "changed", "start again")
        self._function = mlflow.pyfunc.load_model(str(folder))
        self._params = settings["parameters"]
        self.facts = {"runtime": f"mlflow {mlflow.__version__}", "model": content.kind}

    def __call__(self, rows: Any) -> Batch:
        """Run the function. Only errors of MLflow's own checks are the client's."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._function.predict(rows, params=self._params) if self._params else self._function.predict(rows)
        except MlflowException as fault:
            # MLflow puts the rows before its reason; they may belong to several requests.
            reason = fault.message.rpartition("Error: ")[2]
            raise InvalidInput(f"the model can't use this input: {reason}") from fault
        return outputs_of(found, self._names)


class _Unsigned:
    """A booster without a signature, of a class whose output differs from the booster's."""

    def __init__(self, content: Content, settings: dict[str, Any]) -> None:
        own = {**settings, "file": content.file}
        self._classifies = content.library == "xgboost"
        if self._classifies:
            self.native: Any = runtime("xgboost").load(own)
        else:
            from inferd.runtimes.boosters import BoosterRuntime
            from inferd.runtimes.catboost import CatboostBooster

            # CatBoost returns the raw formula value, where its classifier returns labels.
            self.native = BoosterRuntime(own, CatboostBooster(own, raw=True))
        self.independent = self.native.independent
        self.facts = {**self.native.facts, "model": content.kind}

    def __call__(self, rows: Batch) -> Batch:
        """Return outputs by name."""
        found: Batch = self.native.predict(rows)
        if not self._classifies:
            return found
        label, probabilities = _labelled(found["prediction"], self.native.booster)
        return {"label": label, "probabilities": probabilities}


_LIBRARIES = {
    "sklearn": _Sklearn,
    "lightgbm": _Lightgbm,
    "xgboost": _Xgboost,
    "catboost": _Catboost,
    "onnx": _Onnx,
    PYTHON_FUNCTION: _Function,
}
