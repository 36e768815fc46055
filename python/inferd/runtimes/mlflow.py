"""MLflow model folders: ``MLmodel`` says what is in them, the runtime of that runs it.

Reads ``MLmodel`` in the control plane and hands on what the file inside would have got by itself. Only a folder that
has nothing but a Python function is loaded through MLflow, which unpickles: for that the operator must vouch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, in_python, require
from inferd.runtimes.trust import digest, refuse_untrusted
from inferd.types import TensorSpec

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "MlflowRuntime", "claims", "compose", "load"]

PLATFORM = "mlflow"
TAKES = Takes(
    title="MLflow",
    types="Those of the model's signature, enforced as MLflow does; without one those of the library inside.",
    categories="Those of the library inside.",
    missing="Where the signature's column is not required; else refused.",
    names="Those of the signature.",
    outputs="As `predict()` of MLflow gives them.",
    parameters="The params of the model's signature.",
)

# Flavors whose own files hold no code: the runtime, and the key under which the flavor names its file.
_PLAIN = {
    "onnx": ("onnx", "data"),
    "xgboost": ("xgboost", "data"),
    "lightgbm": ("lightgbm", "data"),
    "catboost": ("catboost", "data"),
    "tensorflow": ("tensorflow", "saved_model_dir"),
}


def claims(path: Path) -> bool:
    """Folders with a file ``MLmodel``."""
    return path.is_dir() and (path / "MLmodel").is_file()


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the model in the folder ``file`` is started."""
    description = _read(file)
    flavors = description.get("flavors") or {}
    for flavor, (runtime, key) in _PLAIN.items():
        inside = _inside(file, flavors.get(flavor), key)
        if inside is not None:
            launch: Launch = import_module(f"inferd.runtimes.{runtime}").compose(inside, spec, threads)
            return launch
    if "python_function" not in flavors:
        raise ModelFailed(f"'{file.name}/MLmodel' has no flavor that can be served; it has {sorted(flavors)}")
    refuse_untrusted(
        file,
        spec.trusted_sha256,
        f"holds a Python function ({flavors['python_function'].get('loader_module', 'unknown')}), which is unpickled",
        "log the model with mlflow.onnx, or serve the library's own file (model.skops, model.ubj, model.txt)",
    )
    require("mlflow", "mlflow", spec)
    launch = in_python("mlflow", PLATFORM, file, spec, threads)
    launch.load["mlflow_signature"] = description.get("signature") or {}
    return launch


def _read(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        description = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ModelFailed(f"'{folder.name}/MLmodel' can't be read: {fault}") from fault
    if not isinstance(description, dict):
        raise ModelFailed(f"'{folder.name}/MLmodel' is no mapping of flavors")
    return description


def _inside(folder: Path, flavor: Any, key: str) -> Path | None:
    if not isinstance(flavor, dict) or not isinstance(flavor.get(key), str):
        return None
    path = (folder / flavor[key]).resolve()
    # A name that leads out of the folder is nobody's model.
    return path if path.is_relative_to(folder.resolve()) and path.exists() else None


def load(settings: dict[str, Any]) -> Runtime:
    """The Python function, in this process."""
    return MlflowRuntime(settings)


class MlflowRuntime:
    """A ``python_function``.

    Inputs are those of the folder's signature: one for each column, or tensors by name; ``x`` where there is one tensor
    without a name. Outputs are found by one run.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import json

        import mlflow

        from inferd.runtimes.signatures import declared, outputs_seen, with_declared

        folder = Path(settings["file"])
        if digest(folder) != settings["trusted_sha256"]:
            refuse_untrusted(folder, settings["trusted_sha256"], "changed", "start again")
        self._function = mlflow.pyfunc.load_model(str(folder))
        self.facts = {"runtime": f"mlflow {mlflow.__version__}"}
        text = settings["mlflow_signature"].get("inputs")
        described = json.loads(text) if text else []
        inputs = declared(settings, "inputs") or tuple(map(_described, described))
        if not inputs:
            raise ModelFailed(
                "the model was logged without a signature\n"
                "help: log it with mlflow.models.infer_signature, or write inputs: in model.yaml"
            )
        self._columns = bool(described) and described[0].get("type") != "tensor"
        self._inputs = inputs
        row = {spec.name: _plausible(spec) for spec in inputs}
        self.signature = with_declared(settings, inputs, outputs_seen(self.predict(row)))

    def predict(self, batch: Batch) -> Batch:
        """The function's answers."""
        import numpy as np
        from mlflow.exceptions import MlflowException

        try:
            found = self._function.predict(self._rows(batch))
        except MlflowException as fault:
            raise InvalidInput(f"the model can't use this input: {fault.message}") from fault
        if hasattr(found, "columns"):
            return {str(name): found[name].to_numpy() for name in found.columns}
        if isinstance(found, dict):
            return {name: np.asarray(value) for name, value in found.items()}
        return {"prediction": np.asarray(found)}

    def close(self) -> None:
        """Nothing is held but memory."""

    def _rows(self, batch: Batch) -> Any:
        from inferd.runtimes.signatures import as_text

        columns = {
            name: as_text(array) if array.dtype == object else array
            for name, array in ((spec.name, batch[spec.name]) for spec in self._inputs)
        }
        if self._columns:
            import pandas as pd

            return pd.DataFrame(columns)
        return next(iter(columns.values())) if len(columns) == 1 else columns


_COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}


def _described(column: dict[str, Any]) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of

    if column.get("type") == "tensor":
        tensor = column["tensor-spec"]
        return TensorSpec(column.get("name", "x"), datatype_of(tensor["dtype"]), tuple(tensor["shape"]))
    if column.get("type") not in _COLUMN_TYPES:
        raise ModelFailed(
            f"column '{column.get('name')}' has the type {column.get('type')!r}, which can't be served\n"
            "help: write inputs: in model.yaml"
        )
    return TensorSpec(column["name"], _COLUMN_TYPES[column["type"]], (-1,))


def _plausible(spec: TensorSpec) -> Any:
    import numpy as np

    from inferd.types import DATATYPES

    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"text", dtype=object)
    return np.zeros(shape, DATATYPES[spec.datatype])
