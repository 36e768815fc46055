"""MLflow model folders: what is in them decides what runs them, their signature what they take.

``compose`` reads ``MLmodel`` in the control plane. A library's own file without a signature goes to that library's
runtime; with one, :class:`MlflowRuntime` makes the rows that MLflow would make, and asks the library. Only a folder
that has nothing but a Python function is loaded through MLflow, which unpickles: for that the operator must vouch.
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
    " `float` FP32, `double` FP64, `string` and `binary` BYTES, `datetime` BYTES in ISO 8601, lists one dimension more,"
    " objects and maps BYTES in JSON. Without a signature those of the library inside.",
    categories="Those of the library inside; a signature has none.",
    missing="Of `float` and `double` NaN, of text and dates missing values of pandas, where the library inside takes"
    " them; of integers, booleans and lists refused. A column that is not required may be left out.",
    names="Those of the signature; columns in any order, others are ignored. `x` of what has no name, and of columns"
    " that are all of one type of numbers.",
    outputs="As `predict()` of MLflow gives them: by the signature, a data frame or a dict, else `prediction`; of"
    " classifiers `label`, with `probabilities`.",
    parameters="The params of the model's signature.",
)
# The package that a library's model needs, and the extra that brings it.
_PACKAGES = {
    "sklearn": ("skops", "sklearn"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "xgboost": ("xgboost", "xgboost"),
    "catboost": ("catboost", "catboost"),
    "onnx": ("onnxruntime", "onnx"),
    PYTHON_FUNCTION: ("mlflow", "mlflow"),
}


def claims(path: Path) -> bool:
    """Folders with a file ``MLmodel``."""
    return path.is_dir() and (path / "MLmodel").is_file()


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the model in the folder ``file`` is started."""
    description = read_description(file)
    content, signed = content_of(file, description), signature_of(description)
    if content is None:
        flavors = ", ".join(sorted(description["flavors"]))
        raise ModelFailed(f"'{file.name}/MLmodel' has no flavor that can be served; it has {flavors}")
    if content.library == PYTHON_FUNCTION:
        refuse_untrusted(
            file,
            spec.trusted_sha256,
            f"holds a Python function ({content.kind}), which is unpickled",
            "log the model with mlflow.onnx, with serialization_format='skops', or with the library's own flavor; or "
            "serve the library's own file (model.skops, model.ubj, model.txt)",
        )
    elif _by_itself(content, signed):
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


def _by_itself(content: Content, signed: Signed) -> bool:
    """Whether the library's own runtime answers as MLflow does, to inputs that the file tells of."""
    if content.library == "tensorflow" or (content.library == "onnx" and not signed.columns):
        return True
    plain = content.method in ("predict", "predict_proba") and not _labels(content)
    return plain and not signed.columns and not signed.tensors


def _labels(content: Content) -> bool:
    """Whether the class answers what the library's own file does not say."""
    return content.kind in ("XGBClassifier", "XGBRFClassifier", "CatBoost")


def load(settings: dict[str, Any]) -> Runtime:
    """The model, in this process."""
    return MlflowRuntime(settings)


class MlflowRuntime:
    """A model whose inputs are those of a signature.

    A column of the signature is an input; columns that are all of one type of numbers are one matrix ``x``. A tensor is
    an input of its name, ``x`` where it has none. Outputs are what MLflow's ``predict`` gives: by the names of the
    signature, else by those of a data frame or a dict, else ``prediction``; of classifiers ``label``, and
    ``probabilities`` besides.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from inferd.runtimes.mlflow_models import model_of
        from inferd.runtimes.mlflow_rows import rows_of
        from inferd.runtimes.signatures import with_declared

        about = settings["mlflow"]
        signed = Signed(
            columns=[Column(**column) for column in about["signature"]["columns"]],
            tensors=[Tensor(**{**one, "shape": tuple(one["shape"])}) for one in about["signature"]["tensors"]],
            outputs=about["signature"]["outputs"],
            params=about["signature"]["params"],
        )
        content = Content(**about["content"])
        self._model = model_of(content, signed, settings)
        self._rows = rows_of(signed, settings, self._model.native)
        self.facts = {**self._model.facts, **self._rows.facts}
        self.independent = self._model.independent
        self.defaults = self._rows.defaults
        self.schemas = self._rows.schemas
        self.ignored_columns = self._rows.ignored
        self.example: Batch | None = self._rows.example(Path(settings["file"]), about["example"])
        self.signature = with_declared(settings, self._rows.inputs, self._outputs(self.example, settings))

    def predict(self, batch: Batch) -> Batch:
        """What MLflow's ``predict`` gives."""
        if len(next(iter(batch.values()))) == 0 and self.example is not None:
            # Most libraries refuse to answer no rows at all.
            return {name: values[:0] for name, values in self.predict(self.example).items()}
        parts = [(places, self._model(rows)) for places, rows in self._rows.parts(batch)]
        return parts[0][1] if len(parts) == 1 else _in_order(parts)

    def _outputs(self, example: Batch, settings: dict[str, Any]) -> tuple[TensorSpec, ...]:
        """What one run shows, where nothing is declared."""
        from inferd.runtimes.signatures import observed_outputs

        if settings["signature"]["outputs"] is not None:
            return ()
        try:
            return observed_outputs(self.predict(example))
        except InvalidInput as fault:
            raise ModelFailed(
                f"rows of the signature's types that were made up are refused: {fault}\n"
                "help: log the model with an input_example, or write outputs: in model.yaml"
            ) from fault

    def close(self) -> None:
        """Nothing is held but memory."""


def _in_order(parts: list[tuple[Any, Batch]]) -> Batch:
    """The answers to parts of a batch, each in its row's place."""
    import numpy as np

    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return {name: np.concatenate([np.asarray(found[name]) for _, found in parts])[order] for name in parts[0][1]}
