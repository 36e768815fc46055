"""What is read from a fitted scikit-learn estimator: columns, their types, what they refuse, and what can't be known."""

from __future__ import annotations

import hashlib
import operator
import warnings
from functools import partial

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import skops.io
from sklearn.cluster import DBSCAN, Birch
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import SparsePCA
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, StackingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neighbors import LocalOutlierFactor, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import LinearSVC

from inferd.errors import Forbidden, InvalidInput, ModelFailed
from inferd.runtimes import sklearn, sklearn_outputs
from inferd.runtimes.sklearn_files import untrusted
from inferd.spec.settings import ModelSpec
from inferd.types import TensorSpec
from inferd.worker.batching import decide_batching

ROWS = 60
FP64_MAX = float(np.finfo(np.float64).max)


@pytest.fixture(autouse=True)
def filters():
    """A worker keeps what it sets; a test must not."""
    with warnings.catch_warnings():
        yield


@pytest.fixture
def served(tmp_path):
    """The runtime of a fitted estimator, from its file."""

    def serve(estimator, **settings):
        if "pickled" in settings:
            del settings["pickled"]
            file = tmp_path / "model.joblib"
            joblib.dump(estimator, file)
            settings["trusted_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            file = tmp_path / "model.skops"
            skops.io.dump(estimator, file)
        spec = ModelSpec(batch_rows_max=32, **settings)
        return sklearn.load(sklearn.compose(file, spec, 1).load)

    return serve


def table():
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": random.uniform(18, 90, ROWS),
            "income": random.lognormal(10, 1, ROWS),
            "city": random.choice(["Oslo", "Łódź"], ROWS),
            "plan": random.choice(["free", "team"], ROWS),
            "store": random.integers(0, 5, ROWS),
        }
    )


def kinds():
    return np.arange(ROWS) % 2


def inputs(model):
    return {spec.name: f"{spec.datatype}{list(spec.shape)}" for spec in model.signature.inputs}


def outputs(model):
    return {spec.name: f"{spec.datatype}{list(spec.shape)}" for spec in model.signature.outputs}


def ignoring():
    return OneHotEncoder(handle_unknown="ignore")


def of(*transformers, **settings):
    return ColumnTransformer([(str(place), *one) for place, one in enumerate(transformers)], **settings)


# -- types and names -------------------------------------------------------------------------------------------------


def test_numbers_are_one_matrix_with_the_names_of_the_frame(served):
    model = served(LinearRegression().fit(table()[["age", "income"]], kinds()))
    assert inputs(model) == {"x": "FP64[-1, 2]"}
    assert model.schemas[0].columns == ("age", "income")
    assert outputs(model) == {"prediction": "FP64[-1]"}


def test_a_model_of_an_array_has_no_names(served):
    model = served(LinearRegression().fit(table()[["age", "income"]].to_numpy(), kinds()))
    assert inputs(model) == {"x": "FP64[-1, 2]"}
    assert model.schemas[0].columns == ()


def test_text_is_known_by_its_categories_its_imputer_or_its_vectorizer(served):
    frame = table().assign(note="some words")
    filled = SimpleImputer(strategy="most_frequent")
    steps = of((ignoring(), ["city"]), (filled, ["plan"]), (TfidfVectorizer(), "note"), (StandardScaler(), ["age"]))
    model = served(steps.set_params(sparse_threshold=0).fit(frame))
    assert inputs(model) == {"age": "FP64[-1]", "city": "BYTES[-1]", "plan": "BYTES[-1]", "note": "BYTES[-1]"}


def test_columns_of_an_array_of_objects_are_called_as_scikit_learn_does(served):
    rows = table()[["city", "age"]].to_numpy(object)
    model = served(make_pipeline(of((ignoring(), [0]), (StandardScaler(), [1])), Ridge()).fit(rows, kinds()))
    assert inputs(model) == {"x0": "BYTES[-1]", "x1": "FP64[-1]"}


