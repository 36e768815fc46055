"""inferd.Client and AsyncClient against real servers, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest

import inferd
from inferd.types import DATATYPES

SCHEMES = ("http", "grpc")


class Blocking:
    """The face of an :class:`inferd.AsyncClient` that waits, so that one test speaks for both."""

    def __init__(self, url, **options):
        self._loop = asyncio.new_event_loop()

        async def make():
            return inferd.AsyncClient(url, **options)

        self._client = self._loop.run_until_complete(make())

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **named: self._loop.run_until_complete(method(*args, **named))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


KINDS = {"blocking": inferd.Client, "asyncio": Blocking}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=SCHEMES)
def client(request, kind, zoo):
    with kind(f"{request.param}://{zoo.address}") as connected:
        yield connected


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BF16"}))
def test_every_datatype_goes_there_and_back(client, datatype):
    if datatype == "BYTES":
        array = np.array([[b"a", "ünï".encode()], [b"", b"\xff"]], dtype=object)
    else:
        array = np.array([[0, 1], [1, 0]]).astype(DATATYPES[datatype])
    result = client.infer(f"identity_{datatype.lower()}", {"x": array}, timeout_s=30)
    np.testing.assert_array_equal(result["y"], array)
    assert result["y"].dtype == array.dtype


def test_bfloat16_is_rounded_from_floats(client):
    array = np.array([[1.0, -2.5]], np.float32)
    found = client.infer("identity_bf16", {"x": array})["y"]
    assert found.dtype.name == "bfloat16"
    np.testing.assert_array_equal(found.astype(np.float32), array)


def test_several_inputs_and_chosen_outputs(client):
    a, b = np.full((2, 4), 5, np.int32), np.full((2, 4), 3, np.int32)
    result = client.infer("add_sub", {"a": a, "b": b}, outputs=["difference"], request_id="seven")
    assert list(result.outputs) == ["difference"]
    assert (result["difference"] == 2).all()
    assert (result.model_name, result.model_version, result.id) == ("add_sub", "1", "seven")


def test_a_version_is_asked_for_by_number(client):
    assert client.infer("versioned", [[1, 2, 3, 4]], version=2).model_version == "2"
    assert client.infer("versioned", [[1, 2, 3, 4]]).model_version == "10"


def test_a_data_frame_goes_in(client):
    frame = pd.DataFrame([[1.0, 2, 3, 4]], columns=list("pqrs"))
    assert client.infer("four", frame)["y"].tolist() == [[1, 2, 3, 4]]


def test_what_the_server_says_of_itself(client):
    assert client.live()
    assert client.ready()
    assert client.model_ready("four")
    assert not client.model_ready("absent")
    assert client.server_metadata()["name"] == "inferd"
    assert client.metadata("four")["inputs"][0]["name"] == "x"
    assert client.config("four")["name"] == "four"
    client.infer("four", [[1, 2, 3, 4]])
    assert client.statistics("four")["model_stats"]


@pytest.mark.parametrize(
    ("model", "inputs", "error"),
    [
        ("absent", [[1.0]], inferd.NotFound),
        ("four", [[1.0, 2.0]], inferd.InvalidInput),
        ("four", {"z": [[1.0]]}, inferd.InvalidInput),
    ],
)
def test_errors_have_their_type_and_the_servers_words(client, model, inputs, error):
    with pytest.raises(error) as raised:
        client.infer(model, inputs)
    assert str(raised.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_deadline_holds_over_everything(scheme, kind, files, serve):
    with serve(files / "moody.py", "--no-profiling") as server, kind(f"{scheme}://{server.address}") as client:
        client.infer("moody", [[0, 0]])
        started = time.monotonic()
        with pytest.raises(inferd.DeadlineMissed):
            client.infer("moody", [[1, 3]], timeout_s=0.2)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_model_says_reaches_its_caller(scheme, kind, files, serve):
    with serve(files / "moody.py", "--no-profiling") as server, kind(f"{scheme}://{server.address}") as client:
        with pytest.raises(inferd.InvalidInput, match="rows that order a refusal"):
            client.infer("moody", [[5, 0]])
        with pytest.raises(inferd.ModelFailed, match="RuntimeError"):
            client.infer("moody", [[4, 0]])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nobody_there_is_unavailable_with_the_remedy(scheme, kind):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    retry = inferd.Retry(tries_max=2, backoff_s=0.001)
    with kind(f"{scheme}://127.0.0.1:{port}", retry=retry) as client:
        with pytest.raises(inferd.Unavailable, match="check that a server runs there"):
            client.infer("four", [[1, 2, 3, 4]], timeout_s=20)


def test_threads_share_a_client(zoo):
    for scheme in SCHEMES:
        with inferd.Client(f"{scheme}://{zoo.address}") as client, ThreadPoolExecutor(8) as callers:
            answers = callers.map(lambda n, client=client: client.infer("four", [[n, n, n, n]])["y"][0, 0], range(100))
            assert list(answers) == list(range(100))


class Stranger(BaseHTTPRequestHandler):
    """A server of the protocol that is not inferd: JSON only, and busy for the first calls."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", 2]}], "outputs": []})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        if self.server.calls <= self.server.busy:
            self.reply(503, {"error": "busy"})
        else:
            output = {"name": "y", "datatype": "INT64", "shape": [2], "data": [4, 5]}
            self.reply(200, {"model_name": "m", "outputs": [output]})

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def stranger():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    server.daemon_threads = True
    server.calls = server.busy = 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def url_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_other_servers_are_understood_and_asked_again_while_they_are_busy(kind, stranger):
    stranger.busy = 2
    with kind(url_of(stranger), retry=inferd.Retry(backoff_s=0.001)) as client:
        assert client.infer("m", [[1, 2]])["y"].tolist() == [4, 5]
    assert stranger.calls == 3


def test_a_request_of_a_sequence_is_sent_once(kind, stranger):
    stranger.busy = 1
    with kind(url_of(stranger)) as client:
        with pytest.raises(inferd.Unavailable, match="busy"):
            client.infer("m", [[1, 2]], sequence_id=3, sequence_start=True)
    assert stranger.calls == 1


def test_a_server_that_stays_busy_is_left_alone_when_the_budget_is_spent(kind, stranger):
    stranger.busy = 10**6
    retry = inferd.Retry(tries_max=3, budget=0.0, budget_reserve=2, backoff_s=0.001)
    with kind(url_of(stranger), retry=retry) as client:
        for _ in range(10):
            with pytest.raises(inferd.Unavailable, match="busy"):
                client.infer("m", [[1, 2]])
    assert stranger.calls == 10 + 2
