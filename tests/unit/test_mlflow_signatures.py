"""MLflow folders: rows reach a model in the types and under the names of its signature."""

from __future__ import annotations

import json
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
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import Schema
from mlflow.types.schema import ColSpec, TensorSpec

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes import mlflow as folders
from inferd.runtimes.trust import digest
from inferd.spec.settings import ModelSpec
from inferd.worker.batching import decide_batching

if TYPE_CHECKING:
    pass
from outside.mlflow_folders import (
    FRAME,
    edited,
    function,
    same,
    sent,
    served,
    theirs,
)

pytestmark = pytest.mark.usefixtures("unpickling")


def types() -> pd.DataFrame:
    """A column of every type. MLflow writes into the objects."""
    return pd.DataFrame(
        {
            "text": ["a", None, "ü", ""],
            "when": pd.to_datetime(
                ["2020-01-01", "2021-05-06T07:08:09.123456789", None, "1969-12-31"], format="ISO8601"
            ),
            "list": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]],
            "words": [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]],
            "object": [{"k": 1, "l": [0.5]}, {"k": 2, "l": []}, {"k": 3, "l": [1.5]}, {"k": -4, "l": [2.5]}],
            "bytes": [b"x", b"\xff\x00", b"", b"y"],
            "flag": [True, False, True, True],
            "small": np.array([1, 2, -3, 2**31 - 1], np.int32),
            "large": np.array([1, 2**53 + 1, -3, 2**63 - 1], np.int64),
            "single": np.array([0.1, np.nan, np.inf, 1e38], np.float32),
            "double": [0.1, np.nan, 1e300, -0.0],
        }
    )


def test_every_type_of_a_column_reaches_the_function_as_mlflow_gives_it(tmp_path):
    def tell(rows: pd.DataFrame, _: Any) -> list[str]:
        return [f"{[str(dtype) for dtype in rows.dtypes]} {row!r}" for row in rows.to_numpy(dtype=object).tolist()]

    folder = function(tmp_path / "m", tell, infer_signature(types()))
    model = served(folder, trusted=True)
    kinds = {spec.name: f"{spec.datatype}{list(spec.shape)}" for spec in model.signature.inputs}
    assert kinds == {
        "text": "BYTES[-1]",
        "when": "BYTES[-1]",
        "list": "FP64[-1, -1]",
        "words": "BYTES[-1, -1]",
        "object": "BYTES[-1]",
        "bytes": "BYTES[-1]",
        "flag": "BOOL[-1]",
        "small": "INT32[-1]",
        "large": "INT64[-1]",
        "single": "FP32[-1]",
        "double": "FP64[-1]",
    }
    rows = sent(model, types())
    rows["words"] = np.array([[word.encode() for word in row] for row in types()["words"]], dtype=object)
    found = model.predict(rows)["prediction"]
    assert found.tolist() == theirs(folder, types())
    missing = {schema.input: schema.missing for schema in model.schemas}
    assert [name for name, may in missing.items() if not may] == ["list", "words", "flag", "small", "large"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("when", b"yesterday", r"row 1: column 'when': invalid value 'yesterday'"),
        ("when", b"2020-01-01T00:00:00+02:00", "without a time zone"),
        ("object", b"{", r"row 1: column 'object': invalid value '\{'"),
        ("text", b"\xff", "row 1 of column 'text': the text is not UTF-8"),
        ("object", b'{"l": []}', "Missing required properties"),
    ],
)
def test_a_value_that_is_none_of_its_type_is_refused(name, value, words, tmp_path):
    frame = types()[["text", "when", "object"]]
    folder = function(tmp_path / "m", lambda rows, _: [1.0] * len(rows), infer_signature(frame))
    model = served(folder, trusted=True)
    batch = sent(model, frame)
    batch[name][1] = value
    with pytest.raises(InvalidInput, match=words):
        model.predict(batch)


def test_a_column_that_a_request_leaves_out_is_another_thing_than_missing_values(tmp_path):
    schema = Schema(
        [
            ColSpec("double", "a"),
            ColSpec("double", "c", required=False),
            ColSpec("string", "s", required=False),
            ColSpec("long", "n", required=False),
        ]
    )
    folder = function(tmp_path / "m", lambda rows, _: [",".join(map(str, rows))] * len(rows), ModelSignature(schema))
    model = served(folder, trusted=True)
    assert sorted(model.defaults) == ["c", "s"]
    assert model.facts["optional"].startswith("n must be sent")
    whole = pd.DataFrame({"a": [1.0, 2.0], "c": [np.nan, np.nan], "s": [None, "x"], "n": [1, 2]})
    for columns in (list(whole), ["a", "n"], ["a", "c", "n"], ["n", "s", "a"]):
        found = model.predict(sent(model, whole[columns]))["prediction"]
        assert found.tolist() == theirs(folder, whole[columns])
    parts = [sent(model, whole[["a", "n"]]), sent(model, whole), sent(model, whole[["a", "c", "n"]])]
    together = model.predict({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})["prediction"]
    assert together.tolist() == ["a,n"] * 2 + ["a,c,s,n"] * 2 + ["a,c,n"] * 2


