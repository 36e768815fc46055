"""What models of LightGBM, XGBoost and CatBoost take, found in their files and by asking their libraries."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import python_launch
from inferd.runtimes.registry import recognise, runtime
from inferd.spec.settings import ModelSpec
from inferd.types import InputSchema, TensorSpec

ROWS = 200
GREATEST = 3.4028235677973362e38


@pytest.fixture
def random():
    return np.random.default_rng(0)


def load(file, **settings):
    """The model as a worker has it."""
    name = recognise(file)
    return runtime(name).load(python_launch(name, name, file, ModelSpec(**settings), 1).load)


def texts(*values):
    return np.array([value if value is None else value.encode() for value in values], object)


def inputs(served):
    return [str(spec) for spec in served.signature.inputs]


def outputs(served):
    return [str(spec) for spec in served.signature.outputs]


def of_lightgbm(file, frame, labels, params=None, **data):
    quiet = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2, "min_data_per_group": 1, "cat_smooth": 0}
    lightgbm.train({**quiet, **(params or {})}, lightgbm.Dataset(frame, labels, **data), 10).save_model(file)
    return lightgbm.Booster(model_file=file)


def of_xgboost(file, frame, labels, params=None, **data):
    matrix = xgboost.DMatrix(frame, labels, enable_categorical=True, **data)
    booster = xgboost.train({"nthread": 1, **(params or {})}, matrix, 10)
    booster.save_model(file)
    return booster


def of_catboost(file, frame, labels, kind=catboost.CatBoostRegressor, **params):
    quiet = {"iterations": 10, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    model = kind(**{**quiet, **params}).fit(frame, labels)
    model.save_model(str(file), format=file.suffix[1:])
    return model


# -- numbers --------------------------------------------------------------------------------------------------------


def test_lightgbm_decides_by_doubles(tmp_path):
    x = np.repeat([[0.1 - 1e-10], [0.1 + 1e-10]], 50, axis=0)
    of_lightgbm(tmp_path / "m.txt", x, np.repeat([0.0, 1.0], 50), {"min_data_in_bin": 1})
    served = load(tmp_path / "m.txt")
    low, high = served.predict({"x": x[[0, -1]]})["prediction"]
    assert high - low > 0.5
    assert np.float32(x[0, 0]) == np.float32(x[-1, 0])
    assert inputs(served) == ["x: FP64[?, 1]"]
    assert outputs(served) == ["prediction: FP64[?]"]


def test_an_answer_of_lightgbm_keeps_all_its_digits(tmp_path, random):
    x = random.normal(size=(ROWS, 2))
    booster = of_lightgbm(tmp_path / "m.txt", x, 1e6 + x[:, 0])
    found = load(tmp_path / "m.txt").predict({"x": x})["prediction"]
    np.testing.assert_array_equal(found, booster.predict(x))
    assert (found != found.astype(np.float32)).any()


def test_integers_that_are_declared_are_as_exact_as_in_a_frame(tmp_path):
    ids = 2**24 + np.arange(ROWS)
    booster = of_lightgbm(tmp_path / "m.txt", pd.DataFrame({"id": ids}), ids > ids[100], {"min_data_in_bin": 1})
    served = load(tmp_path / "m.txt", inputs=(TensorSpec("x", "INT64", (-1, 1)),))
    found = served.predict({"x": ids[:, None]})["prediction"]
    np.testing.assert_array_equal(found, booster.predict(pd.DataFrame({"id": ids})))
    assert found[101] - found[100] > 0.5
    assert np.float32(ids[101]) == np.float32(ids[100])


@pytest.mark.parametrize("train", [of_xgboost, of_catboost], ids=["xgboost", "catboost"])
def test_doubles_and_great_integers_are_rounded_by_the_library(tmp_path, random, train):
    frame = pd.DataFrame({"id": 2**24 + np.arange(ROWS), "u": random.normal(size=ROWS)})
    file = tmp_path / ("m.ubj" if train is of_xgboost else "m.cbm")
    model = train(file, frame, frame["id"] % 4 + frame["u"])
    served = load(file)
    predict = model.inplace_predict if train is of_xgboost else model.predict
    found = served.predict({"x": frame.to_numpy(np.float64)})["prediction"]
    np.testing.assert_array_equal(found, predict(frame))
    assert inputs(served) == ["x: FP64[?, 2]"]


@pytest.mark.parametrize(
    ("train", "file", "expected"),
    [
        (of_lightgbm, "m.txt", InputSchema("x", ("a", "b"))),
        (of_xgboost, "m.json", InputSchema("x", ("a", "b"))),
        (of_catboost, "m.cbm", InputSchema("x", ("a", "b"))),
    ],
    ids=["lightgbm", "xgboost", "catboost"],
)
def test_missing_and_infinite_numbers_are_values_to_trees(tmp_path, random, train, file, expected):
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)), columns=["a", "b"])
    train(tmp_path / file, frame, frame["a"])
    served = load(tmp_path / file)
    assert list(served.schemas) == [expected]
    served.predict({"x": np.array([[np.nan, np.inf], [-np.inf, 1e308]])})


def test_a_linear_booster_loads_and_says_what_it_refuses(tmp_path, random):
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)), columns=["a b", "ü"])
    booster = of_xgboost(tmp_path / "m.json", frame, frame["ü"], {"booster": "gblinear"})
    served = load(tmp_path / "m.json")
    assert list(served.schemas) == [InputSchema("x", ("a b", "ü"), largest=GREATEST)]
    x = np.array([[np.nan, 1], [GREATEST, 1]])
    expected = booster.predict(xgboost.DMatrix(pd.DataFrame(x, columns=frame.columns)))
    np.testing.assert_array_equal(served.predict({"x": x})["prediction"], expected)
    with pytest.raises(xgboost.core.XGBoostError):
        booster.predict(xgboost.DMatrix(pd.DataFrame([[math.nextafter(GREATEST, math.inf), 1]], columns=frame.columns)))


@pytest.mark.parametrize("classes", [2, 3])
def test_no_rows_have_an_answer_without_rows(tmp_path, random, classes):
    x = random.normal(size=(ROWS, 2))
    labels = random.integers(0, classes, ROWS)
    of_lightgbm(tmp_path / "l.txt", x, labels, {"objective": "multiclass", "num_class": classes})
    of_xgboost(tmp_path / "x.json", x, labels, {"objective": "multi:softprob", "num_class": classes})
    of_catboost(tmp_path / "c.cbm", x, labels, catboost.CatBoostClassifier)
    for file in ("l.txt", "x.json", "c.cbm"):
        found = load(tmp_path / file).predict({"x": np.zeros((0, 2))})
        assert all(values.shape[0] == 0 for values in found.values())
        assert (0, classes) in [values.shape for values in found.values()]


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_model_of_an_array_has_no_names(tmp_path, random):
    x = random.normal(size=(ROWS, 2))
    for train, file in ((of_lightgbm, "m.txt"), (of_xgboost, "m.json"), (of_catboost, "m.cbm")):
        train(tmp_path / file, x, x[:, 0])
        assert load(tmp_path / file).schemas[0].columns == ()


def test_a_frame_of_numbered_columns_has_their_numbers_as_names(tmp_path, random):
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)))
    for train, file in ((of_lightgbm, "m.txt"), (of_xgboost, "m.json"), (of_catboost, "m.cbm")):
        train(tmp_path / file, frame, frame[0])
        assert load(tmp_path / file).schemas[0].columns == ("0", "1")


def test_names_are_the_frames_and_can_be_declared(tmp_path, random):
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)), columns=["two words", "größe"])
    booster = of_lightgbm(tmp_path / "m.txt", frame, frame["größe"])
    # The file itself has lost the blank.
    assert load(tmp_path / "m.txt").schemas[0].columns == ("two_words", "größe")
    served = load(tmp_path / "m.txt", inputs=tuple(TensorSpec(name, "FP64", (-1,)) for name in frame.columns))
    assert [schema.input for schema in served.schemas] == ["two words", "größe"]
    found = served.predict({"größe": frame["größe"].to_numpy(), "two words": frame["two words"].to_numpy()})
    np.testing.assert_array_equal(found["prediction"], booster.predict(frame))


def test_declared_inputs_that_are_not_the_models_end_the_load(tmp_path, random):
    frame = pd.DataFrame({"a": random.normal(size=ROWS), "city": pd.Categorical(random.choice(["x", "y"], ROWS))})
    of_lightgbm(tmp_path / "m.txt", frame, frame["city"].cat.codes * 1.0)
    with pytest.raises(ModelFailed, match=r"has the columns a, city\nhelp: declare one input of shape \[-1\] for each"):
        load(tmp_path / "m.txt", inputs=(TensorSpec("x", "FP64", (-1, 3)),))
    with pytest.raises(
        ModelFailed, match=r"'city: INT64\[\?\]' is declared, but column 'city' of the model holds text"
    ):
        load(tmp_path / "m.txt", inputs=(TensorSpec("city", "INT64", (-1,)), TensorSpec("a", "FP64", (-1,))))


# -- categories of LightGBM -----------------------------------------------------------------------------------------


def frame_of(random, **columns):
    return pd.DataFrame(
        {"u": random.normal(size=ROWS)}
        | {name: pd.Series(random.choice(values, ROWS)).astype(kind) for name, (values, kind) in columns.items()}
    )


def test_lightgbm_takes_the_texts_of_categories(tmp_path, random):
    frame = frame_of(random, city=(["Rome", "東京", ""], "category"))
    booster = of_lightgbm(tmp_path / "m.txt", frame, frame["city"].cat.codes * 2.0)
    served = load(tmp_path / "m.txt")
    assert inputs(served) == ["u: FP64[?]", "city: BYTES[?]"]
    assert "note" not in served.facts
    cities = ["Rome", "東京", "", None, "Paris"]
    asked = pd.DataFrame({"u": 0.0, "city": pd.Categorical(cities)}, index=range(5))
    found = served.predict({"u": np.zeros(5), "city": texts(*cities)})["prediction"]
    np.testing.assert_array_equal(found, booster.predict(asked))
    assert found[3] == found[4]
    assert len(set(found[:3])) == 3


def test_lightgbm_takes_categories_that_are_numbers_as_numbers(tmp_path, random):
    frame = frame_of(
        random, k=([10, 3, 7], "category"), f=([0.1, 1.25], "category"), b=([True, False], "category")
    )  # fmt: skip
    booster = of_lightgbm(tmp_path / "m.txt", frame, frame["k"].cat.codes + frame["f"].cat.codes * 2.0)
    served = load(tmp_path / "m.txt")
    assert inputs(served) == ["x: FP64[?, 4]"]
    found = served.predict({"x": np.array([[0, 7, 0.1, 1], [0, np.nan, 1.25, 0], [0, 4, 9, 1]])})["prediction"]
    asked = pd.DataFrame(
        {
            "u": 0.0,
            "k": pd.Categorical([7, None, 4]),
            "f": pd.Categorical([0.1, 1.25, 9]),
            "b": pd.Categorical([True, False, True]),
        }
    )
    np.testing.assert_array_equal(found, booster.predict(asked))


def test_categories_beyond_exact_floats_come_as_integers(tmp_path, random):
    frame = frame_of(random, k=([2**60, 2**60 + 1], "category"))
    of_lightgbm(tmp_path / "m.txt", frame, frame["k"].cat.codes * 1.0)
    served = load(tmp_path / "m.txt")
    assert inputs(served) == ["u: FP64[?]", "k: INT64[?]"]
    found = served.predict({"u": np.zeros(2), "k": np.array([2**60, 2**60 + 1])})["prediction"]
    assert found[1] - found[0] > 0.3


def test_columns_of_categories_that_the_file_does_not_tell_are_named_in_the_settings(tmp_path, random):
    sizes = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = frame_of(random, stars=([0, 1, 2], int), size=(["low", "mid", "high"], sizes), flag=([0, 1], int))
    booster = of_lightgbm(tmp_path / "m.txt", frame, frame["size"].cat.codes * 2.0 + frame["stars"])
    with pytest.raises(ModelFailed, match=r"1 lists of pandas categories .*\(u, stars, size, flag\)\nhelp: .*category"):
        load(tmp_path / "m.txt")
    with pytest.raises(ModelFailed, match="category_columns sizes do not match the 1 lists"):
        load(tmp_path / "m.txt", parameters={"category_columns": ["sizes"]})
    served = load(tmp_path / "m.txt", parameters={"category_columns": ["size"]})
    assert inputs(served) == ["u: FP64[?]", "stars: FP64[?]", "size: BYTES[?]", "flag: FP64[?]"]
    found = served.predict({"u": np.zeros(1), "stars": np.ones(1), "size": texts("high"), "flag": np.zeros(1)})
    asked = pd.DataFrame({"u": [0.0], "stars": [1], "size": pd.Categorical(["high"], dtype=sizes), "flag": [0]})
    np.testing.assert_array_equal(found["prediction"], booster.predict(asked))


def test_columns_of_categories_that_are_assumed_are_said(tmp_path, random):
    frame = frame_of(random, flag=([0, 1], int), city=(["Rome", "Oslo"], "category"))
    of_lightgbm(tmp_path / "m.txt", frame, frame["city"].cat.codes * 2.0 + frame["flag"])
    served = load(tmp_path / "m.txt")
    assert inputs(served) == ["u: FP64[?]", "flag: FP64[?]", "city: BYTES[?]"]
    assert "columns city are assumed" in served.facts["note"]


def test_line_ends_of_windows_do_not_end_the_process(tmp_path, random):
    frame = frame_of(random, city=(["Rome", "Oslo"], "category"))
    booster = of_lightgbm(tmp_path / "m.txt", frame, frame["city"].cat.codes * 2.0)
    (tmp_path / "w.txt").write_bytes((tmp_path / "m.txt").read_bytes().replace(b"\n", b"\r\n"))
    found = load(tmp_path / "w.txt").predict({"u": np.zeros(1), "city": texts("Rome")})["prediction"]
    assert found == booster.predict(pd.DataFrame({"u": [0.0], "city": pd.Categorical(["Rome"])}))


# -- categories of XGBoost ------------------------------------------------------------------------------------------


def test_xgboost_takes_the_texts_of_categories_and_refuses_others(tmp_path, random):
    frame = frame_of(random, city=(["Rome", "Oslo", ""], "category"), k=([10, 3], "category"))
    booster = of_xgboost(tmp_path / "m.ubj", frame, frame["city"].cat.codes * 2.0 + frame["k"].cat.codes)
    served = load(tmp_path / "m.ubj")
    assert inputs(served) == ["u: FP64[?]", "city: BYTES[?]", "k: FP64[?]"]
    cities = ["Rome", "", None, "Oslo"]
    found = served.predict({"u": np.zeros(4), "city": texts(*cities), "k": np.array([10, 3, 3, np.nan])})
    asked = pd.DataFrame({"u": 0.0, "city": pd.Categorical(cities), "k": pd.Categorical([10, 3, 3, None])})
    np.testing.assert_array_equal(found["prediction"], booster.inplace_predict(asked))
    with pytest.raises(
        InvalidInput, match=r"row 1 of column 'city': unknown category Zurich; the model was fitted with , Oslo, Rome"
    ):
        served.predict({"u": np.zeros(2), "city": texts("Oslo", "Zurich"), "k": np.array([3.0, 3.0])})
    with pytest.raises(
        InvalidInput, match=r"row 0 of column 'k': unknown category 11.0; the model was fitted with 3, 10"
    ):
        served.predict({"u": np.zeros(1), "city": texts("Oslo"), "k": np.array([11.0])})
    # XGBoost 3.2 takes what is sorted before a category for that category; a guess is no answer.
    with pytest.raises(InvalidInput, match="unknown category Lima"):
        served.predict({"u": np.zeros(1), "city": texts("Lima"), "k": np.array([3.0])})


@pytest.mark.parametrize("cities", [["Köln", "Rome"], ["éa", "b"]])
def test_texts_that_xgboost_cuts_are_not_believed(tmp_path, random, cities):
    frame = frame_of(random, city=(cities, "category"))
    booster = of_xgboost(tmp_path / "m.json", frame, frame["city"].cat.codes * 2.0)
    served = load(tmp_path / "m.json")
    assert inputs(served) == ["x: FP64[?, 2]"]
    assert served.facts["note"].startswith("categories in city are expected as codes")
    codes = frame.assign(city=frame["city"].cat.codes).to_numpy(np.float64)
    np.testing.assert_array_equal(served.predict({"x": codes})["prediction"], booster.inplace_predict(frame))


def test_codes_without_texts_stay_codes(tmp_path, random):
    x = np.stack([random.integers(0, 3, ROWS), random.normal(size=ROWS)], axis=1)
    booster = of_xgboost(tmp_path / "m.json", x, x[:, 0] == 1, feature_types=["c", "q"])
    served = load(tmp_path / "m.json")
    assert inputs(served) == ["x: FP64[?, 2]"]
    assert served.facts["note"].startswith("categories in f0 are expected as codes")
    np.testing.assert_array_equal(served.predict({"x": x})["prediction"], booster.inplace_predict(x))


def test_what_is_said_of_many_columns_is_short(tmp_path, random):
    x = random.integers(0, 3, (ROWS, 300))
    names = [f"{place} {'ü' * 200}" for place in range(300)]
    of_xgboost(tmp_path / "m.json", x, x[:, 0] == 1, feature_types=["c"] * 300, feature_names=names)
    note = load(tmp_path / "m.json").facts["note"]
    assert "and 295 more" in note
    # The data plane takes no longer fact.
    assert len(note.encode()) <= 1024


def test_xgboost_stopped_early_answers_by_its_best_trees(tmp_path, random):
    x, labels = random.normal(size=(ROWS, 2)), random.normal(size=ROWS)
    model = xgboost.XGBRegressor(n_estimators=50, n_jobs=1, early_stopping_rounds=2)
    model.fit(x, labels, eval_set=[(x, -labels)], verbose=False)
    model.save_model(tmp_path / "m.json")
    np.testing.assert_array_equal(load(tmp_path / "m.json").predict({"x": x})["prediction"], model.predict(x))
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1


# -- CatBoost -------------------------------------------------------------------------------------------------------


def test_a_catboost_model_of_one_category_takes_it_by_name(tmp_path, random):
    frame = pd.DataFrame({"city": random.choice(["Rome", "東京", ""], ROWS)})
    model = of_catboost(tmp_path / "m.cbm", frame, frame["city"].str.len(), cat_features=["city"])
    served = load(tmp_path / "m.cbm")
    assert inputs(served) == ["city: BYTES[?]"]
    assert list(served.schemas) == [InputSchema("city", missing=False)]
    cities = ["Rome", "", "Paris"]
    np.testing.assert_array_equal(
        served.predict({"city": texts(*cities)})["prediction"], model.predict(pd.DataFrame({"city": cities}))
    )


def test_what_is_missing_among_categories_is_refused_by_catboost_itself(tmp_path, random):
    frame = pd.DataFrame({"city": random.choice(["Rome", "Oslo"], ROWS)})
    model = of_catboost(tmp_path / "m.cbm", frame, frame["city"] == "Rome", cat_features=["city"])
    with pytest.raises((catboost.CatBoostError, TypeError)):
        model.predict(pd.DataFrame({"city": [None]}, dtype=object))


def test_integer_categories_come_as_texts_or_as_declared(tmp_path, random):
    frame = pd.DataFrame({"k": random.choice([10, 3, 7], ROWS), "u": random.normal(size=ROWS)})
    model = of_catboost(tmp_path / "m.cbm", frame, frame["k"] == 3, cat_features=["k"])
    expected = model.predict(frame[:20])
    declared = load(tmp_path / "m.cbm", inputs=(TensorSpec("k", "INT64", (-1,)), TensorSpec("u", "FP64", (-1,))))
    batch = {"k": frame["k"].to_numpy()[:20], "u": frame["u"].to_numpy()[:20]}
    np.testing.assert_array_equal(declared.predict(batch)["prediction"], expected)
    served = load(tmp_path / "m.cbm")
    assert inputs(served) == ["k: BYTES[?]", "u: FP64[?]"]
    batch["k"] = texts(*map(str, batch["k"]))
    np.testing.assert_array_equal(served.predict(batch)["prediction"], expected)


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [
        ([0, 1], "INT64"),
        ([2**40, 5], "INT64"),
        ([False, True], "BOOL"),
        ([0.1, 2.5], "FP64"),
        (["no", "はい"], "BYTES"),
        ([0, 1, 2], "INT64"),
        (["a", "b", "c"], "BYTES"),
    ],
)
def test_labels_are_of_the_type_that_classes_are(tmp_path, random, classes, datatype):
    x = random.normal(size=(ROWS, 2))
    labels = np.array(classes)[np.digitize(x[:, 0], [0, 0.7][: len(classes) - 1])]
    model = of_catboost(tmp_path / "m.cbm", x, labels, catboost.CatBoostClassifier)
    served = load(tmp_path / "m.cbm")
    assert outputs(served) == [f"label: {datatype}[?]", f"probabilities: FP64[?, {len(classes)}]"]
    found = served.predict({"x": x})
    assert found["label"].tolist() == model.predict(x).reshape(-1).tolist()
    np.testing.assert_array_equal(found["probabilities"], model.predict_proba(x))


@pytest.mark.parametrize(
    ("loss", "columns"),
    [
        ("Poisson", 0),
        ("Tweedie:variance_power=1.5", 0),
        ("RMSEWithUncertainty", 2),
        ("MultiQuantile:alpha=0.1,0.9", 2),
    ],
)
def test_a_regressor_answers_by_the_formula_of_its_loss(tmp_path, random, loss, columns):
    x = random.normal(size=(ROWS, 2))
    model = of_catboost(tmp_path / "m.cbm", x, np.abs(x[:, 0]), loss_function=loss)
    served = load(tmp_path / "m.cbm")
    assert outputs(served) == [f"prediction: FP64[?{f', {columns}' if columns else ''}]"]
    np.testing.assert_array_equal(served.predict({"x": x})["prediction"], model.predict(x))


def test_several_labels_of_a_row_are_all_answered(tmp_path, random):
    x = random.normal(size=(ROWS, 2))
    model = of_catboost(
        tmp_path / "m.cbm", x, (x > 0) * 1, catboost.CatBoostClassifier, loss_function="MultiLogloss"
    )  # fmt: skip
    found = load(tmp_path / "m.cbm").predict({"x": x})
    np.testing.assert_array_equal(found["label"], model.predict(x))
    assert found["label"].shape == found["probabilities"].shape == (ROWS, 2)


def test_embeddings_are_of_the_length_that_is_declared(tmp_path, random):
    places = random.normal(size=(ROWS, 4))
    frame = pd.DataFrame({"u": random.normal(size=ROWS), "place": list(places)})
    labels = (places[:, 3] > 0) * 1
    model = of_catboost(tmp_path / "m.cbm", frame, labels, catboost.CatBoostClassifier, embedding_features=["place"])
    with pytest.raises(ModelFailed, match="length of the embeddings in column 'place'") as fault:
        load(tmp_path / "m.cbm")
    assert "  - {name: u, datatype: FP64, shape: [-1]}\n  - {name: place, datatype: FP64, shape: [-1, 64]}" in str(
        fault.value
    )
    declared = (TensorSpec("u", "FP64", (-1,)), TensorSpec("place", "FP32", (-1, 4)))
    served = load(tmp_path / "m.cbm", inputs=declared)
    found = served.predict({"u": frame["u"].to_numpy(), "place": places.astype(np.float32)})
    np.testing.assert_array_equal(found["probabilities"], model.predict_proba(frame))


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begin", "expected"),
    [
        ("m.json", b'{"learner":{"attributes":{}', "xgboost"),
        ("m.json", b'{\n    "learner": {', "xgboost"),
        ("m.json", b'{"version":[3,2,0],"learner":{', "xgboost"),
        ("m.bst", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner", "xgboost"),
        ("m.model", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner", "xgboost"),
        ("m.model", b"tree\nversion=v4\n", "lightgbm"),
        ("m.bst", b"tree\r\nversion=v4\r\n", "lightgbm"),
        ("m.model", b"CBM1H \x00\x00", "catboost"),
        ("m.bin", b"CBM1H \x00\x00", "catboost"),
        ("m.json", b'{\n  "ctr_data":\n    {\n', "catboost"),
        ("m.json", b'{"features_info":{"float_features":[{"feature_id":"learner"', "catboost"),
        ("m.json", b'{"name":"learner"}', None),
        ("m.json", b'{"learners":{}}', None),
        ("m.bin", b"\x00\x00\x00\x00", None),
        ("m.model", b"binf", None),
    ],
)
def test_the_first_bytes_say_whose_file_it_is(tmp_path, name, begin, expected):
    (tmp_path / name).write_bytes(begin)
    assert recognise(tmp_path / name) == expected


def test_catboost_models_with_categories_load_from_json_and_under_any_ending(tmp_path, random):
    frame = pd.DataFrame({"city": random.choice(["Rome", "Oslo"], ROWS), "u": random.normal(size=ROWS)})
    model = of_catboost(tmp_path / "m.json", frame, frame["u"], cat_features=["city"])
    model.save_model(str(tmp_path / "m.bin"))
    batch = {"city": texts("Rome", "Oslo"), "u": np.array([1.0, -1.0])}
    expected = model.predict(pd.DataFrame({"city": ["Rome", "Oslo"], "u": [1.0, -1.0]}))
    for name in ("m.json", "m.bin"):
        np.testing.assert_allclose(load(tmp_path / name).predict(batch)["prediction"], expected, rtol=1e-12)


def test_a_file_of_xgboost_that_is_laid_out_anew_is_the_same_model(tmp_path, random):
    x = random.normal(size=(ROWS, 2))
    booster = of_xgboost(tmp_path / "m.json", x, x[:, 0])
    (tmp_path / "p.json").write_text(json.dumps(json.loads((tmp_path / "m.json").read_text()), indent=4))
    found = load(tmp_path / "p.json").predict({"x": x})["prediction"]
    np.testing.assert_array_equal(found, booster.inplace_predict(x))


# -- the document ---------------------------------------------------------------------------------------------------


def documented():
    """The table of what boosters take: the cells of each library, by what its line is about."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md").read_text()
    section = text.split("## Inputs and outputs of boosters\n")[1].split("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    head, _, *rows = lines
    return {library: {row[0]: row[place] for row in rows} for place, library in enumerate(head) if place}


@pytest.mark.parametrize(
    ("library", "train", "file"),
    [("LightGBM", of_lightgbm, "m.txt"), ("XGBoost", of_xgboost, "m.json"), ("CatBoost", of_catboost, "m.cbm")],
)
def test_the_document_says_what_the_library_takes(tmp_path, random, library, train, file):
    told = documented()[library]
    frame = frame_of(random, city=(["Rome", "Oslo"], "category"), k=([10, 3], "category"))
    more = {"cat_features": ["city", "k"]} if train is of_catboost else {}
    train(tmp_path / file, frame, frame["city"].cat.codes * 2.0 + frame["k"].cat.codes, **more)
    served = load(tmp_path / file)
    types = {spec.name: spec.datatype for spec in (*served.signature.inputs, *served.signature.outputs)}
    schemas = {schema.input: schema for schema in served.schemas}
    for line, name in {
        "numbers, booleans": "u",
        "text categories": "city",
        "integer categories": "k",
        "outputs": "prediction",
    }.items():
        assert told[line].startswith(types[name]), line
    assert told["a missing number"].startswith("accepted" if schemas["u"].missing else "rejected")
    assert told["infinity"].startswith("accepted" if schemas["u"].largest is None else "rejected")
    assert told["a missing category"].startswith("missing" if schemas["city"].missing else "rejected")

    def ask(city):
        k = texts("10") if train is of_catboost else np.array([10.0])
        return served.predict({"u": np.zeros(1), "city": texts(city), "k": k})["prediction"].item()

    unknown = told["an unknown category"]
    if unknown.startswith("rejected"):
        with pytest.raises(InvalidInput):
            ask("Paris")
    else:
        assert unknown.startswith(("missing", "accepted"))
        assert (unknown.startswith("missing") and ask("Paris") == ask(None)) or ask("Paris") == ask("Berlin")
