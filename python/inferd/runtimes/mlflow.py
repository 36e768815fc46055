"""MLflow model folders: their content determines the runtime, their signature the inputs.

``compose`` reads ``MLmodel`` in the control plane. A library's own file without a signature is served by that library's
runtime; with one, :class:`MlflowRuntime` converts rows as MLflow does and runs the library. Only a folder with nothing
but a Python function is loaded through MLflow, which unpickles it: the operator must trust it. Knows nothing of
batching.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, python_launch, require
from inferd.runtimes.mlflow_folder import (
    PYTHON_FUNCTION,
    Column,
    Content,
    Signed,
    Tensor,
    content_of,
    read_description,
    signature_of,
)
from inferd.runtimes.trust import refuse_untrusted

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "MlflowRuntime", "claims", "compose", "load"]

PLATFORM = "mlflow"
TAKES = Takes(
    title="MLflow",
    types="Those of the model's signature, enforced as MLflow does: `boolean` BOOL, `integer` INT32, `long` INT64,"
    " `float` FP32, `double` FP64, `string` and `binary` BYTES, `datetime` BYTES in ISO 8601, lists with one more"
    " dimension, objects and maps BYTES in JSON. Without a signature those of the library inside.",
    categories="Those of the library inside; a signature has none.",
    missing="NaN in `float` and `double`, missing values of pandas in text and dates, if the library inside accepts"
    " them; refused in integers, booleans and lists. A column that is not required is optional.",
    names="Those of the signature; columns in any order, others are ignored. `x` for unnamed inputs, and for columns"
    " that are all of one numeric type.",
    outputs="As `predict()` of MLflow returns them: named by the signature, a data frame or a dict, else `prediction`;"
    " of classifiers `label`, with `probabilities`.",
    parameters="The params of the model's signature.",
)
# The package that each library's models need, and the extra that installs it.
_PACKAGES = {
    "sklearn": ("skops", "sklearn"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "xgboost": ("xgboost", "xgboost"),
    "catboost": ("catboost", "catboost"),
    "onnx": ("onnxruntime", "onnx"),
    PYTHON_FUNCTION: ("mlflow", "mlflow"),
}


def claims(path: Path) -> bool:
    """Claims folders with a file ``MLmodel``."""
    return path.is_dir() and (path / "MLmodel").is_file()


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the model in the folder ``file``."""
    description = read_description(file)
    content, signed = content_of(file, description), signature_of(description)
    if content is None:
        flavors = ", ".join(sorted(description["flavors"]))
        raise ModelFailed(f"'{file.name}/MLmodel' has no supported flavor, only {flavors}")
    if content.library == PYTHON_FUNCTION:
        refuse_untrusted(
            file,
            spec.trusted_sha256,
            f"contains a Python function ({content.kind}), which is unpickled",
            "log the model with mlflow.onnx, with serialization_format='skops', or with the library's own flavor; or "
            "serve the library's own file (model.skops, model.ubj, model.txt)",
        )
    elif _served_natively(content, signed):
        launch: Launch = import_module(f"inferd.runtimes.{content.library}").compose(Path(content.file), spec, threads)
        return launch
    for package in ("pandas", _PACKAGES[content.library][0]):
        require(package, "mlflow" if package == "pandas" else _PACKAGES[content.library][1], spec)
    launch = python_launch("mlflow", PLATFORM, file, spec, threads)
    launch.load["mlflow"] = {
        "content": content._asdict(),
        "signature": {
            **signed._asdict(),
            "columns": [column._asdict() for column in signed.columns],
            "tensors": [tensor._asdict() for tensor in signed.tensors],
        },
        "example": (description.get("saved_input_example_info") or {}),
    }
    return launch


def _served_natively(content: Content, signed: Signed) -> bool:
    """Whether the library's own runtime gives MLflow's outputs, for inputs that its file describes."""
    if content.library == "tensorflow" or (content.library == "onnx" and not signed.columns):
        return True
    plain = content.method in ("predict", "predict_proba") and not _returns_labels(content)
    return plain and not signed.columns and not signed.tensors


def _returns_labels(content: Content) -> bool:
    """Whether the class returns labels, unlike the library's own file."""
    return content.kind in ("XGBClassifier", "XGBRFClassifier", "CatBoost")


def load(settings: dict[str, Any]) -> Runtime:
    """Load the model in this process."""
    return MlflowRuntime(settings)


class MlflowRuntime:
    """A model with the inputs of a signature.

    Each column of the signature is an input; columns that are all of one numeric type are one matrix ``x``. Each tensor
    is an input of its name, ``x`` if unnamed. Outputs are those of MLflow's ``predict``, named by the signature, a data
    frame or a dict, else ``prediction``; of classifiers ``label``, with ``probabilities``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from inferd.runtimes.mlflow_models import model_of
        from inferd.runtimes.mlflow_rows import rows_of
        from inferd.runtimes.signatures import with_declared

        described = settings["mlflow"]
        signed = Signed(
            columns=[Column(**column) for column in described["signature"]["columns"]],
            tensors=[Tensor(**{**one, "shape": tuple(one["shape"])}) for one in described["signature"]["tensors"]],
            outputs=described["signature"]["outputs"],
            params=described["signature"]["params"],
        )
        content = Content(**described["content"])
        self._model = model_of(content, signed, settings)
        self._rows = rows_of(signed, settings, self._model.native)
        self.facts = {**self._model.facts, **self._rows.facts}
        self.independent = self._model.independent
        self.defaults = self._rows.defaults
        self.schemas = self._rows.schemas
        self.ignored_columns = self._rows.ignored
        self.example: Batch | None = self._rows.example(Path(settings["file"]), described["example"])
        self.signature = with_declared(settings, self._rows.inputs, self._outputs(self.example, settings))

    def predict(self, batch: Batch) -> Batch:
        """Return the outputs of MLflow's ``predict``."""
        if len(next(iter(batch.values()))) == 0 and self.example is not None:
            # Most libraries reject a batch without rows.
            return {name: values[:0] for name, values in self.predict(self.example).items()}
        parts = [(indices, self._model(rows)) for indices, rows in self._rows.parts(batch)]
        return parts[0][1] if len(parts) == 1 else _joined(parts)

    def _outputs(self, example: Batch, settings: dict[str, Any]) -> tuple[TensorSpec, ...]:
        """Return the outputs of a run, unless they are declared."""
        from inferd.runtimes.signatures import observed_outputs

        if settings["signature"]["outputs"] is not None:
            return ()
        try:
            return observed_outputs(self.predict(example))
        except InvalidInput as fault:
            raise ModelFailed(
                f"the model rejects generated rows of the signature's types: {fault}\n"
                "help: log the model with an input_example, or set outputs: in model.yaml"
            ) from fault

    def close(self) -> None:
        """Nothing to release."""


def _joined(parts: list[tuple[Any, Batch]]) -> Batch:
    """Join the outputs of parts of a batch in row order."""
    import numpy as np

    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    return {name: np.concatenate([np.asarray(found[name]) for _, found in parts])[order] for name in parts[0][1]}
