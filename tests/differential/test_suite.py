"""The suite itself: there are cases enough, and it sees what differs."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pytest

from differential.case import Case
from differential.compare import differences
from differential.rows import Questions
from differential.suite import entries
from differential.ways import Got, Reply
from inferd.runtimes.registry import NAMES

OF_TABLES = ("sklearn", "xgboost", "lightgbm", "catboost")


@pytest.mark.parametrize("runtime", [*NAMES, "triton"])
def test_every_runtime_has_its_cases(runtime: str) -> None:
    own = [entry for entry in entries() if entry.runtime == runtime]
    assert len(own) >= (25 if runtime in OF_TABLES else 8)
    assert own[0].heavy or 2 <= sum(entry.slice for entry in own) <= 5


def test_no_two_cases_have_one_name() -> None:
    ids = [entry.id for entry in entries()]
    assert len(set(ids)) == len(ids)


def case(**more: object) -> Case:
    return Case(Path(), {}, lambda rows: {}, relative=1e-6, absolute=0, **more)


def found(expected: dict[str, np.ndarray] | None, reply: Reply, one: Case | None = None, rows: int = 2) -> list[str]:
    return [difference.what for difference in differences(one or case(), range(rows), expected, reply)]


def of(**arrays: object) -> Reply:
    return Reply({name: Got.of(np.asarray(array)) for name, array in arrays.items()})


def test_equal_answers_do_not_differ() -> None:
    y = np.array([np.nan, 1e9], np.float32)
    assert found({"y": y}, of(y=y)) == []
    assert found({"y": y}, of(y=y * np.float32(1 + 5e-7))) == []
    assert found({"y": np.array(["a", "ü"])}, of(y=np.array(["a", "ü"]))) == []
    assert found(None, Reply(refusal="no")) == []


@pytest.mark.parametrize(
    ("expected", "reply", "what"),
    [
        ({"y": np.float32([1, 2])}, of(y=np.float32([1, 2.00001])), ["'y'"]),
        ({"y": np.float32([1, np.nan])}, of(y=np.float32([1, 0])), ["'y'"]),
        ({"y": np.float32([1, np.inf])}, of(y=np.float32([1, -np.inf])), ["'y'"]),
        ({"y": np.array([2**53, 1])}, of(y=np.array([2**53 + 1, 1])), ["'y'"]),
        ({"y": np.array(["a", "b"])}, of(y=np.array(["a", "c"])), ["'y'"]),
        ({"y": np.float64([1, 2])}, of(y=np.float32([1, 2])), ["type of 'y'"]),
        ({"y": np.float32([1, 2])}, of(y=np.float32([[1], [2]])), ["shape of 'y'"]),
        ({"y": np.float32([1, 2])}, of(y=np.float32([1, 2]), z=np.float32([1, 2])), ["names of outputs"]),
        ({"y": np.float32([1, 2])}, Reply(refusal="no"), ["answered or refused"]),
        ({"y": np.float32([1, 2])}, Reply(fault="500"), ["answered or refused"]),
        (None, of(y=np.float32([1, 2])), ["answered or refused"]),
        (None, Reply(fault="500"), ["answered or refused"]),
    ],
)
def test_every_other_answer_does(expected: dict[str, np.ndarray] | None, reply: Reply, what: list[str]) -> None:
    assert found(expected, reply) == what


def test_a_label_may_differ_where_two_classes_are_equally_probable() -> None:
    tied = case(outputs={"label": "probabilities"})
    expected = {"label": np.array([0, 1]), "probabilities": np.array([[0.5, 0.5], [0.4, 0.6]])}
    probabilities = expected["probabilities"]
    assert found(expected, of(label=np.array([1, 1]), probabilities=probabilities), tied) == []
    assert found(expected, of(label=np.array([0, 0]), probabilities=probabilities), tied) == ["'label'"]


def metadata(*inputs: tuple[str, str, list[int]]) -> dict[str, object]:
    return {"inputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in inputs]}


def test_rows_go_out_in_the_models_types_or_their_own() -> None:
    frame = pd.DataFrame({"k": np.array([1, 2**53 + 1]), "t": ["a", None], "f": [0.5, np.nan]})
    described = metadata(("k", "FP64", [-1]), ("t", "BYTES", [-1]), ("f", "FP32", [-1]))
    questions = Questions(frame, described)
    assert questions.unsayable.tolist() == [False, True]
    models, own = (questions.tensors([0], own=own) for own in (False, True))
    assert [one.datatype for one in models] == ["FP64", "BYTES", "FP32"]
    # FP64 is not narrowed: the client would send FP32.
    assert [one.datatype for one in own] == ["INT64", "BYTES", "FP32"]
    assert questions.tensors([1], own=True)[1].array.tolist() == [None]
    assert questions.plain([0]) == {"k": 1.0, "t": "a", "f": 0.5}


def test_rows_of_arrays_go_out_as_they_are() -> None:
    rows = {"x": np.array([[1.5], [2]], ml_dtypes.bfloat16)}
    (sent,) = Questions(rows, metadata(("x", "BF16", [-1, 1]))).tensors([1])
    assert (sent.datatype, sent.array.tolist()) == ("BF16", [[2.0]])
    assert Questions(rows, metadata(("x", "BF16", [1]))).lone
    assert not Questions(rows, metadata(("x", "BF16", [-1, 1]))).lone
