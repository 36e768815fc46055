"""MLflow folders: the rows and the answers that MLflow itself would have."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import catboost
import lightgbm
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
import xgboost
import yaml
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import Schema
from mlflow.types.schema import ColSpec, TensorSpec
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from inferd.errors import Forbidden, InvalidInput, ModelFailed
from inferd.runtimes import mlflow as folders
from inferd.runtimes.registry import runtime
from inferd.runtimes.trust import digest
from inferd.spec.settings import ModelSpec
from inferd.types import DATATYPES
from inferd.worker.probe import earned_signature

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.fixture(autouse=True)
def unpickling(monkeypatch):
    """MLflow itself has to be told that it may read skops files."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")


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


# -- each library's own file ----------------------------------------------------------------------------------------


def xgb_booster() -> Any:
    return xgboost.train({"nthread": 1}, xgboost.DMatrix(FRAME, NUMBER), 5)


def lgb_booster() -> Any:
    return lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}, lightgbm.Dataset(FRAME, NUMBER), 5)


MODELS: dict[str, tuple[str, Callable[[], Any], str]] = {
    "XGBClassifier": ("xgboost", lambda: xgboost.XGBClassifier(**FEW).fit(FRAME, ONE), "label"),
    "XGBClassifier of three": ("xgboost", lambda: xgboost.XGBClassifier(**FEW).fit(FRAME, THREE), "label"),
    "XGBRFClassifier": ("xgboost", lambda: xgboost.XGBRFClassifier(**FEW).fit(FRAME, ONE), "label"),
    "XGBRegressor": ("xgboost", lambda: xgboost.XGBRegressor(**FEW).fit(FRAME, NUMBER), "prediction"),
    "xgboost.Booster": ("xgboost", xgb_booster, "prediction"),
    "LGBMClassifier": ("lightgbm", lambda: lightgbm.LGBMClassifier(**QUIET).fit(FRAME, YES), "label"),
    "LGBMClassifier of three": ("lightgbm", lambda: lightgbm.LGBMClassifier(**QUIET).fit(FRAME, THREE), "label"),
    "LGBMRegressor": ("lightgbm", lambda: lightgbm.LGBMRegressor(**QUIET).fit(FRAME, NUMBER), "prediction"),
    "lightgbm.Booster": ("lightgbm", lgb_booster, "prediction"),
    "CatBoostClassifier": ("catboost", lambda: catboost.CatBoostClassifier(**CAT).fit(FRAME, YES), "label"),
    "CatBoostClassifier of three": ("catboost", lambda: catboost.CatBoostClassifier(**CAT).fit(FRAME, THREE), "label"),
    "CatBoostRegressor": ("catboost", lambda: catboost.CatBoostRegressor(**CAT).fit(FRAME, NUMBER), "prediction"),
    "CatBoost": (
        "catboost",
        lambda: catboost.CatBoost({**CAT, "loss_function": "Logloss"}).fit(FRAME, ONE),
        "prediction",
    ),
    "LogisticRegression": ("sklearn", lambda: LogisticRegression().fit(FRAME, YES), "label"),
    "LinearRegression": ("sklearn", lambda: LinearRegression().fit(FRAME, NUMBER), "prediction"),
    "boosters in a pipeline": (
        "sklearn",
        lambda: make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**QUIET)).fit(FRAME, YES),
        "label",
    ),
}
TRUSTED = ["lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", "collections.OrderedDict"]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_librarys_own_file_answers_as_mlflow_does_without_unpickling(name, signed, tmp_path):
    flavor, fit, output = MODELS[name]
    more = {"skops_trusted_types": TRUSTED} if flavor == "sklearn" else {}
    folder = log(tmp_path / "m", flavor, fit(), infer_signature(FRAME) if signed else None, **more)
    model = served(folder)
    wanted = np.asarray(theirs(folder, FRAME))
    found = model.predict(sent(model, FRAME))
    assert next(iter(found)) == output
    same(found[output], wanted.reshape(-1) if wanted.shape[1:] == (1,) else wanted)
    if output == "label":
        assert found["probabilities"].shape == (ROWS, len(np.unique(wanted)))
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)
    if signed:
        assert [str(spec) for spec in model.signature.inputs] == ["a: FP64[?]", "b: FP64[?]", "n: INT64[?]"]