@pytest.mark.parametrize(
    ("categories", "datatype"),
    [
        (np.array([0, 1]), "FP64"),
        (np.array([-(2**53), 2**53]), "FP64"),
        (np.array([0, 2**53 + 1]), "INT64"),
        (np.array([0, 2**63 + 1], np.uint64), "UINT64"),
        (np.array([2**40, 1], np.uint64), "FP64"),
        (np.array([0.1, 0.2], np.float32), "FP32"),
        (np.array([0.1, np.nan]), "FP64"),
        (np.array([False, True]), "BOOL"),
        (np.array(["a", "b"]), "BYTES"),
        (np.array([1, None], object), "FP64"),
        (np.array([True, None], object), "FP64"),
        (np.array([1, 2**53 + 1], object), "INT64"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_categories_give_the_type_in_which_each_is_its_own(served, categories, datatype, named):
    column = np.resize(categories, ROWS).astype(categories.dtype).reshape(-1, 1)
    rows = pd.DataFrame(column, columns=["c"]) if named else column
    encoder = OrdinalEncoder().fit(rows)
    model = served(encoder)
    assert model.signature.inputs[0].datatype == datatype
    batch = model.example
    (sent,) = batch.values()
    assert model.predict(batch)["transformed"].shape == (len(sent), 1)
    assert decide_batching(model, {"batching": "auto", "batch_rows_max": 4, "tolerance": TOLERANCE}).batched


TOLERANCE = {"absolute": 0.0, "relative": 0.0}


def test_neighbours_above_2_to_the_53_keep_their_own_codes(served):
    ids = np.array([[2**53], [2**53 + 1], [2**53 + 2]] * 20)
    model = served(OrdinalEncoder().fit(ids))
    assert model.predict({"x": ids[:3]})["transformed"].tolist() == [[0], [1], [2]]


def test_columns_that_no_step_reads_are_ignored(served):
    model = served(make_pipeline(of((StandardScaler(), ["age"]), ("drop", ["income"])), Ridge()).fit(table(), kinds()))
    assert inputs(model) == {"x": "FP64[-1, 1]"}
    assert set(model.ignored_columns) == {"income", "city", "plan", "store"}
    assert model.predict({"x": np.array([[40.0]])})["prediction"].shape == (1,)


def test_dropped_columns_of_an_array_keep_their_places(served):
    model = served(make_pipeline(of((StandardScaler(), [2])), Ridge()).fit(np.arange(180.0).reshape(ROWS, 3), kinds()))
    assert inputs(model) == {"x": "FP64[-1, 3]"}
    whole = model.predict({"x": np.array([[np.nan, np.inf, 3.0]])})
    assert np.isfinite(whole["prediction"]).all()


def test_a_frame_is_filled_up_where_a_step_counts_its_columns(served):
    inner = make_pipeline(of((StandardScaler(), [0])), LogisticRegression())
    model = served(BaggingClassifier(inner, 2).fit(table(), kinds()))
    assert inputs(model) == {"x": "FP64[-1, 1]"}
    assert model.predict({"x": np.array([[40.0]])})["probabilities"].shape == (1, 2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: make_pipeline("passthrough", inner),
        FrozenEstimator,
        lambda inner: StackingClassifier([("one", inner)], cv=2),
        lambda inner: BaggingClassifier(inner, 2, max_features=1.0),
    ],
)
def test_columns_are_followed_into_estimators_in_estimators(served, wrap):
    inner = make_pipeline(ignoring(), LogisticRegression())
    frame = table()[["city", "plan"]]
    model = served(wrap(inner.fit(frame, kinds())).fit(frame, kinds()))
    assert inputs(model) == {"city": "BYTES[-1]", "plan": "BYTES[-1]"}


def test_a_selector_and_a_column_used_twice_are_resolved(served):
    frame = table()
    steps = of(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (ignoring(), ["store"]),
        (ignoring(), make_column_selector(pattern="^c")),
    )
    model = served(make_pipeline(steps, Ridge()).fit(frame, kinds()))
    assert inputs(model) == {"age": "FP64[-1]", "income": "FP64[-1]", "city": "BYTES[-1]", "store": "FP64[-1]"}
    assert model.ignored_columns == ("plan",)


def test_a_model_of_texts_takes_text_through_any_wrapper(served):
    texts = ["good day", "bad day"] * 30
    for estimator in (
        make_pipeline(TfidfVectorizer(), LinearSVC()),
        make_pipeline(make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char")), LinearSVC()),
    ):
        model = served(estimator.fit(texts, kinds()))
        assert inputs(model) == {"text": "BYTES[-1]"}
        assert outputs(model) == {"label": "INT64[-1]", "decision": "FP64[-1]"}


def test_labels_are_encoded_as_they_were_fitted(served):
    model = served(LabelEncoder().fit(["no", "yes"]))
    assert inputs(model) == {"y": "BYTES[-1]"}
    assert model.predict({"y": np.array([b"yes"], object)})["transformed"].tolist() == [1]


def test_names_do_not_warn_at_each_request(served, recwarn):
    by_name = served(LinearRegression().fit(table()[["age"]], kinds()))
    recwarn.clear()
    by_name.predict({"x": np.ones((1, 1))})
    assert not recwarn.list


# -- types that can't be known ---------------------------------------------------------------------------------------


def test_a_column_that_only_users_code_reads_is_named_with_the_lines_that_declare_it(served):
    fill = FunctionTransformer(operator.methodcaller("fillna", {"city": "Oslo"}))
    steps = of((ignoring(), ["city"]), (StandardScaler(), ["age"]))
    estimator = make_pipeline(fill, steps, Ridge()).fit(table()[["city", "age"]], kinds())
    with pytest.raises(ModelFailed) as raised:
        served(estimator, pickled=True)
    assert "unknown types of columns 'city', 'age'" in str(raised.value)
    assert "methodcaller" in str(raised.value)
    assert '  - {name: "city", datatype: FP64, shape: [-1]}  # BYTES for text' in str(raised.value)
    declared = (TensorSpec("city", "BYTES", (-1,)), TensorSpec("age", "FP64", (-1,)))
    model = served(estimator, pickled=True, inputs=declared)
    assert inputs(model) == {"city": "BYTES[-1]", "age": "FP64[-1]"}
    missing = model.predict({"city": np.array([None], object), "age": np.array([40.0])})
    named = model.predict({"city": np.array([b"Oslo"], object), "age": np.array([40.0])})
    assert missing["prediction"] == named["prediction"]


def test_known_columns_are_in_the_lines_with_their_types(served):
    steps = of((ignoring(), ["city"]), ("passthrough", ["plan"]))
    with pytest.raises(ModelFailed) as raised:
        served(steps.fit(table()))
    assert "unknown type of column 'plan': it only goes to the output" in str(raised.value)
    assert '  - {name: "city", datatype: BYTES, shape: [-1]}\n' in str(raised.value)


def test_a_matrix_that_only_users_code_reads_is_declared_as_one(served):
    estimator = make_pipeline(FunctionTransformer(operator.neg), Ridge()).fit(np.ones((ROWS, 3)), kinds())
    with pytest.raises(ModelFailed, match=r'- \{name: "x", datatype: FP64, shape: \[-1, 3\]\}'):
        served(estimator, pickled=True)
    model = served(estimator, pickled=True, inputs=(TensorSpec("x", "FP64", (-1, 3)),))
    assert outputs(model) == {"prediction": "FP64[-1]"}


def test_functions_of_numpy_take_numbers(served):
    model = served(make_pipeline(FunctionTransformer(np.log1p), Ridge()).fit(table()[["age"]], kinds()))
    assert inputs(model) == {"x": "FP64[-1, 1]"}


def test_what_a_missing_indicator_takes_is_not_known_by_it_alone(served):
    frame = table()[["age"]].mask(np.arange(ROWS)[:, None] % 7 == 0)
    with pytest.raises(ModelFailed, match="MissingIndicator"):
        served(MissingIndicator().fit(frame))
    both = make_pipeline(make_union(SimpleImputer(), MissingIndicator()), Ridge()).fit(frame, kinds())
    assert inputs(served(both)) == {"x": "FP64[-1, 1]"}


def test_categories_that_the_protocol_has_no_type_for_are_named(served):
    frame = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2021-01-01"] * 30)})
    with pytest.raises(ModelFailed, match=r"'day' \(datetime\)"):
        served(make_pipeline(OneHotEncoder(), Ridge()).fit(frame, kinds()))


def test_a_booster_with_pandas_categories_is_sent_to_its_own_file(served):
    frame = table()[["city"]].astype("category")
    booster = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(frame, kinds())
    with pytest.raises(ModelFailed, match="pandas categories of a lightgbm booster"):
        served(booster)


def test_declared_inputs_must_be_the_models_columns(served):
    estimator = LinearRegression().fit(table()[["age", "income"]], kinds())
    with pytest.raises(ModelFailed, match="unknown columns in inputs: 'size'; the model has age, income"):
        served(estimator, inputs=(TensorSpec("size", "FP64", (-1,)),))
    model = served(estimator, inputs=(TensorSpec("income", "FP32", (-1,)), TensorSpec("age", "FP32", (-1,))))
    row = {"income": np.array([9.0], np.float32), "age": np.array([5.0], np.float32)}
    assert model.predict(row)["prediction"] == estimator.predict(pd.DataFrame({"age": [5.0], "income": [9.0]}))


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "missing", "largest"),
    [
        (LogisticRegression(), False, FP64_MAX),
        (HistGradientBoostingClassifier(max_iter=2), True, None),
        (make_pipeline(SimpleImputer(), LogisticRegression()), True, FP64_MAX),
        (BaggingClassifier(n_estimators=2), True, float(np.finfo(np.float32).max) + 2.0**103),
    ],
)
def test_what_a_model_refuses_is_found_by_asking_it(served, estimator, missing, largest):
    (schema,) = served(estimator.fit(table()[["age", "income"]], kinds())).schemas
    assert schema.missing == missing
    assert schema.largest == (largest if largest is None or largest == FP64_MAX else np.nextafter(largest, 0))


def test_the_limit_of_fp32_is_exact(served):
    estimator = BaggingClassifier(n_estimators=2).fit(table()[["age"]], kinds())
    largest = served(estimator).schemas[0].largest
    estimator.predict([[largest]])
    with pytest.raises(ValueError, match=r"infinity|too large"):
        estimator.predict([[np.nextafter(largest, np.inf)]])


def test_missing_text_is_taken_where_the_encoder_knows_it_or_ignores_it(served):
    frame = table()[["city", "plan", "age"]]
    frame.loc[0, "city"] = np.nan
    steps = of((OneHotEncoder(), ["city"]), (OrdinalEncoder(), ["plan"]), (ignoring(), ["age"]))
    schemas = {schema.input: schema for schema in served(make_pipeline(steps, Ridge()).fit(frame, kinds())).schemas}
    assert (schemas["city"].missing, schemas["plan"].missing, schemas["age"].missing) == (True, False, True)


@pytest.mark.parametrize("value", [None, np.nan])
def test_missing_text_reaches_the_encoder_as_it_was_fitted(served, value):
    frame = pd.DataFrame({"city": pd.Series([value, "Oslo"] * 30, dtype=object)})
    encoder = OrdinalEncoder().fit(frame)
    model = served(encoder)
    found = model.predict({"city": np.array([None, b"Oslo"], object)})["transformed"]
    # None is a category like others to this encoder, NaN is none.
    assert np.array_equal(found, encoder.transform(frame[:2]), equal_nan=True)
    assert np.isnan(found[0, 0]) == (value is not None)


def test_one_column_of_a_matrix_may_refuse_what_the_others_take(served):
    steps = of((make_pipeline(SimpleImputer(), StandardScaler()), ["age"]), (StandardScaler(), ["income"]))
    model = served(make_pipeline(steps, LogisticRegression()).fit(table(), kinds()))
    assert model.schemas[0].missing
    model.predict({"x": np.array([[np.nan, 1.0]])})
    with pytest.raises(InvalidInput, match=r"row 1, column 1 \('income'\) of input 'x' is missing"):
        model.predict({"x": np.array([[1.0, 1.0], [1.0, np.nan]])})


def test_the_number_of_runs_does_not_grow_with_the_columns(served, monkeypatch):
    asked = []
    answers = sklearn_outputs.Outputs.accepts
    monkeypatch.setattr(sklearn_outputs.Outputs, "accepts", lambda *args: asked.append(1) or answers(*args))
    names = [f"c{place}" for place in range(40)]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 40)), columns=names)
    steps = of(*((make_pipeline(SimpleImputer(), StandardScaler()), [name]) for name in names))
    served(make_pipeline(steps, Ridge()).fit(frame, kinds()))
    assert len(asked) < 20


