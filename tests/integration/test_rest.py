"""The REST side, byte by byte: what a client without a library sends, and every way of doing it wrong."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from outside.traffic import tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outside.process import Inferd

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def http(request: pytest.FixtureRequest, zoo: Inferd) -> Iterator[httpx.Client]:
    """A plain HTTP client on the data port, in both versions of HTTP."""
    second = request.param == "HTTP/2"
    with httpx.Client(base_url=zoo.url, http1=not second, http2=second, timeout=30) as client:
        assert client.get("/v2").http_version == request.param
        yield client


def infer(http: httpx.Client, model: str, *inputs: dict[str, Any], **more: Any) -> httpx.Response:
    return http.post(f"/v2/models/{model}/infer", content=json.dumps({"inputs": inputs, **more}))


def refused(response: httpx.Response, status: int, *says: str) -> None:
    """An error in the one form that errors have, with these words in it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    missing = [word for word in says if word not in body["error"]]
    assert not missing, f"{missing} not in {body['error']!r}"


def row(data: list[Any], name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    return tensor(name, datatype, data, [1, 4])


ONE_ROW = row([1, 2, 3, 4])


def test_data_may_be_flat_or_nested_and_comes_back_flat(http: httpx.Client) -> None:
    for data in ([1, 2, 3, 4, 5, 6, 7, 8], [[1, 2, 3, 4], [5, 6, 7, 8]]):
        answer = infer(http, "four", tensor("x", "FP32", data, [2, 4]))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        [output] = answer.json()["outputs"]
        assert output == {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}


def test_not_a_number_and_infinities_go_in_and_out_as_bare_tokens(http: httpx.Client) -> None:
    for datatype in ("FP32", "FP64"):
        sent = tensor("x", datatype, [NAN, INF, -INF, 0.5], [1, 4])
        answer = infer(http, f"identity_{datatype.lower()}", sent)
        assert answer.status_code == 200, answer.text
        assert '"data":[NaN,Infinity,-Infinity,0.5]' in answer.text.replace(" ", "")


def test_numbers_keep_every_digit(http: httpx.Client) -> None:
    for datatype, data in (
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP64", [0.1, 1.7976931348623157e308]),
        # The shortest text that is this FP32 again.
        ("FP32", [0.1, 16777216]),
    ):
        answer = infer(http, f"identity_{datatype.lower()}", tensor("x", datatype, data, [1, 2]))
        assert answer.json()["outputs"][0]["data"] == data


def test_booleans_and_strings_are_json_values(http: httpx.Client) -> None:
    answer = infer(http, "identity_bool", tensor("x", "BOOL", [True, False], [1, 2]))
    assert answer.json()["outputs"][0]["data"] == [True, False]
    words = ["plain", "ünïcode ☃ \U0001f600", 'quote " \\ \n \x01', ""]
    answer = infer(http, "identity_bytes", tensor("x", "BYTES", words, [2, 2]))
    assert answer.json()["outputs"][0]["data"] == words


def test_id_model_and_version_are_told(http: httpx.Client) -> None:
    answer = infer(http, "versioned", ONE_ROW, id="a-1").json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a-1", "versioned", "10")
    assert "id" not in infer(http, "versioned", ONE_ROW).json()
    older = http.post("/v2/models/versioned/versions/2/infer", json={"inputs": [ONE_ROW]})
    assert older.json()["model_version"] == "2"


def test_outputs_may_be_chosen_each_in_its_own_form(http: httpx.Client) -> None:
    numbers = [row([4, 3, 2, 1], "a", "INT32"), row([1, 1, 1, 1], "b", "INT32")]
    answer = infer(http, "add_sub", *numbers, outputs=[{"name": "difference"}]).json()
    assert [output["name"] for output in answer["outputs"]] == ["difference"]
    chosen = [{"name": "sum", "parameters": {"binary_data": True}}, {"name": "difference"}]
    answer = infer(http, "add_sub", *numbers, outputs=chosen)
    length = int(answer.headers["inference-header-content-length"])
    outputs = {output["name"]: output for output in json.loads(answer.content[:length])["outputs"]}
    assert outputs["sum"]["parameters"]["binary_data_size"] == 16
    assert struct.unpack("<4i", answer.content[length:]) == (5, 4, 3, 2)
    assert outputs["difference"]["data"] == [3, 2, 1, 0]


def binary_body(sent: bytes, size: int | None = None, **more: Any) -> tuple[bytes, dict[str, str]]:
    spec = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": size or len(sent)}}
    head = json.dumps({"inputs": [spec], **more}).encode()
    return head + sent, {"Inference-Header-Content-Length": str(len(head))}


def test_a_binary_tensor_goes_in_and_out(http: httpx.Client) -> None:
    sent = struct.pack("<4f", 1, 2, 3, NAN)
    content, headers = binary_body(sent, parameters={"binary_data_output": True})
    answer = http.post("/v2/models/four/infer", content=content, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == sent
    json_answer = http.post("/v2/models/four/infer", content=binary_body(sent)[0], headers=headers | _length_of(sent))
    assert json_answer.json()["outputs"][0]["data"][:3] == [1, 2, 3]


def _length_of(sent: bytes) -> dict[str, str]:
    return binary_body(sent)[1]


def test_text_that_json_cannot_hold_says_how_to_ask_for_it(http: httpx.Client) -> None:
    element = b"\xff\x00"
    sent = struct.pack("<I", len(element)) + element
    spec = {"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(sent)}}
    head = json.dumps({"inputs": [spec]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = http.post("/v2/models/identity_bytes/infer", content=head + sent, headers=headers)
    refused(answer, 400, "y", "binary_data")


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_json_is_taken_whatever_a_client_calls_it(http: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = http.post("/v2/models/four/infer", content=json.dumps({"inputs": [ONE_ROW]}), headers=headers)
    assert answer.status_code == 200, answer.text


def test_a_form_that_is_surely_not_json_is_not_understood(http: httpx.Client) -> None:
    body = json.dumps({"inputs": [ONE_ROW]})
    for headers in ({"content-type": "multipart/form-data; boundary=x"}, {"content-encoding": "br"}):
        refused(http.post("/v2/models/four/infer", content=body, headers=headers), 415)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked_and_answers_packed_where_it_is_accepted(
    http: httpx.Client, name: str, pack
) -> None:
    rows = tensor("x", "FP32", [0.0] * 4000, [1000, 4])
    body = pack(json.dumps({"inputs": [rows]}).encode())
    headers = {"content-encoding": name, "accept-encoding": name}
    answer = http.post("/v2/models/four/infer", content=body, headers=headers)
    assert answer.headers["content-encoding"] == name
    assert answer.json()["outputs"][0]["data"] == [0.0] * 4000


def test_a_cut_or_broken_packed_body_is_the_clients_fault(http: httpx.Client) -> None:
    whole = gzip.compress(json.dumps({"inputs": [ONE_ROW]}).encode())
    for body in (whole[:-9], b"not gzip at all"):
        answer = http.post("/v2/models/four/infer", content=body, headers={"content-encoding": "gzip"})
        refused(answer, 400, "Content-Encoding")


def test_a_bomb_is_stopped_at_the_limit_of_what_it_unpacks_to(http: httpx.Client) -> None:
    bomb = gzip.compress(b" " * (65 << 20))
    assert len(bomb) < 100_000
    answer = http.post("/v2/models/four/infer", content=bomb, headers={"content-encoding": "gzip"})
    refused(answer, 413, "body_max_bytes")


@pytest.mark.parametrize("length", [(64 << 20) + 1, 2**63, 2**64 - 3])
def test_a_body_over_the_limit_is_refused_by_its_announced_length(zoo: Inferd, length: int) -> None:
    # Not sent at all: the announcement must do.
    host, _, port = zoo.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"POST /v2/models/four/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_max_bytes" in answer


WRONG_BODIES = {
    "nothing at all": (b"", []),
    "no JSON": (b"{", []),
    "another value": (b"[]", []),
    "no inputs": (b"{}", ["'x'", "missing"]),
    "inputs of another form": (b'{"inputs": {}}', ["inputs"]),
    "something after the end": (b'{"inputs": []} x', []),
    "a body of zeros": (b"\0" * 100, []),
    "too deep": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", []),
}


@pytest.mark.parametrize("which", WRONG_BODIES)
def test_a_body_that_is_no_request_is_the_clients_fault(http: httpx.Client, which: str) -> None:
    body, says = WRONG_BODIES[which]
    refused(http.post("/v2/models/four/infer", content=body), 400, *says)


WRONG_TENSORS = {
    "a number where text is due": ("four", row([1, 2, 3, "4"]), ["x"]),
    "ragged nesting": ("four", tensor("x", "FP32", [[1, 2, 3, 4], [5, 6]], [2, 4]), ["x"]),
    "fewer elements than the shape": ("four", tensor("x", "FP32", [1, 2, 3], [1, 4]), ["x", "4", "3"]),
    "more elements than the shape": ("four", tensor("x", "FP32", [1] * 5, [1, 4]), ["x", "4"]),
    "another rank": ("four", tensor("x", "FP32", [1] * 4, [4]), ["x", "[4]"]),
    "another dimension": ("four", tensor("x", "FP32", [1] * 5, [1, 5]), ["x", "5", "4"]),
    "a negative dimension": ("four", tensor("x", "FP32", [], [-1, 4]), ["x"]),
    "a dimension that is no integer": ("four", tensor("x", "FP32", [1] * 4, [1.5, 4]), ["x"]),
    "a shape that overflows": ("identity_fp64", tensor("x", "FP64", [], [2**62, 2**62]), ["x"]),
    "a shape of more than memory": ("identity_int8", tensor("x", "INT8", [], [2**40, 2**20]), ["x"]),
    "an unknown datatype": ("four", row([1] * 4, datatype="FLOAT"), ["FLOAT", "FP32"]),
    "another datatype": ("four", row([1] * 4, datatype="FP64"), ["x", "FP64", "FP32"]),
    "an unknown name": ("four", row([1] * 4, name="z"), ["z"]),
    "an integer out of its range": ("identity_int8", tensor("x", "INT8", [128], [1, 1]), ["x", "128"]),
    "a negative unsigned integer": ("identity_uint32", tensor("x", "UINT32", [-1], [1, 1]), ["x", "-1"]),
    "a fraction for an integer": ("identity_int32", tensor("x", "INT32", [1.5], [1, 1]), ["x"]),
    "an integer past 64 bits": ("identity_int64", tensor("x", "INT64", [2**63], [1, 1]), ["x"]),
    "not a number for an integer": ("identity_int32", tensor("x", "INT32", [NAN], [1, 1]), ["x"]),
    "two for a boolean": ("identity_bool", tensor("x", "BOOL", [2], [1, 1]), ["x"]),
    "null for an integer": (
        "identity_int32",
        tensor("x", "INT32", [1, None], [1, 2]),
        ["row 0, column 1 of input 'x'"],
    ),
    "null for text": ("identity_bytes", tensor("x", "BYTES", ["a", None], [1, 2]), ["row 0, column 1 of input 'x'"]),
    "half floats in JSON as text": ("identity_bf16", tensor("x", "BF16", [1.0], [1, 1]), ["x", "BF16"]),
    "no data": ("four", {"name": "x", "datatype": "FP32", "shape": [1, 4]}, ["x"]),
    "no shape": ("four", {"name": "x", "datatype": "FP32", "data": [1, 2, 3, 4]}, ["x"]),
    "no name": ("four", {"datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}, ["name"]),
}


@pytest.mark.parametrize("which", WRONG_TENSORS)
def test_a_wrong_tensor_is_refused_with_which_and_what_was_expected(http: httpx.Client, which: str) -> None:
    model, wrong, says = WRONG_TENSORS[which]
    refused(infer(http, model, wrong), 400, *says)


def test_missing_and_doubled_tensors_are_named(http: httpx.Client) -> None:
    a, b = row([1] * 4, "a", "INT32"), row([1] * 4, "b", "INT32")
    refused(infer(http, "add_sub", a), 400, "'b'")
    refused(infer(http, "add_sub", a, b, a), 400, "'a'")
    wider = tensor("b", "INT32", [1] * 8, [2, 4])
    refused(infer(http, "add_sub", a, wider), 400, "'b'")
    refused(infer(http, "add_sub", a, b, outputs=[{"name": "product"}]), 400, "product")


def test_wrong_binary_sizes_are_refused(http: httpx.Client) -> None:
    sixteen = struct.pack("<4f", 1, 2, 3, 4)
    for size in (8, 15, 17, 2**63):
        content, headers = binary_body(sixteen, size)
        refused(http.post("/v2/models/four/infer", content=content, headers=headers), 400, "x")
    content, headers = binary_body(sixteen + b"more", 16)
    refused(http.post("/v2/models/four/infer", content=content, headers=headers), 400)
    for length in ("-1", "10000", "ten", "5"):
        headers = {"Inference-Header-Content-Length": length}
        refused(http.post("/v2/models/four/infer", content=content, headers=headers), 400)


def test_a_body_may_be_nothing_but_the_only_input(http: httpx.Client) -> None:
    """Triton's raw binary request: the size tells the shape, and the answer is raw, too."""

    def ask(model: str, content: bytes) -> httpx.Response:
        headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
        return http.post(f"/v2/models/{model}/infer", content=content, headers=headers)

    for rows in (0, 1, 3):
        sent = struct.pack(f"<{4 * rows}f", *range(4 * rows))
        answer = ask("four", sent)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["Inference-Header-Content-Length"])
        assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [rows, 4]
        assert answer.content[length:] == sent
    # Of a free dimension beside that of rows, one row takes what there is.
    answer = ask("identity_int16", struct.pack("<5h", *range(5)))
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [1, 5]
    answer = ask("identity_bytes", b"one element\0")
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.content[length:] == b"\x0c\0\0\0one element\0"
    refused(ask("four", b"\0" * 15), 400, "'x'", "15 bytes don't fill")
    refused(ask("add_sub", b"\0" * 16), 400, "has one input")


def test_unknown_paths_and_wrong_methods_are_told_apart(http: httpx.Client) -> None:
    for path in ("/", "/v1/nothing", "/v2/models/four/nothing", "/v2/models", "/favicon.ico"):
        refused(http.get(path), 404)
    for path in ("/v2/models/nobody", "/v2/models/nobody/ready", "/v2/models/nobody/config", "/v2/models/nobody/stats"):
        refused(http.get(path), 404, "nobody")
    for path in ("/v2/models/nobody/infer", "/v2/models/four/versions/7/infer", "/v2/models/four/versions/x/infer"):
        assert http.post(path, json={"inputs": [ONE_ROW]}).status_code in (400, 404)
    wrong = http.get("/v2/models/four/infer")
    refused(wrong, 405)
    assert wrong.headers["allow"] == "POST"
    refused(http.post("/v2/health/live"), 405)
    refused(http.delete("/v2/models/four"), 405)


def test_what_is_not_built_is_named(http: httpx.Client) -> None:
    for path, feature in (
        ("/v2/repository/models/four/load", "load"),
        ("/v2/trace/setting", "trace"),
        ("/v2/systemsharedmemory/region/r/register", "shared memory"),
    ):
        refused(http.post(path), 501, feature)


def test_health_metadata_and_statistics_are_plain_gets(http: httpx.Client) -> None:
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/four/ready",
        "/v2/models/versioned/versions/2/ready",
    ):
        assert http.get(path).status_code == 200
        assert http.head(path).status_code == 200
    assert http.get("/v2").json()["name"] == "inferd"
    assert http.get("/v2/models/four/versions/1").json()["versions"] == ["1"]
    assert http.get("/v2/models/four/config").json()["name"] == "four"
    assert http.get("/v2/models/four/stats").json()["model_stats"][0]["name"] == "four"
    assert len(http.get("/v2/models/stats").json()["model_stats"]) == 18


def test_the_index_is_read_with_and_without_a_body(http: httpx.Client) -> None:
    for content in (b"", b"{}", b'{"ready": true}'):
        index = http.post("/v2/repository/index", content=content).json()
        assert {"name": "versioned", "version": "10", "state": "READY"}.items() <= index[-1].items()


def test_the_request_id_and_the_trace_are_passed_on(http: httpx.Client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-request-id": "mine", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = http.post("/v2/models/four/infer", json={"inputs": [ONE_ROW]}, headers=headers)
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["traceparent"].split("-")[1] == trace
    assert http.get("/v2/models/nobody").headers["x-request-id"]


def test_a_connection_outlives_a_request_that_was_wrong(zoo: Inferd) -> None:
    with httpx.Client(base_url=zoo.url) as http:
        for _ in range(3):
            refused(http.post("/v2/models/four/infer", content=b"{"), 400)
            assert infer(http, "four", ONE_ROW).status_code == 200


def test_a_head_that_is_too_large_is_refused(http: httpx.Client) -> None:
    try:
        answer = http.get("/v2", headers={"x-filler": "x" * 70_000})
    except httpx.RemoteProtocolError:
        return  # HTTP/2 may end the stream or the connection instead
    assert answer.status_code in (413, 431)


def test_garbage_ends_its_own_connection_and_nothing_else(zoo: Inferd) -> None:
    host, _, port = zoo.address.rpartition(":")
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + b"\xff" * 64,
        b"\r\n\r\n\0" * 9,
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            # The server may hang up before all of it is sent.
            with contextlib.suppress(OSError):
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
    assert httpx.get(f"{zoo.url}/v2/health/ready").status_code == 200
