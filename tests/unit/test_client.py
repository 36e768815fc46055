"""What the client decides without a server: how values become tensors, and when it tries again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferd import DeadlineMissed, InvalidInput, NotFound, Overloaded, Unavailable
from inferd.client.core import parse_url, sequence_parameters
from inferd.client.exchange import InferCall
from inferd.client.frames import tensors_of
from inferd.client.grpc import Grpc
from inferd.client.metadata import ModelMetadata
from inferd.client.rest import Rest
from inferd.client.retry import Budget, Retry, pause_s
from inferd.client.tensors import array_of, flat_array
from inferd.client.transports import HttpTransport
from inferd.types import DATATYPES, TensorSpec

X = TensorSpec("x", "FP32", (-1, 2))


def takes(*specs):
    return ModelMetadata(list(specs), schemas={})


@given(
    st.sampled_from([name for name in DATATYPES if name not in ("BYTES", "BF16")]).flatmap(
        lambda name: st.tuples(st.just(name), arrays.arrays(DATATYPES[name], arrays.array_shapes(max_dims=3)))
    )
)
def test_every_array_comes_back_as_it_was_sent(case):
    datatype, array = case
    (tensor,) = tensors_of({"x": array}, takes(TensorSpec("x", datatype, (-1,) * array.ndim)))
    back = array_of(datatype, tensor.shape, tensor.raw)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.one_of(st.text(), st.binary()), min_size=1))
def test_text_and_bytes_come_back_as_bytes(values):
    (tensor,) = tensors_of(values, takes(TensorSpec("t", "BYTES", (-1,))))
    wanted = [value.encode() if isinstance(value, str) else value for value in values]
    assert array_of("BYTES", tensor.shape, tensor.raw).tolist() == wanted


def test_numbers_take_the_type_that_is_wanted():
    assert tensors_of([[1, 2]], takes(X))[0].raw == np.array([[1, 2]], np.float32).tobytes()
    assert tensors_of(np.ones((1, 2)), takes(X))[0].shape == (1, 2)
    assert (
        tensors_of(np.ones((1, 2)), takes(TensorSpec("x", "INT64", (-1, 2))))[0].raw == np.ones(2, np.int64).tobytes()
    )


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": [1]}, "unknown input"),
        ({"x": ["a"]}, "not a number"),
        ({"x": np.array([object()])}, "is object, not a number"),
    ],
)
def test_what_does_not_fit_is_named(inputs, words):
    with pytest.raises(InvalidInput, match=words):
        tensors_of(inputs, takes(X))


def test_several_inputs_need_names():
    with pytest.raises(InvalidInput, match="dict by name"):
        tensors_of([1], replace(takes(X, X), optional=frozenset()))


DEFAULT = Retry()


def pause(fault=None, *, retry=DEFAULT, budget=None, tried=1, remaining_s=None, random=0.5):
    return pause_s(retry, budget or Budget(retry), fault or Overloaded("busy"), tried, remaining_s, lambda: random)


def test_only_what_may_pass_is_tried_again():
    assert pause(Unavailable("gone")) is not None
    assert pause(InvalidInput("no")) is None
    assert pause(DeadlineMissed("late")) is None
    assert pause(tried=3) is None


def test_pauses_grow_and_are_drawn_from_all_of_their_range():
    retry = Retry(tries_max=20, backoff_s=0.1, backoff_max_s=1.0)
    assert [pause(retry=retry, tried=tried, random=1.0) for tried in (1, 2, 3, 9)] == [0.1, 0.2, 0.4, 1.0]
    assert pause(retry=retry, random=0.0) == 0.0


def test_the_servers_word_and_the_deadline_bound_the_pause():
    assert pause(Overloaded("busy", retry_after_s=3)) == 3
    assert pause(Overloaded("busy", retry_after_s=3), remaining_s=2) is None


def test_a_client_spends_no_more_retries_than_its_calls_earn():
    retry = Retry(budget=0.1, budget_reserve=2)
    budget = Budget(retry)
    spent = 0
    for _ in range(100):
        budget.earn()
        spent += pause(retry=retry, budget=budget) is not None
    assert spent == pytest.approx(2 + 100 * 0.1, abs=1)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("127.0.0.1:8000", ("http", "http://127.0.0.1:8000")),
        ("https://models.example/base", ("https", "https://models.example/base")),
        ("grpc://127.0.0.1:8000", ("grpc", "127.0.0.1:8000")),
    ],
)
def test_urls_say_what_carries_the_calls(url, found):
    assert parse_url(url) == found


def test_a_url_of_nothing_known_is_refused():
    with pytest.raises(InvalidInput, match="grpc://"):
        parse_url("ftp://host")


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "found"),
    [
        ([1, 2, 3, 4], "FP32", (-1, 2), (2, 2)),
        (7, "INT64", (-1,), (1,)),
        (7, "INT64", (), ()),
        ([1, 2, 3], "FP32", (-1, -1), (1, 3)),
        ([1, 2, 3], "FP32", (-1, 2), (3,)),
        (["a", "b"], "BYTES", (-1, 1), (2, 1)),
        ([], "FP32", (-1, 2), (0, 2)),
    ],
)
def test_a_flat_list_has_the_shape_that_the_model_says(value, datatype, shape, found):
    array = flat_array(value, TensorSpec("y", datatype, shape))
    assert (array.shape, array.dtype) == (found, np.dtype(DATATYPES[datatype]))


def test_a_sequence_is_three_parameters_of_the_protocol_over_http_and_grpc():
    parameters = sequence_parameters(7, start=True, end=False)
    call = InferCall("m", "", tensors_of([[1, 2]], takes(X)), (), "", parameters, {})
    request = Rest().infer(call).build(None)
    sent = json.loads(request.body[: int(request.headers["Inference-Header-Content-Length"])])["parameters"]
    assert sent == {"sequence_id": 7, "sequence_start": True, "sequence_end": False, "binary_data_output": True}
    message = Grpc().infer(call).build(None).message
    assert message.parameters["sequence_id"].int64_param == 7
    assert message.parameters["sequence_start"].bool_param
    assert not message.parameters["sequence_end"].bool_param


def test_a_sequence_without_an_id_is_refused():
    assert sequence_parameters(None, start=False, end=False) == {}
    with pytest.raises(InvalidInput, match="sequence_id=1"):
        sequence_parameters(None, start=True, end=False)


def test_a_stream_over_http_without_its_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx_sse", None)
    transport = HttpTransport("http://127.0.0.1:1")
    try:
        with pytest.raises(NotFound, match=r"httpx-sse.*\n.*inferd\[client\]"):
            next(transport.stream(Rest().live(), None))
    finally:
        transport.close()