def test_a_column_signature_takes_columns_by_name_in_one_matrix_where_they_are_of_one_type(tmp_path):
    numbers = FRAME.astype(float)
    folder = log(tmp_path / "m", "lightgbm", lgb_booster(), infer_signature(numbers))
    model = served(folder)
    assert [str(spec) for spec in model.signature.inputs] == ["x: FP64[?, 3]"]
    assert [schema.columns for schema in model.schemas] == [("a", "b", "n")]
    same(model.predict({"x": numbers.to_numpy()})["prediction"], theirs(folder, numbers[["n", "b", "a"]]))


@pytest.mark.parametrize("kind", ["lightgbm.Booster", "xgboost.Booster", "XGBClassifier"])
def test_categories_are_taken_as_the_texts_that_the_signature_says(kind, tmp_path):
    """MLflow writes them so, and its libraries then refuse them."""
    frame = pd.DataFrame({"city": pd.Categorical(["Oslo", "Rome", "Lima"] * 20), "size": FRAME["a"]})
    target = frame["city"].cat.codes + frame["size"]
    if kind == "lightgbm.Booster":
        data = lightgbm.Dataset(frame, target)
        model = lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}, data, 5)
        wanted = model.predict(frame)
    elif kind == "xgboost.Booster":
        data = xgboost.DMatrix(frame, target, enable_categorical=True)
        model = xgboost.train({"nthread": 1, "tree_method": "hist"}, data, 5)
        wanted = model.predict(data)
    else:
        model = xgboost.XGBClassifier(**FEW, enable_categorical=True).fit(frame, (target > 1).astype(int))
        wanted = model.predict(frame)
    folder = log(tmp_path / "m", kind.partition(".")[0] if "." in kind else "xgboost", model, infer_signature(frame))
    model = served(folder)
    assert [str(spec) for spec in model.signature.inputs] == ["city: BYTES[?]", "size: FP64[?]"]
    same(next(iter(model.predict(sent(model, frame)).values())), wanted)


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
def test_the_method_that_was_logged_is_the_one_that_answers(method, tmp_path):
    folder = log(
        tmp_path / "m",
        "sklearn",
        LogisticRegression().fit(FRAME, YES),
        infer_signature(FRAME),
        pyfunc_predict_fn=method,
    )
    model = served(folder)
    found = model.predict(sent(model, FRAME))
    assert next(iter(found)) == ("probabilities" if method == "predict_proba" else "prediction")
    same(next(iter(found.values())), theirs(folder, FRAME))


def test_an_answer_has_the_name_that_the_signature_gives_it(tmp_path):
    signature = ModelSignature(infer_signature(FRAME).inputs, Schema([ColSpec("string", "species")]))
    folder = log(tmp_path / "m", "sklearn", LogisticRegression().fit(FRAME, YES), signature)
    model = served(folder)
    assert list(model.predict(sent(model, FRAME))) == ["species", "probabilities"]


