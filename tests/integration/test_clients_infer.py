"""Every tensor that the stock clients can send comes back as it was sent, with their defaults."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from outside.clients import Client

EXTREMES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [1, -2]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1], [1, -2]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, -2]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [1, -2]], np.int64),
    "FP16": np.array([[np.nan, -np.inf], [65504, 6e-8]], np.float16),
    "FP32": np.array([[np.nan, np.inf], [-0.0, 1e-45]], np.float32),
    "FP64": np.array([[np.nan, -np.inf], [1.7e308, 5e-324]], np.float64),
    "BF16": np.array([[1.5, -2.0], [np.inf, 0.0]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"nul \x00 inside", b"\xff\xfe no UTF-8"], [b"", "ünïcode".encode()]], np.object_),
}
# JSON has no form for them: half floats are refused by the stock client, others by the protocol.
RAW_ONLY = {"FP16", "BF16"}


def model_of(datatype: str) -> str:
    return f"identity_{datatype.lower()}"


def same(got: np.ndarray, sent: np.ndarray) -> None:
    assert got.shape == sent.shape
    assert got.dtype == sent.dtype or sent.dtype == np.object_
    if sent.dtype.kind == "f":
        np.testing.assert_array_equal(got, sent)
        assert got.tobytes() == sent.tobytes() or np.isnan(sent).any()
    else:
        assert got.tolist() == sent.tolist()


@pytest.mark.parametrize("datatype", EXTREMES)
def test_every_datatype_comes_back_bit_by_bit_in_binary(client: Client, datatype: str) -> None:
    sent = EXTREMES[datatype]
    result = client.infer(model_of(datatype), [client.input("x", sent, datatype)])
    same(result.as_numpy("y"), sent)


@pytest.mark.parametrize("datatype", [name for name in EXTREMES if name not in RAW_ONLY | {"BYTES"}])
@pytest.mark.parametrize("client_kind", ["http", "http.aio"])
def test_every_datatype_that_json_can_hold_comes_back_in_json(zoo, client_kind: str, datatype: str) -> None:
    sent = EXTREMES[datatype]
    with Client(client_kind, zoo.address) as client:
        tensor = client.input("x", sent, datatype, binary_data=False)
        result = client.infer(model_of(datatype), [tensor], outputs=[client.output("y", binary_data=False)])
    got = result.as_numpy("y")
    assert got.tolist() == sent.tolist() or np.isnan(sent).any()
    np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize("client_kind", ["http", "http.aio"])
def test_text_comes_back_in_json(zoo, client_kind: str) -> None:
    sent = np.array([["plain", 'quotes " and \\'], ["ünïcode ☃", "new\nline"]], np.object_)
    with Client(client_kind, zoo.address) as client:
        tensor = client.input("x", sent, "BYTES", binary_data=False)
        result = client.infer("identity_bytes", [tensor], outputs=[client.output("y", binary_data=False)])
    assert result.as_numpy("y").tolist() == sent.tolist()


def test_tensors_without_elements_keep_their_shape(client: Client) -> None:
    for datatype, sent in (("FP32", np.zeros((3, 0), np.float32)), ("BYTES", np.zeros((3, 0), np.object_))):
        result = client.infer(model_of(datatype), [client.input("x", sent, datatype)])
        assert result.as_numpy("y").shape == (3, 0)


def test_a_batch_of_no_rows_is_answered_with_none(client: Client) -> None:
    result = client.infer("four", [client.input("x", np.zeros((0, 4), np.float32), "FP32")])
    assert result.as_numpy("y").shape == (0, 4)


def test_a_batch_of_no_rows_is_run_where_only_a_run_tells_the_shape_of_the_answer(client: Client) -> None:
    result = client.infer("identity_fp32", [client.input("x", np.zeros((0, 4), np.float32), "FP32")])
    assert result.as_numpy("y").shape == (0, 4)


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 100])
def test_any_number_of_rows_is_answered_row_by_row(client: Client, rows: int) -> None:
    sent = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    result = client.infer("four", [client.input("x", sent, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), sent)


def test_a_tensor_of_several_megabytes_finds_room(client: Client) -> None:
    sent = np.random.default_rng(3).normal(size=(3, 1_000_000)).astype(np.float32)
    result = client.infer("identity_fp32", [client.input("x", sent, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), sent)


def two_inputs(client: Client) -> list:
    a = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
    return [client.input("a", a, "INT32"), client.input("b", a * 10, "INT32")]


def test_several_inputs_and_outputs_keep_their_names(client: Client) -> None:
    inputs = two_inputs(client)
    for order in (inputs, inputs[::-1]):
        result = client.infer("add_sub", order)
        assert result.as_numpy("sum").tolist() == [[11, 22, 33, 44], [55, 66, 77, 88]]
        assert result.as_numpy("difference").tolist() == [[-9, -18, -27, -36], [-45, -54, -63, -72]]


def test_only_the_outputs_that_are_asked_for_come_back(client: Client) -> None:
    result = client.infer("add_sub", two_inputs(client), outputs=[client.output("difference")])
    assert result.as_numpy("difference") is not None
    assert result.as_numpy("sum") is None


def test_the_request_id_and_the_version_come_back(client: Client) -> None:
    sent = np.ones((1, 4), np.float32)
    for asked, served in (("", "10"), ("2", "2"), ("10", "10")):
        tensor = client.input("x", sent, "FP32")
        result = client.infer("versioned", [tensor], request_id="my request", model_version=asked)
        answer = result.get_response(as_json=True) if client.grpc else result.get_response()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("my request", "versioned", served)


@pytest.mark.parametrize("method", ["gzip", "deflate"])
def test_compressed_requests_and_answers_are_understood(client: Client, method: str) -> None:
    sent = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    if client.grpc:
        options = {"compression_algorithm": method}
    else:
        options = {"request_compression_algorithm": method, "response_compression_algorithm": method}
    result = client.infer("four", [client.input("x", sent, "FP32")], **options)
    np.testing.assert_array_equal(result.as_numpy("y"), sent)


def test_parameters_priority_and_timeout_are_taken(client: Client) -> None:
    sent = np.ones((1, 4), np.float32)
    options = {"priority": 2, "timeout": 10_000_000, "parameters": {"note": "for the model"}}
    result = client.infer("four", [client.input("x", sent, "FP32")], **options)
    np.testing.assert_array_equal(result.as_numpy("y"), sent)


@pytest.mark.parametrize(
    ("name", "array", "datatype", "says"),
    [
        ("z", np.ones((1, 4), np.float32), "FP32", ["z", "x"]),
        ("x", np.ones((1, 5), np.float32), "FP32", ["x", "5", "4"]),
        ("x", np.ones(4, np.float32), "FP32", ["x", "4"]),
        ("x", np.ones((1, 4), np.float64), "FP64", ["x", "FP64", "FP32"]),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_what_was_expected(
    client: Client, name: str, array: np.ndarray, datatype: str, says: list[str]
) -> None:
    status, message = client.refusal("infer", "four", [client.input(name, array, datatype)])
    assert status == 400
    assert all(word in message for word in says), message


def test_a_missing_and_a_doubled_input_are_named(client: Client) -> None:
    a, b = two_inputs(client)
    for inputs, named in (([a], "b"), ([a, b, a], "a")):
        status, message = client.refusal("infer", "add_sub", inputs)
        assert status == 400
        assert f"'{named}'" in message


def test_an_unknown_output_model_and_version_are_named(client: Client) -> None:
    def tensor():
        return [client.input("x", np.ones((1, 4), np.float32), "FP32")]

    status, message = client.refusal("infer", "four", tensor(), outputs=[client.output("w")])
    assert status == 400
    assert "w" in message
    assert client.refusal("infer", "nobody", tensor())[0] == 404
    assert client.refusal("infer", "versioned", tensor(), model_version="3")[0] == 404


def test_the_greatest_elements_of_an_output_are_named(client: Client) -> None:
    inputs = [client.input("x", np.array([[1, 4, 2, 3], [8, 7, 6, 5]], np.float32), "FP32")]
    answer = client.infer("four", inputs, outputs=[client.output("y", class_count=2)])
    assert answer.as_numpy("y").tolist() == [[b"4.000000:1", b"3.000000:3"], [b"8.000000:0", b"7.000000:1"]]
    text = [client.input("x", np.array([[b"a"]], dtype=object), "BYTES")]
    status, message = client.refusal("infer", "identity_bytes", text, outputs=[client.output("y", class_count=2)])
    assert (status, "no order" in message) == (400, True), message


def test_features_that_are_not_built_are_named(client: Client) -> None:
    shared = client.module.InferInput("x", [1, 4], "FP32")
    shared.set_shared_memory("region", 16)
    status, message = client.refusal("infer", "four", [shared])
    assert (status, "shared memory" in message) == (501, True), message
    tensor = client.input("x", np.ones((1, 4), np.float32), "FP32")
    status, message = client.refusal("infer", "four", [tensor], sequence_id=5, sequence_start=True)
    assert (status, "has no sequences" in message) == (400, True), message


def test_results_of_concurrent_calls_are_never_mixed_up(zoo) -> None:
    with Client("http", zoo.address, concurrency=16) as client:
        calls = []
        for index in range(200):
            sent = np.full((1, 4), index, np.float32)
            calls.append((sent, client.raw.async_infer("four", [client.input("x", sent, "FP32")])))
        for sent, call in calls:
            np.testing.assert_array_equal(call.get_result().as_numpy("y"), sent)


def test_calls_back_of_concurrent_grpc_calls_are_never_mixed_up(zoo) -> None:
    from concurrent.futures import Future

    with Client("grpc", zoo.address) as client:
        futures = []
        for index in range(200):
            future: Future = Future()

            def done(result, error, future=future) -> None:
                future.set_exception(error) if error else future.set_result(result)

            sent = np.full((1, 4), index, np.float32)
            client.raw.async_infer("four", [client.input("x", sent, "FP32")], done)
            futures.append((sent, future))
        for sent, future in futures:
            np.testing.assert_array_equal(future.result(30).as_numpy("y"), sent)


def test_a_body_made_by_the_http_client_is_parsed_by_it_again(zoo) -> None:
    import httpx
    from tritonclient import http

    tensor = http.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    body, length = http.InferenceServerClient.generate_request_body([tensor])
    headers = {"Inference-Header-Content-Length": str(length)} if length else {}
    answer = httpx.post(f"{zoo.url}/v2/models/four/infer", content=body, headers=headers)
    answer_length = answer.headers.get("Inference-Header-Content-Length")
    result = http.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer_length) if answer_length else None
    )
    assert result.as_numpy("y").tolist() == [[1, 1, 1, 1]]


def test_an_exception_holds_status_and_message(client: Client) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("nobody", [client.input("x", np.ones((1, 4), np.float32), "FP32")])
    assert "nobody" in raised.value.message()
