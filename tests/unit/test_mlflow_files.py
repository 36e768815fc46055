"""MLflow folders: a library's own file is read by what it is, and answers as MLflow does."""

from __future__ import annotations

import json
import shutil
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
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import Schema
from mlflow.types.schema import ColSpec
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from inferd.errors import Forbidden, InvalidInput, ModelFailed
from inferd.runtimes import mlflow as folders
from inferd.spec.settings import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable
from outside.mlflow_folders import (
    CAT,
    FEW,
    FRAME,
    NUMBER,
    ONE,
    QUIET,
    ROWS,
    THREE,
    YES,
    edited,
    log,
    same,
    sent,
    served,
    theirs,
)

pytestmark = pytest.mark.usefixtures("unpickling")


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
    with pytest.raises(ModelFailed, match=r"'margin': not in the model's signature.*\nhelp: it has 'output_margin'"):
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

    with pytest.raises(ModelFailed, match="no supported flavor"):
        served(edited(folder, outside))
