"""Read an MLflow folder: which library's model, in which file, with which signature.

Reads ``MLmodel``, hands on :class:`Content` and :class:`Signed`. Inspects the folder, as a flavor's name alone is
ambiguous: that of scikit-learn may use skops or a pickle. Imports nothing but YAML; loads no model. Sources:
``save_model`` and ``_load_pyfunc`` of each flavor, ``mlflow.types.schema``; MLflow 3.17, and layouts of 1.x.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.errors import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Column", "Content", "Signed", "Tensor", "content_of", "read_description", "signature_of"]

PYTHON_FUNCTION = "python_function"

_XGBOOST = ("XGBClassifier", "XGBModel", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker", "XGBRegressor")
_CATBOOST = ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor")


class Content(NamedTuple):
    """The model in a folder."""

    library: str
    """The runtime that loads the file, or :data:`PYTHON_FUNCTION`."""
    file: str
    """Path of the file; for a Python function, of the folder."""
    kind: str
    """The class that MLflow instantiates, such as ``XGBClassifier``; empty if there is only one."""
    method: str
    """The method that MLflow's ``predict`` calls."""


class Column(NamedTuple):
    """A column of a signature."""

    name: str | None
    type: str
    """``double`` etc.; of an array, its elements' type, see :attr:`depth`; ``object``, ``map`` or ``any``."""
    required: bool
    depth: int
    """Nesting depth of lists: 0 for scalars."""
    inner: dict[str, Any]
    """The signature's description of a nested type."""


class Tensor(NamedTuple):
    """A tensor of a signature."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]


class Signed(NamedTuple):
    """A signature."""

    columns: Sequence[Column]
    """Inputs that are columns; empty if they are tensors."""
    tensors: Sequence[Tensor]
    """Inputs that are tensors."""
    outputs: Sequence[str | None]
    """Names of the outputs; empty if the signature has none."""
    params: Mapping[str, Any]
    """Default values of parameters."""


def read_description(folder: Path) -> dict[str, Any]:
    """Read ``MLmodel``.

    Raises:
        ModelFailed: it is unreadable.
    """
    import yaml

    try:
        description = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ModelFailed(f"'{folder.name}/MLmodel' can't be read: {fault}") from fault
    if not isinstance(description, dict) or not isinstance(description.get("flavors"), dict):
        raise ModelFailed(f"'{folder.name}/MLmodel' is not a mapping of flavors")
    return description


# -- the model ------------------------------------------------------------------------------------------------------


def content_of(folder: Path, description: dict[str, Any]) -> Content | None:
    """Return the model that loads without executing code, else the Python function; None: neither exists."""
    flavors = description["flavors"]
    function = flavors.get(PYTHON_FUNCTION) or {}
    method = str(function.get("predict_fn") or "predict")
    for flavor, find in _FLAVORS.items():
        if isinstance(flavors.get(flavor), dict):
            found = find(folder, flavors[flavor], method)
            if found is not None:
                return found
    if not function:
        return None
    return Content(PYTHON_FUNCTION, str(folder), str(function.get("loader_module", "unknown")), method)


def _sklearn(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    file = _inside(folder, flavor.get("pickled_model"))
    return None if file is None or file.suffix != ".skops" else Content("sklearn", str(file), "", method)


def _lightgbm(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    file = _inside(folder, flavor.get("data"))
    if file is None or file.suffix == ".pkl":
        return None
    return Content("sklearn" if file.suffix == ".skops" else "lightgbm", str(file), "", method)


def _xgboost(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    file = _inside(folder, flavor.get("data"))
    module, _, kind = str(flavor.get("model_class", "xgboost.core.Booster")).rpartition(".")
    known = (module, kind) == ("xgboost.core", "Booster") or (module == "xgboost.sklearn" and kind in _XGBOOST)
    return Content("xgboost", str(file), kind, method) if file is not None and known else None


def _catboost(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    file = _inside(folder, flavor.get("data", "model.cb"))
    kind = str(flavor.get("model_type", "CatBoost"))
    return Content("catboost", str(file), kind, method) if file is not None and kind in _CATBOOST else None


def _onnx(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    file = _inside(folder, flavor.get("data"))
    return None if file is None else Content("onnx", str(file), "", method)


def _tensorflow(folder: Path, flavor: dict[str, Any], method: str) -> Content | None:
    places = (flavor.get("saved_model_dir"), "data/model", "data/model.keras")
    found = (file for place in places if (file := _inside(folder, place)) is not None)
    file = next((one for one in found if one.suffix == ".keras" or (one / "saved_model.pb").is_file()), None)
    return None if file is None else Content("tensorflow", str(file), "", method)


# In order of preference: an ONNX conversion was chosen on purpose.
_FLAVORS = {
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "sklearn": _sklearn,
    "tensorflow": _tensorflow,
    "keras": _tensorflow,
}


def _inside(folder: Path, name: Any) -> Path | None:
    if not isinstance(name, str):
        return None
    path = (folder / name).resolve()
    # Refuse paths that lead out of the folder.
    return path if path.is_relative_to(folder.resolve()) and path.exists() else None


# -- the signature --------------------------------------------------------------------------------------------------


def signature_of(description: dict[str, Any]) -> Signed:
    """Return the signature in ``MLmodel``; empty without one.

    Raises:
        ModelFailed: a type is unknown.
    """
    written = description.get("signature") or {}
    inputs = _parsed(written.get("inputs"))
    tensors = [one for one in inputs if one.get("type") == "tensor"]
    if tensors and len(tensors) != len(inputs):
        raise ModelFailed("the signature mixes tensors and columns, which MLflow does not support")
    return Signed(
        columns=() if tensors else tuple(map(_column, inputs)),
        tensors=tuple(map(_tensor, tensors)),
        outputs=tuple(one.get("name") for one in _parsed(written.get("outputs"))),
        params={one["name"]: one.get("default") for one in _parsed(written.get("params"))},
    )


def _parsed(text: Any) -> list[dict[str, Any]]:
    found = json.loads(text) if isinstance(text, str) else text
    return found or []


_SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_IN_JSON = ("object", "map", "any")


def _column(column: dict[str, Any]) -> Column:
    kind, depth, inner = column.get("type"), 0, column
    while kind == "array":
        inner, depth = inner.get("items") or {}, depth + 1
        kind = inner.get("type")
    if kind in _IN_JSON and depth:
        kind, depth, inner = "any", 0, column
    if kind not in (*_SCALARS, *_IN_JSON):
        raise ModelFailed(
            f"column '{column.get('name')}' of the signature has the unsupported type {kind!r}\n"
            "help: log the model with columns of numbers, text, dates, lists or objects, or set inputs: in model.yaml"
        )
    # Before 2.6 MLflow wrote ``optional`` instead.
    required = column.get("required", not column.get("optional", False))
    return Column(column.get("name"), str(kind), bool(required), depth, inner if kind in _IN_JSON else {})


def _tensor(tensor: dict[str, Any]) -> Tensor:
    spec = tensor["tensor-spec"]
    return Tensor(tensor.get("name"), str(spec["dtype"]), tuple(int(dim) for dim in spec["shape"]))
