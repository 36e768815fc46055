"""Rows of a table in the types that a library was fitted with."""

import numpy as np
import pandas as pd
import pytest

from inferd.errors import InvalidInput
from inferd.runtimes.tables import Column, Table

FP32_MAX = float(np.finfo(np.float32).max)


def matrix(*columns, **settings):
    return Table(columns, matrix=True, **settings)


def test_a_matrix_takes_a_missing_value_where_any_of_its_columns_does():
    table = matrix(Column("a", missing=True), Column("b", missing=False))
    assert table.schemas[0].missing
    assert not matrix(Column("a", missing=False), Column("b", missing=False)).schemas[0].missing


def test_a_matrix_takes_what_the_column_that_takes_most_does():
    assert matrix(Column("a", largest=1.0), Column("b", largest=2.0)).schemas[0].largest == 2
    assert matrix(Column("a", largest=1.0), Column("b")).schemas[0].largest is None
    assert matrix(Column("a"), Column("b"), largest=3.0).schemas[0].largest == 3


def test_a_column_that_takes_less_than_its_matrix_is_named_with_the_row():
    table = matrix(Column("age"), Column("fare", missing=False, largest=FP32_MAX))
    taken = np.array([[np.nan, 1.0], [np.inf, FP32_MAX]])
    assert table.array({"x": taken}) is taken
    with pytest.raises(InvalidInput, match=r"row 1, column 1 \('fare'\) of input 'x' is missing \(NaN\)"):
        table.array({"x": np.array([[1.0, 1.0], [1.0, np.nan]])})
    with pytest.raises(InvalidInput, match=r"row 0, column 1 \('fare'\) of input 'x' is too large"):
        table.frame({"x": np.array([[1.0, -np.inf]])})


def test_numbers_that_stand_for_objects_become_objects_with_the_librarys_missing_value():
    table = Table([Column("a", objects=True, missing_text=None)], matrix=False)
    column = table.frame({"a": np.array([1.0, np.nan])})["a"]
    assert column.dtype == object
    assert column.tolist() == [1.0, None]
    assert matrix(Column("a", objects=True), Column("b")).array({"x": np.array([[1.0, 2.0]])}).dtype == object


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_text_is_what_the_library_was_fitted_with(missing):
    table = Table([Column("a", "BYTES", missing_text=missing)], matrix=False)
    for column in (
        table.frame({"a": np.array([b"x", None], object)})["a"],
        table.array({"a": np.array([b"x", None])})[:, 0],
    ):
        assert column[0] == "x"
        assert (column[1] is None) == (missing is None)


def test_whole_numbers_that_fp64_rounds_stay_whole_beside_fractions():
    table = Table([Column("id", "INT64"), Column("weight")], matrix=False)
    array = table.array({"id": np.array([2**53 + 1]), "weight": np.array([0.5])})
    assert array.tolist() == [[2**53 + 1, 0.5]]
    small = Table([Column("flag", "BOOL"), Column("weight")], matrix=False)
    assert small.array({"flag": np.array([True]), "weight": np.array([0.5])}).dtype == np.float64


def test_a_frame_has_the_librarys_own_labels():
    batch = {"x0": np.array([1.0]), "x1": np.array([b"a"], object)}
    table = Table([Column("x0"), Column("x1", "BYTES")], matrix=False, labels=["twice", "twice"])
    frame = table.frame(batch)
    assert list(frame.columns) == ["twice", "twice"]
    assert isinstance(frame, pd.DataFrame)
    assert frame.iloc[0].tolist() == [1.0, "a"]


def test_examples_of_a_column_are_taken_in_turn():
    table = Table([Column("a", example=(1, 2)), Column("b", "BYTES", example=("u", "v", "w"))], matrix=False)
    rows = table.example(3)
    assert rows["a"].tolist() == [1, 2, 1]
    assert rows["b"].tolist() == [b"u", b"v", b"w"]
    assert matrix(Column("a"), Column("a")).example()["x"].shape == (1, 2)
