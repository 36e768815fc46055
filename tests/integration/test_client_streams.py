"""Streams of inferd.Client and AsyncClient: the same over HTTP and gRPC, waiting or not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import threading
import time

import numpy as np
import pandas as pd
import pytest

import inferd
from outside.process import Inferd
from outside.waiting import wait_for

COUNT = '''\
"""Counts to ``n``; what becomes of the generator stands in the folder ``marks``."""

import os
import time
from pathlib import Path

import numpy as np

from inferd import InvalidInput, TensorSpec


class Count:
    inputs = [TensorSpec("n", "INT32", (-1,)), TensorSpec("order", "BYTES", (1,))]
    outputs = [
        TensorSpec("y", "FP32", (-1, 2)),
        TensorSpec("word", "BYTES", (1,)),
        TensorSpec("pid", "INT64", (1,)),
    ]

    def load(self, marks):
        self.marks = Path(marks)

    def predict(self, batch):
        action, _, mark = batch["order"][0].decode().partition(" ")
        if action == "refuse":
            raise InvalidInput("nothing is yielded to this")
        try:
            for number in range(int(batch["n"][0])):
                word = np.array([f"nº {number}".encode()], dtype=object)
                yield {"y": np.full((2, 2), number, np.float32), "word": word, "pid": np.array([os.getpid()])}
            if action == "end":
                raise InvalidInput("the end is bad")
            if action == "raise":
                raise RuntimeError("the model is bad")
            while action == "wait":
                yield {"y": np.zeros((0, 2), np.float32), "word": word, "pid": np.array([os.getpid()])}
                time.sleep(0.01)
            while action == "hang":
                time.sleep(1)
        finally:
            if mark:
                (self.marks / mark).touch()
'''


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def model(tmp_path_factory, marks):
    folder = tmp_path_factory.mktemp("streams") / "count"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(COUNT)
    (folder / "model.yaml").write_text(f"parameters: {{marks: {marks}}}\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    with Inferd(tmp_path_factory.mktemp("run"), model, "--threads", "1") as running:
        yield running


def waiting(url, found, take, *args, **named):
    with inferd.Client(url) as client, contextlib.closing(client.stream(*args, **named)) as answers:
        for answer in itertools.islice(answers, take):
            found.append(answer)


def on_asyncio(url, found, take, *args, **named):
    async def run():
        async with inferd.AsyncClient(url) as client, contextlib.aclosing(client.stream(*args, **named)) as answers:
            async for answer in answers:
                found.append(answer)
                if len(found) == take:
                    break

    asyncio.run(run())


@pytest.fixture(params=["waiting", "asyncio"])
def stream(request):
    """Appends answers to a list: ``stream(url, list, most, model, inputs, ...)``."""
    return {"waiting": waiting, "asyncio": on_asyncio}[request.param]


@pytest.fixture(params=["http", "grpc"])
def scheme(request):
    return request.param


@pytest.fixture
def url(server, scheme):
    return f"{scheme}://{server.address}"


def count(n, order="count"):
    return {"n": np.array([n], np.int32), "order": [order]}


def test_every_answer_comes_with_its_types_and_shapes(url, stream):
    found = []
    stream(url, found, None, "count", count(3), request_id="seven", version=1)
    assert [answer["y"].tolist() for answer in found] == [[[n, n], [n, n]] for n in (0.0, 1.0, 2.0)]
    assert [answer["word"].tolist() for answer in found] == [["nº 0".encode()], ["nº 1".encode()], ["nº 2".encode()]]
    assert {answer["y"].dtype for answer in found} == {np.dtype(np.float32)}
    assert {(answer.model_name, answer.model_version, answer.id) for answer in found} == {("count", "1", "seven")}


def test_there_may_be_no_answer(url, stream):
    found = []
    stream(url, found, None, "count", count(0))
    assert found == []


def test_outputs_are_chosen_and_a_data_frame_goes_in(url, stream):
    frame = pd.DataFrame({"n": np.array([2], np.int32), "order": ["count"]})
    found = []
    stream(url, found, None, "count", frame, outputs=["word"])
    assert [list(answer.outputs) for answer in found] == [["word"], ["word"]]


def test_a_model_of_one_answer_streams_it(zoo, stream, scheme):
    found = []
    stream(f"{scheme}://{zoo.address}", found, None, "four", [[1, 2, 3, 4]])
    assert [answer["y"].tolist() for answer in found] == [[[1, 2, 3, 4]]]


@pytest.mark.parametrize(
    ("order", "before", "error", "words"),
    [
        ("refuse", 0, inferd.InvalidInput, "nothing is yielded"),
        ("end", 2, inferd.InvalidInput, "the end is bad"),
        ("raise", 2, inferd.ModelFailed, "RuntimeError"),
    ],
)
def test_errors_have_their_type_wherever_they_come(url, stream, order, before, error, words):
    found = []
    with pytest.raises(error, match=words):
        stream(url, found, None, "count", count(2, order))
    assert len(found) == before


def test_a_model_that_is_not_there_is_not_found(url, stream):
    with pytest.raises(inferd.NotFound, match="absent"):
        stream(url, [], None, "absent", count(1))


def test_a_worker_that_is_killed_in_the_middle_is_unavailable(serve, model, stream, scheme):
    found = []
    killed = threading.Thread(
        target=lambda: (wait_for(lambda: found, "an answer"), os.kill(found[0]["pid"][0], signal.SIGKILL))
    )
    with serve(model, "--threads", "1") as server:
        killed.start()
        with pytest.raises(inferd.Unavailable, match="in the middle"):
            stream(f"{scheme}://{server.address}", found, None, "count", count(1, "hang"))
        killed.join()
    assert len(found) == 1


def test_a_deadline_holds_over_all_answers(url, stream, marks, request):
    mark = f"late-{request.node.callspec.id}"
    started = time.monotonic()
    found = []
    with pytest.raises(inferd.DeadlineMissed):
        stream(url, found, None, "count", count(1, f"wait {mark}"), timeout_s=0.5)
    assert found
    assert time.monotonic() - started < 10
    wait_for((marks / mark).exists, "the generator is closed")


def test_leaving_early_cancels_the_rest(url, stream, marks, request):
    mark = f"left-{request.node.callspec.id}"
    found = []
    stream(url, found, 2, "count", count(1 << 30, f"count {mark}"))
    assert len(found) == 2
    wait_for((marks / mark).exists, "the generator is closed")


@pytest.mark.parametrize(
    ("datatype", "inputs", "words"),
    [("fp32", [[float("inf")]], "infinity"), ("bytes", [[b"\xff"]], "UTF-8"), ("bf16", [[1.0]], "BF16")],
)
def test_what_json_can_not_carry_names_the_other_way(zoo, stream, datatype, inputs, words):
    with pytest.raises(inferd.InvalidInput, match=f"{words}.*\nhelp: stream over grpc"):
        stream(zoo.url, [], None, f"identity_{datatype}", {"x": inputs})
    if datatype != "bf16":
        found = []
        stream(f"grpc://{zoo.address}", found, None, f"identity_{datatype}", {"x": inputs})
        assert len(found) == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_number_that_is_missing_is_nan_over_both(zoo, stream, scheme):
    found = []
    stream(f"{scheme}://{zoo.address}", found, None, "identity_fp32", {"x": [[float("nan"), 1.5], [None, 2]]})
    np.testing.assert_array_equal(found[0]["y"].reshape(-1), [np.nan, 1.5, np.nan, 2])


METADATA = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": []}


@contextlib.contextmanager
def stranger(answer):
    """A server of the protocol that is not inferd: gives ``answer`` to a stream, and closes."""
    body = json.dumps(METADATA).encode()
    described = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                if head.startswith(b"POST"):
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    left = length - len(head.partition(b"\r\n\r\n")[2])
                    while left > 0:
                        left -= len(connection.recv(65536))
                connection.sendall(answer if head.startswith(b"POST") else described)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("answer", "before", "error", "words"),
    [
        (EVENTS + chunk(b'data: {"y": 1}\n\n'), 1, inferd.Unavailable, "no response"),
        (EVENTS + chunk(b'data: {"y": 1}\n\ndata: {"error": "bad"}\n\n') + chunk(b""), 1, inferd.ModelFailed, "bad"),
        (EVENTS + chunk(b"data: nothing\n\n") + chunk(b""), 0, inferd.InternalError, "invalid event"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 0, inferd.InternalError, "not an event stream"),
        (b"HTTP/1.1 503 -\r\nContent-Length: 16\r\n\r\n" + b'{"error":"busy"}', 0, inferd.Unavailable, "busy"),
    ],
)
def test_other_servers_fail_with_types_too(stream, answer, before, error, words):
    found = []
    with stranger(answer) as url, pytest.raises(error, match=words):
        stream(url, found, None, "m", [1.0])
    assert [answer["y"].tolist() for answer in found] == [[1]] * before