def test_the_librarys_own_refusal_is_passed_on(served):
    model = served(OrdinalEncoder().fit(table()[["city"]]))
    with pytest.raises(InvalidInput, match=r"the model can't use this input: Found unknown categories \['Atlantis'\]"):
        model.predict({"city": np.array([b"Atlantis"], object)})


def test_a_model_that_takes_few_rows_is_tried_near_those_it_was_fitted_with(served):
    far = table()[["age"]] + 1e6
    model = served(make_pipeline(StandardScaler(), RadiusNeighborsClassifier(0.5)).fit(far, kinds()))
    assert outputs(model) == {"label": "INT64[-1]", "probabilities": "FP64[-1, 2]"}


# -- answers ---------------------------------------------------------------------------------------------------------


def test_a_row_alone_is_answered_with_the_dimension_of_rows(served):
    model = served(SparsePCA(2, max_iter=3).fit(table()[["age", "income"]]))
    assert model.predict({"x": np.ones((1, 2))})["transformed"].shape == (1, 2)


def test_steps_that_write_into_their_input_do_not_change_the_second_answer(served):
    scaler = StandardScaler(copy=False)
    inner = make_pipeline(scaler, LogisticRegression()).fit(table()[["age"]].to_numpy(copy=True), kinds())
    model = served(
        StackingClassifier([("one", inner)], cv="prefit", passthrough=True).fit(
            table()[["age"]].to_numpy(copy=True), kinds()
        )
    )
    x = np.array([[30.0], [60.0]])
    found = model.predict({"x": x.copy()})
    assert np.array_equal(found["label"], model.estimator.predict(x.copy()))
    assert np.array_equal(found["probabilities"], model.estimator.predict_proba(x.copy()))


