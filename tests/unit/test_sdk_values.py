"""Values that are missing, and values that are not what they were annotated as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional, Union

import numpy as np
import pytest
from numpy.typing import NDArray

from inferd import InvalidInput, Model, ModelFailed, Shape, testing
from inferd.runtimes.base import Tabular
from inferd.sdk.calls import Call
from inferd.sdk.runtime import StageRuntime
from inferd.types import InputSchema, Signature
from inferd.worker.channel import _default
from inferd.worker.tensors import pack_bytes, unpack_bytes


def texts(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def call_of(kind, *default):
    def predict(x) -> list[str]:
        return [repr(one) for one in x] if isinstance(x, list) else repr(x)  # type: ignore[return-value]

    def predict_with(x=None) -> list[str]:
        return predict(x)

    method = predict_with if default else predict
    method.__annotations__["x"] = kind
    method.__annotations__["return"] = list[str] if str(kind).startswith("list") else str
    return Call(method)


@dataclass
class Point:
    x: float


@pytest.mark.parametrize(
    ("kind", "present"),
    [
        (list[str | None], b"a"),
        (list[Optional[str]], b"a"),  # noqa: UP045
        (list[Union[str, None]], b"a"),  # noqa: UP007
        (list[bytes | None], b"a"),
        (list[dict | None], b"{}"),
        (list[Point | None], b'{"x": 1}'),
        (str | None, b"a"),
    ],
)
def test_a_text_that_may_be_missing_is_none_and_the_server_is_told(kind, present):
    call = call_of(kind)
    assert [column.codec.missing for column in call.inputs] == [True]
    first, second = call({"x": texts(present, None)})["output"]
    assert second == b"None"
    assert first != b"None"


@pytest.mark.parametrize("kind", [list[float | None], float | None])
def test_a_number_that_may_be_missing_is_none_where_it_is_nan(kind):
    assert call_of(kind)({"x": np.array([1.5, np.nan])})["output"].tolist() == [b"1.5", b"None"]


def test_nan_is_a_number_to_a_model_that_did_not_ask():
    assert call_of(list[float])({"x": np.array([np.nan])})["output"].tolist() == [b"nan"]


@pytest.mark.parametrize("kind", [list[str], str, list[bytes], list[dict], list[Any], list[Point]])
def test_none_never_reaches_a_model_that_did_not_ask(kind):
    with pytest.raises(InvalidInput, match=r"row 1: not .*: the value is missing"):
        call_of(kind)({"x": texts(b"{}" if "dict" in str(kind) or "Any" in str(kind) else b'{"x": 1}', None)})


@pytest.mark.parametrize("kind", [list[int | None], bool | None, list[str] | None])
def test_what_has_no_missing_value_can_not_be_missing(kind):
    with pytest.raises(ModelFailed, match="help: annotate it as"):
        call_of(kind)


class Greets(Model):
    def predict(self, name: list[str | None], age: list[float | None], city: list[str]) -> list[str]:
        return [f"{one or 'you'} of {where}, {years}" for one, years, where in zip(name, age, city, strict=True)]


def test_a_stage_tells_which_of_its_inputs_may_be_missing():
    runtime = StageRuntime(Greets(), "predict", {})
    assert isinstance(runtime, Tabular)
    assert runtime.schemas == (InputSchema("name", missing=True), InputSchema("age", missing=True))
    assert runtime.ignored_columns == ()


def test_what_is_missing_goes_through_a_test_without_a_server():
    with testing.loaded(Greets) as model:
        assert model.predict(name=["Eva", None], age=[None, 3], city=["Bern", "Rom"]) == [
            "Eva of Bern, None",
            "you of Rom, 3.0",
        ]
        with pytest.raises(InvalidInput, match="'city' does not match the model's annotation"):
            model.predict(name=["Eva"], age=[1.0], city=[None])


def test_a_default_may_be_that_it_is_missing():
    call = call_of(list[str | None], None)
    (default,) = call.defaults.values()
    assert default.tolist() == [None]
    told = _default(Signature(tuple(column.spec for column in call.inputs), ()), "x", default)
    assert told == {"input": "x", "shape": [1], "data": [255] * 4}
    (default,) = call_of(list[float | None], None).defaults.values()
    assert np.isnan(default).all()


def test_an_output_is_never_missing_text():
    def predict(x: list[str]) -> list[str | None]:
        return [None for _ in x]

    with pytest.raises(ModelFailed, match="returned None in a row of 'output'"):
        Call(predict)({"x": texts(b"a")})
    with pytest.raises(ModelFailed, match="is NoneType, not bytes or str"):
        pack_bytes(texts(b"a", None))
    assert unpack_bytes(memoryview(pack_bytes(texts("a", None), missing=True)), (2,)).tolist() == [b"a", None]


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (list[int], [1.5], "1.5 is not an integer in range"),
        (list[int], [2**63], "9223372036854775808 is out of range"),
        (list[int], [None], "is missing"),
        (list[bool], [2], "neither true nor false"),
        (list[float], [2**53 + 1], "would be rounded"),
        (list[float], ["1.5"], "'1.5' is str, not a number"),
        (list[str], [5], "int is neither text nor bytes"),
        (list[bytes], [5], "int is neither text nor bytes"),
        (Annotated[NDArray[np.int32], Shape()], np.array([2**31]), "is out of range"),
        (Annotated[NDArray[np.float32], Shape()], np.array([2**24 + 1]), "would be rounded"),
        (Annotated[NDArray[np.object_], Shape()], [5], "int is neither text nor bytes"),
    ],
)
def test_an_answer_that_would_change_is_the_models_fault(kind, values, words):
    def predict(x: list[str]): ...

    predict.__annotations__["return"] = kind
    call = Call(predict)
    call._method = lambda x: values
    with pytest.raises(ModelFailed, match=words):
        call({"x": texts(b"a")})


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        (list[int], [1.0, True], [1, 1]),
        (list[float], [1, None, np.float32(0.5)], [1.0, np.nan, 0.5]),
        (list[float], [2**53, 0.5], [2.0**53, 0.5]),
        (Annotated[NDArray[np.float32], Shape()], [0.1], [np.float32(0.1)]),
        (Annotated[NDArray[np.object_], Shape(1)], [["a"], [b"b"]], [[b"a"], [b"b"]]),
        (Annotated[NDArray[np.object_], Shape(1)], np.array([["a"]]), [[b"a"]]),
    ],
)
def test_an_answer_in_another_type_is_sent_where_it_stays_what_it_is(kind, values, found):
    def predict(x: list[str]): ...

    predict.__annotations__["return"] = kind
    call = Call(predict)
    call._method = lambda x: values
    np.testing.assert_array_equal(call({"x": texts(b"a")})["output"], np.array(found))


def test_an_array_of_objects_is_one_of_bytes():
    def predict(x: Annotated[NDArray[np.object_], Shape(2)]) -> list[str]:
        assert all(isinstance(one, bytes) for one in x.flat)
        return [b"".join(row) for row in x]

    call = Call(predict)
    assert call(call.sample)["output"].tolist() == [b"texttext"] * 2


@pytest.mark.parametrize("dtype", [np.complex64, np.str_, np.datetime64, np.longdouble])
def test_an_array_of_what_the_protocol_does_not_have_is_refused(dtype):
    def predict(x) -> list[str]: ...

    predict.__annotations__["x"] = Annotated[NDArray[dtype], Shape(2)]
    with pytest.raises(ModelFailed, match="unsupported dtype"):
        Call(predict)
