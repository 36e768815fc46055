"""What MLflow's ``predict`` gives, of each library's model.

Reads the file of a flavor with the library itself, without MLflow; a Python function through MLflow. Hands on outputs
by name. Worker side only. Does not know how rows came in. Source: the ``_…ModelWrapper`` of each flavor, MLflow 3.17.
"""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inferd.errors import InferdError, InvalidInput, ModelFailed
from inferd.runtimes.mlflow_answers import answers_of
from inferd.runtimes.mlflow_folder import PYTHON_FUNCTION
from inferd.runtimes.trust import digest, refuse_untrusted

if TYPE_CHECKING:
    from inferd.runtimes.base import Batch, Runtime
    from inferd.runtimes.mlflow_folder import Content, Signed

__all__ = ["Model", "model_of"]


class Model(Protocol):
    """A model that was read."""

    facts: dict[str, str]
    native: Runtime | None
    """The library's own runtime of the same file, which knows its columns; None: there is none."""

    def __call__(self, rows: Any) -> Batch:
        """Outputs by name; the first is what MLflow's ``predict`` gives.

        Args:
            rows: as MLflow hands them on; a batch where the inputs are those of :attr:`native`.
        """
        ...


def model_of(content: Content, signed: Signed, settings: dict[str, Any]) -> Model:
    """The model of a folder.

    Raises:
        Forbidden: reading it would run code that nobody vouched for.
        ModelFailed: it can't be read.
    """
    known = bool(signed.columns or signed.tensors) or settings["signature"]["inputs"] is not None
    if not known and content.library in ("xgboost", "catboost"):
        return _Labelled(content, settings)
    return _LIBRARIES[content.library](content, signed, settings)


def _native(content: Content, settings: dict[str, Any]) -> Any:
    """The library's own runtime. Its inputs may not be known without the signature; then there is none."""
    own = {**settings, "file": content.file, "signature": {"inputs": None, "outputs": None}, "parameters": {}}
    try:
        return import_module(f"inferd.runtimes.{content.library}").load(own)
    except ModelFailed:
        return None


def _params(signed: Signed, settings: dict[str, Any], function: Any) -> dict[str, Any]:
    """Parameters of the signature that ``function`` takes, as the operator sets them, else by their defaults."""
    params = {**signed.params, **settings["parameters"]}
    taken = inspect.signature(function).parameters
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in taken.values()):
        return params
    return {name: value for name, value in params.items() if name in taken}


def _refuse_unknown(signed: Signed, settings: dict[str, Any]) -> None:
    unknown = sorted(settings["parameters"].keys() - signed.params.keys())
    if unknown:
        raise ModelFailed(
            f"parameters: {', '.join(map(repr, unknown))} is no parameter of the model's signature\n"
            f"help: it has {', '.join(map(repr, sorted(signed.params))) or 'none'}"
        )


class _Library:
    """A model whose library refuses rows with an exception of its own."""

    refused: tuple[type[Exception], ...] = (ValueError, LookupError)

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        _refuse_unknown(signed, settings)
        self.facts: dict[str, str] = {}
        self.native: Any = None
        self._content, self._signed, self._settings = content, signed, settings
        self._names = signed.outputs

    def __call__(self, rows: Any) -> Batch:
        """Outputs by name."""
        try:
            return self._answers(rows)
        except InferdError:
            raise
        except self.refused as fault:
            raise InvalidInput(f"the model can't use this input: {fault}") from fault

    def _answers(self, rows: Any) -> Batch:
        raise NotImplementedError

    def _called(self, usual: str) -> str:
        """The name of the answer: the signature's, where it names the only one."""
        return self._names[0] if len(self._names) == 1 and self._names[0] is not None else usual


class _Sklearn(_Library):
    """scikit-learn, and what has its interface: LightGBM's classifiers."""

    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        from inferd.runtimes.sklearn_answers import Answers
        from inferd.runtimes.sklearn_files import read

        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        estimator = read(Path(content.file), None) if self.native is None else self.native.estimator
        package = type(estimator).__module__.partition(".")[0]
        self.facts = {
            "runtime": f"{'scikit-learn' if package == 'sklearn' else package} {import_module(package).__version__}",
            "model": type(estimator).__name__,
        }
        self._plain = content.method in ("predict", "predict_proba")
        self._function = Answers(estimator) if self._plain else getattr(estimator, content.method)

    def _answers(self, rows: Any) -> Batch:
        if not self._plain:
            return answers_of(self._function(rows), self._names)
        found = self._function(rows)
        usual = "probabilities" if self._content.method == "predict_proba" else next(iter(found))
        first = {self._called(usual): found.pop(usual)}
        return first | found