def test_a_sparse_answer_that_is_too_large_is_refused_with_the_rows_that_fit(served, monkeypatch):
    monkeypatch.setattr(sklearn_outputs, "_DENSE_MAX_BYTES", 8 * 1024)
    model = served(HashingVectorizer(n_features=256))
    text = np.array([b"a b"] * 5, object)
    assert model.predict({"text": text[:4]})["transformed"].shape == (4, 256)
    with pytest.raises(InvalidInput, match="help: send at most 4 rows at once, or set batch_rows_max: 4"):
        model.predict({"text": text})


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (DBSCAN().fit(np.ones((4, 1))), "contains DBSCAN, which has neither predict"),
        (LocalOutlierFactor(2).fit(np.ones((9, 1))), "novelty=True"),
        (DictVectorizer().fit([{"a": 1}]), "DictVectorizer takes dictionaries"),
        (make_pipeline(StandardScaler(), Ridge()), "contains Pipeline, which is not fitted"),
        ({"model": 1}, "contains dict, which is not an estimator"),
    ],
)
def test_what_can_not_be_served_says_why(served, estimator, message):
    with pytest.raises(ModelFailed, match=message):
        served(estimator)


def test_distributions_of_a_search_are_not_trusted_since_they_run_their_own_text(served):
    search = RandomizedSearchCV(Ridge(), {"alpha": scipy.stats.loguniform(0.1, 1)}, n_iter=2, cv=2)
    search.fit(table()[["age"]], kinds())
    with pytest.raises(Forbidden, match="best_estimator_"):
        served(search)
    served(search.best_estimator_)


def test_metrics_of_a_search_are_trusted(tmp_path):
    for name in get_scorer_names():
        skops.io.dump(get_scorer(name), tmp_path / "scorer.skops")
        assert untrusted(tmp_path / "scorer.skops") == [], name


def test_a_partial_of_a_function_that_is_not_trusted_is_not_either(served):
    estimator = FunctionTransformer(partial(np.load, allow_pickle=True)).fit(np.ones((2, 2)))
    with pytest.raises(Forbidden, match=r"numpy\.load"):
        served(estimator)


def test_a_pickle_of_what_skops_does_not_save_is_served(served):
    model = served(Birch(n_clusters=2).fit(table()[["age"]]), pickled=True)
    assert outputs(model)["label"] in ("INT64[-1]", "INT32[-1]")


def test_a_target_encoder_takes_integers_and_texts(served):
    model = served(make_pipeline(TargetEncoder(), Ridge()).fit(table()[["store", "city"]], kinds()))
    assert inputs(model) == {"store": "FP64[-1]", "city": "BYTES[-1]"}
