"""Numbers in another type: each is the same number, or a misfit that is named."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.exact import ConversionError, cast_exact, is_missing

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")


def objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def near_powers_of_two(dtype):
    limits = np.iinfo(dtype)
    powers = st.integers(0, limits.bits).map(lambda bits: 2**bits)
    near = st.tuples(powers, st.integers(-3, 3), st.sampled_from((1, -1))).map(lambda one: (one[0] + one[1]) * one[2])
    return st.one_of(st.integers(limits.min, limits.max), near.filter(lambda n: limits.min <= n <= limits.max))


@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: st.tuples(st.just(dtype), near_powers_of_two(dtype), st.sampled_from(INTEGERS + FLOATS))
    )
)
def test_an_integer_stays_the_same_integer_or_is_a_misfit(case):
    dtype, number, wanted = case
    with np.errstate(all="ignore"):
        fits = (
            np.iinfo(wanted).min <= number <= np.iinfo(wanted).max
            if wanted in INTEGERS
            else bool(np.isfinite(np.dtype(wanted).type(number))) and int(np.dtype(wanted).type(number)) == number
        )
    for array in (np.array([number], dtype), objects(number)):
        if fits:
            (found,) = cast_exact(array, np.dtype(wanted))
            assert (found.dtype, int(found)) == (np.dtype(wanted), number)
        else:
            with pytest.raises(ConversionError, match=r"would be rounded|is out of range"):
                cast_exact(array, np.dtype(wanted))


@given(st.floats(width=64), st.sampled_from(INTEGERS))
def test_a_fraction_is_no_integer_and_a_whole_float_is_one(number, wanted):
    limits = np.iinfo(wanted)
    whole = np.isfinite(number) and number == int(number) and limits.min <= int(number) <= limits.max
    for array in (np.array([number]), objects(number)):
        if whole:
            assert int(cast_exact(array, np.dtype(wanted))[0]) == int(number)
        else:
            with pytest.raises(ConversionError, match=r"not an integer in range|is missing|is out of range"):
                cast_exact(array, np.dtype(wanted))


def test_fractions_are_rounded_and_infinity_is_never_made():
    assert cast_exact(np.array([0.1, np.inf, np.nan]), np.dtype("f4")).tolist() == pytest.approx(
        [np.float32(0.1), np.inf, np.nan], nan_ok=True
    )
    with pytest.raises(ConversionError, match="1e\\+300 is out of range") as raised:
        cast_exact(np.array([[1.0, 2.0], [1e300, 0]]), np.dtype("f4"))
    assert raised.value.index == (1, 0)


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        ((True, False), "f4", [1, 0]),
        ((None, 1, 2.5, Decimal("0.5"), Fraction(1, 4)), "f8", [np.nan, 1, 2.5, 0.5, 0.25]),
        ((Decimal(2**53), Decimal("NaN"), pd.NA, pd.NaT), "f8", [2**53, np.nan, np.nan, np.nan]),
        ((2**70,), "f8", [2.0**70]),
        ((np.float32(0.1), np.int8(3)), "f8", [float(np.float32(0.1)), 3]),
        ((1, 0.0, np.bool_(True)), "?", [True, False, True]),
        ((3.0, Decimal(4)), "i8", [3, 4]),
    ],
)
def test_objects_that_are_numbers_are_taken(values, wanted, found):
    np.testing.assert_array_equal(cast_exact(objects(*values), np.dtype(wanted)), np.array(found, wanted))


@pytest.mark.parametrize(
    ("values", "wanted", "index", "why"),
    [
        ((1, None), "i8", (1,), "is missing"),
        ((True, pd.NA), "?", (1,), "is missing"),
        ((0, "1"), "f4", (1,), "is str, not a number"),
        ((Decimal(2**53 + 1),), "f8", (0,), "would be rounded"),
        ((10**400,), "f8", (0,), "is out of range"),
        ((2,), "?", (0,), "neither true nor false"),
        ((pd.Timestamp(0),), "f8", (0,), "is Timestamp, not a number"),
        ((1 + 2j,), "f8", (0,), "is complex, not a number"),
    ],
)
def test_objects_that_have_no_place_are_named(values, wanted, index, why):
    with pytest.raises(ConversionError, match=why) as raised:
        cast_exact(objects(*values), np.dtype(wanted))
    assert raised.value.index == index


@pytest.mark.parametrize("array", [np.array(["1"]), np.array([b"1"]), np.zeros(1, "M8[s]"), np.zeros(1, complex)])
def test_arrays_of_other_kinds_are_no_numbers(array):
    with pytest.raises(ConversionError, match="not a number"):
        cast_exact(array, np.dtype("f8"))


def test_what_is_missing_is_known_in_every_form():
    assert all(map(is_missing, (None, np.nan, np.float32("nan"), Decimal("NaN"), pd.NA, pd.NaT, np.datetime64("NaT"))))
    assert not any(map(is_missing, (0, "", b"", False, 1.5, np.inf, "nan", Decimal(0), [])))
