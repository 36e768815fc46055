"""MLflow folders: what functions return is served as MLflow serves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import Schema
from mlflow.types.schema import ColSpec
from sklearn.linear_model import LogisticRegression

from inferd.errors import ModelFailed
from inferd.worker.batching import decide_batching

if TYPE_CHECKING:
    from collections.abc import Callable
from outside.mlflow_folders import (
    FRAME,
    YES,
    function,
    log,
    same,
    sent,
    served,
)

pytestmark = pytest.mark.usefixtures("unpickling")


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
    assert decide_batching(model, load).batching_off is not None


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
        (lambda rows: pd.DataFrame({"s": ["x", None]}), "missing text in row 1"),
        (lambda rows: pd.to_datetime(pd.Series(["2020-01-01", None])), "missing date in row 1"),
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


DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md"


def test_the_document_says_what_becomes_of_every_type_of_a_column():
    from inferd.runtimes.mlflow_columns import Columns
    from inferd.runtimes.mlflow_folder import _IN_JSON, _SCALARS, Column

    section = DOCUMENT.read_text().partition("## Inputs and outputs of MLflow folders\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): (type_, missing) for names, type_, _, missing in rows for name in names.split(", ")}
    assert set(listed) == {*_SCALARS, *_IN_JSON, "array"}
    for name, (type_, missing) in listed.items():
        kind, depth = ("double", 1) if name == "array" else (name, 0)
        rows_of = Columns([Column("a", kind, True, depth, {}), Column("b", "string", True, 0, {})], None)
        spec, schema = rows_of.inputs[0], rows_of.schemas[0]
        assert type_.startswith(spec.datatype) or (name == "array" and len(spec.shape) == 2)
        assert (missing != "rejected") == schema.missing