def test_text_columns_and_their_missing_values_reach_the_library_as_mlflow_has_them(tmp_path):
    frame = pd.DataFrame({"city": ["Oslo", "Rome", None, "Lima"] * 10, "size": [1.0, 2.0, 3.0, np.nan] * 10})
    encode = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    target = np.arange(40) % 2
    estimator = make_pipeline(encode, lightgbm.LGBMClassifier(**QUIET)).fit(frame, target)
    folder = log(tmp_path / "m", "sklearn", estimator, infer_signature(frame), skops_trusted_types=TRUSTED)
    model = served(folder)
    assert [str(spec) for spec in model.signature.inputs] == ["city: BYTES[?]", "size: FP64[?]"]
    assert [schema.missing for schema in model.schemas] == [True, True]
    same(model.predict(sent(model, frame))["label"], theirs(folder, frame))
    alone = [model.predict(sent(model, frame.iloc[[row]]))["label"][0] for row in range(4)]
    same(alone, theirs(folder, frame)[:4])
    with pytest.raises(InvalidInput, match="Paris"):
        model.predict(sent(model, frame.iloc[:1].assign(city="Paris")))


def test_what_the_library_refuses_is_known_before_it_is_asked(tmp_path):
    frame = FRAME[["a", "b"]]
    folder = log(tmp_path / "m", "sklearn", LogisticRegression().fit(frame, YES), infer_signature(frame))
    assert [schema.missing for schema in served(folder).schemas] == [False]
    folder = log(tmp_path / "n", "xgboost", xgboost.XGBClassifier(**FEW).fit(frame, ONE), infer_signature(frame))
    assert [schema.missing for schema in served(folder).schemas] == [True]


def test_parameters_of_the_signature_have_their_defaults_and_the_operators_values(tmp_path):
    folder = log(
        tmp_path / "m", "xgboost", xgboost.XGBClassifier(**FEW).fit(FRAME, ONE),
        infer_signature(FRAME, params={"output_margin": True}),
    )  # fmt: skip
    model = served(folder)
    found = model.predict(sent(model, FRAME))
    assert list(found) == ["prediction"]
    same(found["prediction"], theirs(folder, FRAME))
    labelled = served(folder, parameters={"output_margin": False})
    assert set(labelled.predict(sent(labelled, FRAME))["prediction"].tolist()) == {0, 1}
    with pytest.raises(ModelFailed, match=r"'margin' is no parameter.*\nhelp: it has 'output_margin'"):
        served(folder, parameters={"margin": False})


def test_an_onnx_graph_with_a_column_signature_gets_the_frame(tmp_path):
    from skl2onnx import to_onnx

    numbers = FRAME.astype(float)
    graph = to_onnx(LinearRegression().fit(numbers, NUMBER), numbers.to_numpy(np.float32)[:1])
    mlflow.onnx.save_model(graph, str(tmp_path / "m"), signature=infer_signature(numbers), pip_requirements=[])
    model = served(tmp_path / "m")
    assert [schema.columns for schema in model.schemas] == [("a", "b", "n")]
    (found,) = model.predict(sent(model, numbers)).values()
    same(found.reshape(-1), theirs(tmp_path / "m", numbers).to_numpy().reshape(-1))


def test_an_onnx_graph_of_tensors_is_served_as_the_file_is(tmp_path):
    from skl2onnx import to_onnx

    x = FRAME.to_numpy(np.float32)
    graph = to_onnx(LinearRegression().fit(x, NUMBER), x[:1])
    mlflow.onnx.save_model(graph, str(tmp_path / "m"), signature=infer_signature(x), pip_requirements=[])
    assert folders.compose(tmp_path / "m", ModelSpec(), 1).platform == "onnx_onnxruntime"


# -- layouts --------------------------------------------------------------------------------------------------------


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    description = yaml.safe_load((folder / "MLmodel").read_text())
    edit(description)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    return folder


def test_older_layouts_are_read(tmp_path):
    folder = log(tmp_path / "x", "xgboost", xgb_booster(), model_format="json")
    shutil.move(folder / "model.json", folder / "model.xgb")

    def before_1_22(description: dict[str, Any]) -> None:
        description["flavors"]["xgboost"] = {"data": "model.xgb", "xgb_version": "1.4.2"}

    model = served(edited(folder, before_1_22))
    assert list(model.predict(sent(model, FRAME))) == ["prediction"]
    folder = log(tmp_path / "l", "lightgbm", lgb_booster())

    def before_1_23(description: dict[str, Any]) -> None:
        description["flavors"]["lightgbm"] = {"data": "model.lgb", "lgb_version": "3.3.2"}

    model = served(edited(folder, before_1_23))
    same(model.predict(sent(model, FRAME))["prediction"], theirs(folder, FRAME))