def test_columns_without_names_are_taken_in_their_order(tmp_path):
    schema = Schema([ColSpec("double"), ColSpec("double")])
    folder = function(tmp_path / "m", lambda rows, _: rows[1] - rows[0], ModelSignature(schema))
    model = served(folder, trusted=True)
    assert [
        (str(spec), schema.columns) for spec, schema in zip(model.signature.inputs, model.schemas, strict=True)
    ] == [("x: FP64[?, 2]", ())]
    x = FRAME[["a", "b"]].to_numpy()
    same(model.predict({"x": x})["prediction"], x[:, 1] - x[:, 0])


def test_one_column_without_a_name_is_called_x(tmp_path):
    class Shout(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[str]) -> list[str]:
            return [text.upper() for text in model_input]

    mlflow.pyfunc.save_model(str(tmp_path / "m"), python_model=Shout(), pip_requirements=[])
    model = served(tmp_path / "m", trusted=True)
    assert [str(spec) for spec in model.signature.inputs] == ["x: BYTES[?]"]
    found = model.predict({"x": np.array([b"quiet", "ü".encode()], dtype=object)})
    assert [list(values) for values in found.values()] == [["QUIET", "Ü"]]


TENSORS = {
    "one without a name": ([TensorSpec(np.dtype("float32"), (-1, 3))], {"x": "FP32[?, 3]"}),
    "several by name": (
        [TensorSpec(np.dtype("int64"), (-1,), "ids"), TensorSpec(np.dtype("float64"), (-1, 2, 2), "grid")],
        {"ids": "INT64[?]", "grid": "FP64[?, 2, 2]"},
    ),
    "one by name": ([TensorSpec(np.dtype("bool"), (-1, 2), "flags")], {"flags": "BOOL[?, 2]"}),
    "text": ([TensorSpec(np.dtype(str), (-1,), "words")], {"words": "BYTES[?]"}),
    "text without a name": ([TensorSpec(np.dtype(object), (-1, 2))], {"x": "BYTES[?, 2]"}),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_reach_the_function_in_their_types_and_shapes(kind, tmp_path):
    specs, inputs = TENSORS[kind]

    def tell(rows: Any, _: Any) -> list[str]:
        arrays = rows if isinstance(rows, dict) else {"": rows}
        return [
            f"{type(rows).__name__} {[(n, a.dtype.kind, a[place].tolist()) for n, a in arrays.items()]}"
            for place in range(2)
        ]

    folder = function(tmp_path / "m", tell, ModelSignature(Schema(specs)))
    with pytest.raises(IndexError):
        # The function wants two rows: there is no example of one.
        served(folder, trusted=True)
    outputs = [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]
    launch = folders.compose(folder, ModelSpec(trusted_sha256=digest(folder)), 1)
    launch.load["signature"]["outputs"] = outputs
    model = folders.load(launch.load)
    assert {spec.name: str(spec).partition(": ")[2] for spec in model.signature.inputs} == inputs
    arrays = {}
    for spec in specs:
        shape = [2, *spec.shape[1:]]
        values = np.arange(np.prod(shape)).reshape(shape)
        arrays[spec.name] = values.astype(str).astype(spec.type) if spec.type.kind in "UO" else values.astype(spec.type)
    batch = {
        name: np.array([str(value).encode() for value in array.ravel()], object).reshape(array.shape)
        if array.dtype.kind in "UO"
        else array
        for name, array in zip(inputs, arrays.values(), strict=True)
    }
    assert model.predict(batch)["prediction"].tolist() == theirs(folder, arrays.get(None, arrays))


def test_inputs_of_model_yaml_stand_in_for_a_signature(tmp_path):
    from inferd.types import TensorSpec as Declared

    folder = function(tmp_path / "m", lambda rows, _: rows["a"] * 2 + rows["s"].str.len(), None)
    with pytest.raises(ModelFailed, match=r"without a signature\nhelp: .*inputs:"):
        served(folder, trusted=True)
    model = served(folder, trusted=True, inputs=(Declared("a", "FP64", (-1,)), Declared("s", "BYTES", (-1,))))
    found = model.predict({"a": np.array([1.0, 2.0]), "s": np.array([b"x", b"yyy"], dtype=object)})
    same(next(iter(found.values())), [3.0, 7.0])


def test_the_rows_that_a_model_was_logged_with_are_its_example(tmp_path):
    frame = pd.DataFrame({"city": ["Oslo", "Rome"] * 5, "size": np.arange(10.0)})

    def refuse(rows: pd.DataFrame, _: Any) -> pd.Series:
        assert set(rows["city"]) <= {"Oslo", "Rome"}
        return rows["size"]

    folder = function(tmp_path / "m", refuse, infer_signature(frame), input_example=frame.head(2))
    model = served(folder, trusted=True)
    assert model.example["city"].tolist() == [b"Oslo", b"Rome"]
    assert decide_batching(
        model, {"batching": "auto", "batch_rows_max": 8, "tolerance": {"absolute": 0, "relative": 0}}
    ).batched


def test_what_a_type_of_the_signature_can_not_be_served_is_named(tmp_path):
    folder = function(tmp_path / "m", lambda rows, _: rows, infer_signature(FRAME))

    def vectors(description: dict[str, Any]) -> None:
        description["signature"]["inputs"] = json.dumps([{"type": "sparkml_vector", "name": "v", "required": True}])

    with pytest.raises(ModelFailed, match=r"column 'v' .* 'sparkml_vector'.*\nhelp: "):
        served(edited(folder, vectors), trusted=True)
