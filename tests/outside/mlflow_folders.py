"""Folders that MLflow logged, served in one process and by MLflow itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.catboost
import mlflow.lightgbm
import mlflow.onnx
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import yaml

from inferd.runtimes import mlflow as folders
from inferd.runtimes.registry import runtime
from inferd.runtimes.trust import digest
from inferd.spec.settings import ModelSpec
from inferd.types import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CAT",
    "FEW",
    "FRAME",
    "MODEL_ARGUMENT",
    "NUMBER",
    "ONE",
    "QUIET",
    "RANDOM",
    "ROWS",
    "THREE",
    "YES",
    "as_bytes",
    "column",
    "edited",
    "function",
    "log",
    "same",
    "sent",
    "served",
    "theirs",
]


ROWS = 60
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {"a": RANDOM.normal(size=ROWS), "b": RANDOM.normal(size=ROWS) * 1e6, "n": RANDOM.integers(0, 9, ROWS)}
)
YES = np.where(FRAME.a + FRAME.n > 3, "yes", "no")
ONE = (YES == "yes").astype(int)
THREE = FRAME.n.to_numpy() % 3
NUMBER = (FRAME.a * 2 + FRAME.n).to_numpy()
FEW = {"n_estimators": 5}
QUIET = {**FEW, "verbose": -1, "min_child_samples": 2}
CAT = {"iterations": 5, "verbose": 0, "allow_writing_files": False}
MODEL_ARGUMENT = {"sklearn": "sk_model", "xgboost": "xgb_model", "lightgbm": "lgb_model", "catboost": "cb_model"}


def log(folder: Path, flavor: str, model: Any, signature: Any = None, **more: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = getattr(mlflow, flavor)
        kind.save_model(
            **{MODEL_ARGUMENT[flavor]: model}, path=str(folder), signature=signature, pip_requirements=[], **more
        )
    return folder


def function(folder: Path, predict: Callable[..., Any], signature: Any, **more: Any) -> Path:
    class Function(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return predict(model_input, params)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(str(folder), python_model=Function(), signature=signature, pip_requirements=[], **more)
    return folder


def served(folder: Path, **settings: Any) -> Any:
    if "trusted" in settings:
        settings = {**settings, "trusted_sha256": digest(folder)}
        del settings["trusted"]
    launch = folders.compose(folder, ModelSpec(**settings), 1)
    return runtime(launch.load["runtime"]).load(launch.load)


def theirs(folder: Path, rows: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlflow.pyfunc.load_model(str(folder)).predict(rows)


def sent(model: Any, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """A frame as clients send it: by the names of the columns, in the types of the inputs."""
    (schema,) = model.schemas if len(model.schemas) == 1 else (None,)
    if schema is not None and len(model.signature.inputs[0].shape) == 2:
        dtype = DATATYPES[model.signature.inputs[0].datatype]
        return {schema.input: frame[list(schema.columns) or list(frame)].to_numpy(dtype)}
    return {
        spec.name: column(spec.datatype, frame[spec.name])
        if spec.name in frame
        else np.repeat(model.defaults[spec.name], len(frame))
        for spec in model.signature.inputs
    }


def column(datatype: str, values: pd.Series) -> np.ndarray:
    if datatype != "BYTES":
        return np.array(values.tolist(), DATATYPES[datatype])
    found = np.empty(len(values), dtype=object)
    found[:] = [as_bytes(value) for value in values]
    return found


def as_bytes(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value).encode()
    return None if pd.isna(value) else str(value).encode()


def same(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    if wanted.dtype.kind == "f":
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found.tolist() == wanted.tolist()


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    description = yaml.safe_load((folder / "MLmodel").read_text())
    edit(description)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    return folder