class _Lightgbm(_Library):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import lightgbm

        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        self.facts = dict(self.native.facts)
        self.refused = (*self.refused, lightgbm.basic.LightGBMError)

    def _answers(self, rows: Any) -> Batch:
        found = self.native.booster.predict(rows, num_threads=self._settings["threads"])
        return {self._called("prediction"): found}


class _Xgboost(_Library):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import xgboost

        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        self.facts = {**self.native.facts, "model": content.kind}
        self._model = self.native.booster
        if content.kind != "Booster":
            self._model = getattr(xgboost, content.kind)(n_jobs=settings["threads"])
            self._model.load_model(content.file)
        self._params = _params(signed, settings, self._model.predict)
        self._labels = hasattr(self._model, "predict_proba") and not self._params

    def _answers(self, rows: Any) -> Batch:
        import xgboost

        given = xgboost.DMatrix(rows, nthread=self._settings["threads"]) if self._content.kind == "Booster" else rows
        found = self._model.predict(given, validate_features=True, **self._params)
        if not self._labels:
            return {self._called("prediction"): found}
        return {self._called("label"): found, "probabilities": self._model.predict_proba(rows)}


class _Catboost(_Library):
    def __init__(self, content: Content, signed: Signed, settings: dict[str, Any]) -> None:
        import catboost

        super().__init__(content, signed, settings)
        self.native = _native(content, settings)
        self._model = getattr(catboost, content.kind)()
        self.refused = (*self.refused, catboost.CatBoostError)
        binary = Path(content.file).read_bytes()[:4] == b"CBM1"
        self._model.load_model(content.file, format="cbm" if binary else "json")
        self.facts = {"runtime": f"catboost {catboost.__version__}", "model": content.kind}

    def _answers(self, rows: Any) -> Batch:
        threads = self._settings["threads"]
        found = self._model.predict(rows, thread_count=threads)
        if self._content.kind != "CatBoostClassifier":
            return {self._called("prediction"): found}
        # One label for each row is a column where there are more than two classes.
        label = found.reshape(-1) if found.shape[1:] == (1,) else found
        return {self._called("label"): label, "probabilities": self._model.predict_proba(rows, thread_count=threads)}


class _Onnx(_Library):
    """A graph that gets a data frame: its only input the whole frame, several a column each."""

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
        self.refused = (*self.refused, onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument)

    def _answers(self, rows: Any) -> Batch:
        lone = len(self._inputs) == 1
        feeds = {name: rows.to_numpy() if lone else rows[name].to_numpy() for name in self._inputs}
        for name, kind in self._inputs.items():
            if kind == "tensor(float)" and feeds[name].dtype == np.float64:
                feeds[name] = feeds[name].astype(np.float32)
        found = self._session.run(self._outputs, feeds)
        return answers_of(dict(zip(self._outputs, found, strict=True)), self._names)


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
        """The function's answers. Only what MLflow itself refuses is the client's fault."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._function.predict(rows, params=self._params) if self._params else self._function.predict(rows)
        except MlflowException as fault:
            # Before its reason MLflow puts the rows, which may be those of several requests.
            reason = fault.message.rpartition("Error: ")[2]
            raise InvalidInput(f"the model can't use this input: {reason}") from fault
        return answers_of(found, self._names)


class _Labelled:
    """A booster without a signature, of a class that answers something else than the booster itself."""

    def __init__(self, content: Content, settings: dict[str, Any]) -> None:
        own = {**settings, "file": content.file}
        if content.library == "catboost":
            # CatBoost itself gives the formula's value, where its classifier gives labels.
            from inferd.runtimes.boosters import BoosterRuntime
            from inferd.runtimes.catboost import CatboostBooster

            self.native: Any = BoosterRuntime(own, CatboostBooster(own, raw=True))
            self._softmax, self._classifies = False, False
        else:
            self.native = import_module("inferd.runtimes.xgboost").load(own)
            config = json.loads(self.native.booster.save_config())
            self._softmax = config["learner"]["objective"]["name"].startswith("multi:")
            self._classifies = True
        self.facts = {**self.native.facts, "model": content.kind}

    def __call__(self, rows: Batch) -> Batch:
        """``XGBClassifier.predict`` and ``predict_proba``, of what the booster gives."""
        found: Batch = self.native.predict(rows)
        if not self._classifies:
            return found
        given = found["prediction"]
        if self._softmax:
            return {"label": given.argmax(axis=1), "probabilities": given}
        label = (given > 0.5).astype(np.int64)
        return {"label": label, "probabilities": given if given.ndim > 1 else np.stack([1 - given, given], axis=1)}


_LIBRARIES = {
    "sklearn": _Sklearn,
    "lightgbm": _Lightgbm,
    "xgboost": _Xgboost,
    "catboost": _Catboost,
    "onnx": _Onnx,
    PYTHON_FUNCTION: _Function,
}