def test_optional_columns_of_older_signatures_are_read(tmp_path):
    folder = log(tmp_path / "m", "xgboost", xgb_booster())

    def before_2_6(description: dict[str, Any]) -> None:
        columns = [{"type": "double", "name": name, "optional": name == "b"} for name in FRAME]
        description["signature"] = {"inputs": json.dumps(columns)}

    assert list(served(edited(folder, before_2_6)).defaults) == ["b"]


@pytest.mark.parametrize(
    ("flavor", "make"), [("lightgbm", MODELS["LGBMClassifier"][1]), ("sklearn", MODELS["LogisticRegression"][1])]
)
def test_a_pickle_in_a_flavor_is_refused_with_the_way_out_and_served_where_it_is_vouched_for(flavor, make, tmp_path):
    folder = log(tmp_path / "m", flavor, make(), infer_signature(FRAME), serialization_format="cloudpickle")
    with pytest.raises(Forbidden, match=r"Python function.*\nhelp: .*serialization_format='skops'"):
        served(folder)
    model = served(folder, trusted=True)
    same(model.predict(sent(model, FRAME))["prediction"], theirs(folder, FRAME))


def test_a_skops_file_with_somebodys_code_is_refused(tmp_path):
    import os

    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    folder = log(tmp_path / "m", "sklearn", LogisticRegression().fit(FRAME, YES), infer_signature(FRAME))
    skops.io.dump(FunctionTransformer(os.system), folder / "model.skops")
    with pytest.raises(Forbidden, match="system"):
        served(folder)


def test_a_class_of_somebody_else_is_left_to_mlflow(tmp_path):
    folder = log(tmp_path / "m", "xgboost", xgboost.XGBClassifier(**FEW).fit(FRAME, ONE))

    def own(description: dict[str, Any]) -> None:
        description["flavors"]["xgboost"]["model_class"] = "os.system"

    with pytest.raises(Forbidden, match="Python function"):
        served(edited(folder, own))


def test_a_file_outside_of_the_folder_is_nobodys(tmp_path):
    folder = log(tmp_path / "m", "lightgbm", lgb_booster())
    shutil.move(folder / "model.lgb", tmp_path / "model.lgb")

    def outside(description: dict[str, Any]) -> None:
        description["flavors"] = {"lightgbm": {"data": "../model.lgb"}}

    with pytest.raises(ModelFailed, match="no flavor that can be served"):
        served(edited(folder, outside))


# -- signatures -----------------------------------------------------------------------------------------------------


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
        ("when", b"yesterday", r"row 1: column 'when' holds 'yesterday'"),
        ("when", b"2020-01-01T00:00:00+02:00", "without a time zone"),
        ("object", b"{", r"row 1: column 'object' holds '\{'"),
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
    assert model.facts["optional"].startswith("n can't be missing")
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
    assert earned_signature(
        model, {"batching": "auto", "batch_rows_max": 8, "tolerance": {"absolute": 0, "relative": 0}}
    ).batched


def test_what_a_type_of_the_signature_can_not_be_served_is_named(tmp_path):
    folder = function(tmp_path / "m", lambda rows, _: rows, infer_signature(FRAME))

    def vectors(description: dict[str, Any]) -> None:
        description["signature"]["inputs"] = json.dumps([{"type": "sparkml_vector", "name": "v", "required": True}])

    with pytest.raises(ModelFailed, match=r"column 'v' .* 'sparkml_vector'.*\nhelp: "):
        served(edited(folder, vectors), trusted=True)


# -- answers --------------------------------------------------------------------------------------------------------


