"""What counts as the same answer."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.runtimes.faster.compare import Comparison, no_margin
from inferd.runtimes.faster.probes import allowed, probes
from inferd.types import InputSchema, Signature, TensorSpec

X = TensorSpec("x", "FP64", (-1, 2))
ROWS = np.zeros((1, 2))


def compared(wanted, found, datatype="FP64", usual=(1.0,), rows=ROWS, margin=None):
    signature = Signature((X,), (TensorSpec("y", datatype, (-1,)),))
    dtype = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "BYTES": object}[datatype]
    comparison = Comparison(signature, {"y": np.array(usual, dtype)}, margin or no_margin())
    comparison.add(rows, {"y": np.array(wanted, dtype)}, {"y": np.array(found, dtype)})
    return comparison


def same(*arguments, **settings):
    comparison = compared(*arguments, **settings)
    return not comparison.fault and comparison.needed(None) == 0


def test_a_number_of_nine_digits_keeps_its_fraction():
    assert not same([123456789.25], [123456790.0], usual=[123456789.25])
    assert not same([123456789.25], [np.float32(123456789.25)], usual=[123456789.25])
    assert same([123456789.25], [np.nextafter(123456789.25, 0)], usual=[123456789.25])


@pytest.mark.parametrize(("datatype", "rounding"), [("FP64", 1e-15), ("FP32", 2e-7)])
def test_rounding_of_the_outputs_own_precision_is_no_difference(datatype, rounding):
    assert same([0.7], [0.7 * (1 + rounding)], datatype=datatype)
    assert not same([0.7], [0.7 * (1 + 100 * rounding if datatype == "FP32" else 1 + 1e-9)], datatype=datatype)


@pytest.mark.parametrize(("datatype", "small"), [("FP64", 1e-12), ("FP32", 1e-8)])
def test_a_small_probability_is_not_zero(datatype, small):
    assert not same([small], [0.0], datatype=datatype)
    assert not same([small], [2 * small], datatype=datatype)


def test_what_is_left_of_a_sum_that_cancels_is_held_to_the_size_of_such_sums():
    assert same([1e-10], [1e-10 + 1e-14])
    assert not same([1e-10], [1e-10 + 1e-12])
    assert not same([1e-10], [1e-10 + 1e-14], usual=[1e-10])


def test_an_output_that_is_always_tiny_is_held_to_its_own_size():
    assert not same([1e-15], [1.1e-15], usual=[1e-15])


def test_infinity_and_nan_are_only_equal_to_themselves():
    rows = np.full((1, 2), np.inf)
    assert same([np.inf], [np.inf], rows=rows)
    assert same([np.nan], [np.nan], rows=rows)
    for wanted, found in ((np.inf, -np.inf), (np.inf, np.nan), (1.0, np.nan), (np.nan, 1.0), (1.0, np.inf)):
        comparison = compared([wanted], [found], rows=rows)
        assert "not" in comparison.fault
        assert comparison.needed(1e9) == np.inf


def test_where_finite_numbers_overflow_in_the_library_it_does_not_matter_to_what():
    assert same([np.inf], [np.nan])
    assert not same([np.inf], [1e300])
    assert not same([1e300], [np.inf])


def test_the_tolerance_that_would_do_is_told():
    comparison = compared([1.0], [1.0 + 3e-7])
    assert comparison.needed(None) == pytest.approx(3e-7, rel=1e-6)
    assert comparison.needed(4e-7) == 0
    assert comparison.worst == "y"


def test_a_tolerance_of_zero_allows_nothing():
    assert compared([1.0], [1.0]).needed(0.0) == 0
    assert compared([1.0], [np.nextafter(1.0, 2)]).needed(0.0) > 0


def test_labels_differ_where_the_library_prefers_its_own_by_more_than_the_tolerance():
    def margin(fraction):
        return lambda rows, own, other: np.full(len(rows), fraction)

    assert same([b"a"], ["a"], datatype="BYTES")
    assert same(["caf\u00e9"], ["caf\u00e9".encode()], datatype="BYTES")
    assert same(["a"], ["b"], datatype="BYTES", margin=margin(1e-15))
    assert compared(["a"], ["b"], datatype="BYTES", margin=margin(1e-5)).needed(None) == 1e-5
    unknown = compared([1], [2], datatype="INT64")
    assert "'y' differs in 1 of 1 places" in unknown.fault


def test_an_answer_of_another_shape_is_another_answer():
    comparison = compared([1.0], [1.0, 2.0])
    assert "shape" in comparison.fault


# -- rows -----------------------------------------------------------------------------------------------------------


def rows_of(points, datatype="FP64", **schema):
    x = TensorSpec("x", datatype, (-1, len(points)))
    return list(probes([np.array(of_column) for of_column in points], x, InputSchema("x", **schema)))


@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_every_threshold_and_its_neighbours_are_tried(datatype):
    thresholds = [[0.1, 1e6 + 1 / 3, -7.25], [0.0, 1.0]]
    tried = np.concatenate([probe.rows for probe in rows_of(thresholds, datatype)])
    dtype = {"FP64": np.float64, "FP32": np.float32}[datatype]
    assert tried.dtype == dtype
    for threshold in np.array(thresholds[0], dtype):
        for value in (threshold, np.nextafter(threshold, dtype(np.inf)), np.nextafter(threshold, dtype(-np.inf))):
            assert value in tried[:, 0]
    single = np.float32(0.1)
    assert dtype(np.nextafter(single, np.float32(1))) in tried[:, 0]


def test_values_are_tried_where_the_model_decides():
    ordinary = rows_of([[1e6, 1.2e6], [-1e-5, 2e-5]])[0].rows
    assert 1e4 < np.median(np.abs(ordinary[:, 0])) < 2e6
    assert {0.0, 1.0, -1.0} - set(ordinary[:, 1])


def test_each_column_alone_is_missing_and_infinite_and_beyond_fp32_by_name():
    lone = rows_of([[0.0]] * 3, columns=("a", "b", "c"))[-1]
    assert len(lone.names) == len(lone.rows) == 5 * 4
    for name in ("NaN in column 'a'", "infinity in column 'b'", "-infinity in column 'c'", "1e39 in column 'a'"):
        assert name in lone.names
    assert np.isnan(lone.rows[lone.names.index("NaN in all columns")]).all()
    row = lone.rows[lone.names.index("-infinity in column 'c'")]
    assert row[2] == -np.inf
    assert np.isfinite(row[:2]).all()


def test_a_wide_matrix_is_tried_within_some_memory():
    tried = rows_of([[0.0, 1.0]] * 2000)
    names = [name for probe in tried if len(probe.names) > 1 for name in probe.names]
    assert len(names) == 5 * 257
    assert "NaN in columns 0 to 7" in names
    assert max(probe.rows.size for probe in tried) <= 1 << 22


def test_rows_are_within_what_the_model_takes_but_for_those_that_try_it():
    schema = {"missing": False, "largest": 1e5}
    *kinds, missing, _lone = rows_of([[0.0, 3.0]] * 2, **schema)
    for probe in kinds:
        assert allowed(probe.rows, InputSchema("x", **schema)).all(), probe.names
    assert not allowed(missing.rows, InputSchema("x", **schema)).all()


def test_the_gateway_lets_through_what_the_schema_says():
    rows = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [-1e39, 1.0]])
    largest = float(np.finfo(np.float32).max)
    assert allowed(rows, InputSchema("x")).tolist() == [True] * 4
    assert allowed(rows, InputSchema("x", missing=False)).tolist() == [True, False, True, True]
    assert allowed(rows, InputSchema("x", largest=largest)).tolist() == [True, True, False, False]


def test_rows_are_the_same_every_time():
    one, other = (np.concatenate([probe.rows for probe in rows_of([[0.5, 2.0]] * 3)]) for _ in range(2))
    assert np.array_equal(one, other, equal_nan=True)