def csr(rows: pd.DataFrame) -> Any:
    from scipy import sparse

    return sparse.csr_matrix(rows.to_numpy())


ANSWERS: dict[str, tuple[Callable[[pd.DataFrame], Any], dict[str, tuple[str, Any]]]] = {
    "a frame": (
        lambda rows: pd.DataFrame({"twice": rows["a"] * 2, "text": rows["a"].map(str), 3: rows["a"] > 0}),
        {
            "twice": ("FP64", lambda a: a * 2),
            "text": ("BYTES", lambda a: [str(x) for x in a]),
            "3": ("BOOL", lambda a: a > 0),
        },
    ),
    "a frame of dates and categories": (
        lambda rows: pd.DataFrame(
            {"day": pd.to_datetime(["2020-02-03"] * len(rows)), "kind": pd.Categorical(["x"] * len(rows))}
        ),
        {"day": ("BYTES", lambda a: ["2020-02-03T00:00:00"] * len(a)), "kind": ("BYTES", lambda a: ["x"] * len(a))},
    ),
    "a frame of its own types": (
        lambda rows: pd.DataFrame(
            {"n": pd.array([1] * len(rows), "Int64"), "s": pd.array(["x"] * len(rows), "string")}
        ),
        {"n": ("INT64", lambda a: [1] * len(a)), "s": ("BYTES", lambda a: ["x"] * len(a))},
    ),
    "a series": (lambda rows: rows["a"] + 1, {"a": ("FP64", lambda a: a + 1)}),
    "an array": (lambda rows: rows["a"].to_numpy(np.float32), {"prediction": ("FP32", lambda a: a.astype(np.float32))}),
    "a matrix": (
        lambda rows: rows[["a", "a"]].to_numpy(),
        {"prediction": ("FP64", lambda a: np.stack([a, a], axis=1))},
    ),
    "a list": (lambda rows: rows["a"].tolist(), {"prediction": ("FP64", lambda a: a)}),
    "a list of texts": (lambda rows: ["x"] * len(rows), {"prediction": ("BYTES", lambda a: ["x"] * len(a))}),
    "a list of lists": (
        lambda rows: [[x, 0] for x in rows["a"]],
        {"prediction": ("FP64", lambda a: [[x, 0] for x in a])},
    ),
    "a list of numbers and nothing": (
        lambda rows: [None, *rows["a"].tolist()[1:]],
        {"prediction": ("FP64", lambda a: [np.nan, *a[1:]])},
    ),
    "a list of objects": (
        lambda rows: [{"score": x, "tags": ["a", None, float("nan")]} for x in rows["a"]],
        {"prediction": ("BYTES", lambda a: [json.dumps({"score": x, "tags": ["a", None, None]}) for x in a])},
    ),
    "lists of different lengths": (
        lambda rows: [["a"] * place for place in range(len(rows))],
        {"prediction": ("BYTES", lambda a: [json.dumps(["a"] * place) for place in range(len(a))])},
    ),
    "a dict": (
        lambda rows: {"one": rows["a"], "two": rows["a"].tolist(), "three": csr(rows)},
        {"one": ("FP64", lambda a: a), "two": ("FP64", lambda a: a), "three": ("FP64", lambda a: a[:, None])},
    ),
    "a sparse matrix": (csr, {"prediction": ("FP64", lambda a: a[:, None])}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_whatever_a_function_returns_is_served(kind, tmp_path):
    answer, outputs = ANSWERS[kind]
    frame = FRAME[["a"]].head(4)
    folder = function(tmp_path / "m", lambda rows, _: answer(rows), infer_signature(frame), input_example=frame)
    model = served(folder, trusted=True)
    assert {spec.name: spec.datatype for spec in model.signature.outputs} == {
        name: kind for name, (kind, _) in outputs.items()
    }
    found = model.predict(sent(model, frame))
    for name, (_, wanted) in outputs.items():
        same(found[name], wanted(frame["a"].to_numpy()))


def test_one_answer_for_all_rows_is_not_batched(tmp_path):
    frame = FRAME[["a"]].head(4)
    folder = function(
        tmp_path / "m", lambda rows, _: {"mean": rows["a"].mean()}, infer_signature(frame), input_example=frame
    )
    model = served(folder, trusted=True)
    same(model.predict(sent(model, frame))["mean"], [frame["a"].mean()])
    load = {"batching": "auto", "batch_rows_max": 8, "tolerance": {"absolute": 0, "relative": 0}}
    assert earned_signature(model, load).batching_off is not None


def test_several_columns_of_a_matrix_have_the_names_of_the_signature(tmp_path):
    signature = ModelSignature(
        infer_signature(FRAME).inputs, Schema([ColSpec("double", "low"), ColSpec("double", "high")])
    )
    folder = function(tmp_path / "m", lambda rows, _: rows[["a", "b"]].to_numpy(), signature)
    model = served(folder, trusted=True)
    found = model.predict(sent(model, FRAME))
    same(found["low"], FRAME["a"])
    same(found["high"], FRAME["b"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda rows: pd.DataFrame({"s": ["x", None]}), "no text in row 1"),
        (lambda rows: pd.to_datetime(pd.Series(["2020-01-01", None])), "no date in row 1"),
        (lambda rows: rows["a"].to_numpy() * 1j, "complex128"),
    ],
)
def test_an_answer_that_the_protocol_can_not_carry_is_named(answer, words, tmp_path):
    frame = FRAME[["a"]].head(2)
    folder = function(tmp_path / "m", lambda rows, _: answer(rows), infer_signature(frame), input_example=frame)
    with pytest.raises(ModelFailed, match=words):
        served(folder, trusted=True)


def test_no_rows_at_all_are_answered_with_none(tmp_path):
    folder = log(tmp_path / "m", "sklearn", LogisticRegression().fit(FRAME, YES), infer_signature(FRAME))
    model = served(folder)
    found = model.predict(sent(model, FRAME.head(0)))
    assert {name: array.shape for name, array in found.items()} == {"label": (0,), "probabilities": (0, 2)}


def test_a_function_that_keeps_its_rows_has_them_for_itself(tmp_path):
    kept: list[Any] = []

    def keep(rows: Any, _: Any) -> Any:
        import builtins

        store = builtins.__dict__.setdefault("rows_that_were_kept", [])
        store.append(rows)
        return rows["a"] if hasattr(rows, "columns") else rows

    folder = function(tmp_path / "m", keep, infer_signature(FRAME[["a"]]))
    model = served(folder, trusted=True)
    memory = np.array([[1.0], [2.0]])
    model.predict({"x": memory})
    memory[:] = 9
    import builtins

    kept = builtins.__dict__.pop("rows_that_were_kept")
    assert kept[-1]["a"].tolist() == [1.0, 2.0]


# -- the document ---------------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md"


def test_the_document_says_what_becomes_of_every_type_of_a_column():
    from inferd.runtimes.mlflow_columns import Columns
    from inferd.runtimes.mlflow_folder import _IN_JSON, _SCALARS, Column

    section = DOCUMENT.read_text().partition("## What an MLflow folder gives\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): (served, missing) for names, served, _, missing in rows for name in names.split(", ")}
    assert set(listed) == {*_SCALARS, *_IN_JSON, "array"}
    for name, (served, missing) in listed.items():
        kind, depth = ("double", 1) if name == "array" else (name, 0)
        rows_of = Columns([Column("a", kind, True, depth, {}), Column("b", "string", True, 0, {})], None)
        spec, schema = rows_of.inputs[0], rows_of.schemas[0]
        assert served.startswith(spec.datatype) or (name == "array" and len(spec.shape) == 2)
        assert (missing != "refused") == schema.missing
