"""Models that stream: many responses to one request, over gRPC streams and server-sent events."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from outside.process import Inferd
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = '''\
"""Counts to ``n``: a row of ``width`` numbers for each response. What it has done stands in the folder ``marks``."""

import asyncio
import os
import time
from pathlib import Path

import numpy as np

from inferd import InvalidInput, TensorSpec


class Numbers:
    inputs = [TensorSpec("n", "INT32", (-1,)), TensorSpec("width", "INT32", (1,)), TensorSpec("order", "BYTES", (1,))]
    outputs = [TensorSpec("y", "FP32", (-1,)), TensorSpec("pid", "INT64", (1,))]

    def load(self, marks):
        self.marks = Path(marks)

    def predict(self, batch):
        order = batch["order"][0].decode()
        action, _, name = order.partition(" ")
        if action == "refuse":
            raise InvalidInput("nothing is yielded to this")
        made = 0
        try:
            for number in range(batch["n"][0]):
                made += 1
                if name:
                    (self.marks / f"{name}.made").write_text(str(made))
                yield {"y": np.full(batch["width"][0], number, np.float32), "pid": np.array([os.getpid()])}
            if action == "raise":
                raise InvalidInput("the end is bad")
            if action == "hang":
                while True:
                    time.sleep(1)
            if action == "once" and not (self.marks / f"{name}.died").exists():
                (self.marks / f"{name}.died").touch()
                os._exit(1)
        finally:
            if name:
                (self.marks / f"{name}.closed").write_text(str(made))
'''

WORDS = """\
import asyncio
from collections.abc import AsyncIterator, Iterator

from inferd import Model


class Words(Model):
    def load(self):
        pass

    async def predict(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            await asyncio.sleep(0)
            yield word
"""

LETTERS = """\
from inferd import Model


class Letters(Model):
    example = {"text": ["ab", "c"]}

    def load(self):
        pass

    def predict(self, text: list[str]):
        for one in text:
            for letter in one:
                yield {"letter": [letter], "place": [float(one.index(letter))]}
"""

ECHO = """\
from inferd import Model


class Echo(Model):
    def load(self):
        pass

    def predict(self, text: list[str]) -> list[str]:
        return text
"""


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, marks: Path) -> Path:
    made = tmp_path_factory.mktemp("streaming")
    for name, text in {"numbers": NUMBERS, "words": WORDS, "letters": LETTERS, "echo": ECHO}.items():
        (made / name / "1").mkdir(parents=True)
        (made / name / "1" / "model.py").write_text(text)
    (made / "numbers" / "model.yaml").write_text(f"parameters: {{marks: {marks}}}\nexecution_max_s: 60\n")
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Inferd]:
    with Inferd(tmp_path_factory.mktemp("streaming_run"), folder, "--threads", "1") as running:
        yield running


class Stream:
    """A stream of tritonclient, its answers in a queue."""

    def __init__(self, server: Inferd) -> None:
        self.client = triton.InferenceServerClient(server.address)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream(cancel_requests=True)
        self.client.close()

    def count(self, n: int, request_id: str, order: str = "", width: int = 1, **options: Any) -> None:
        inputs = [tensor("n", [n], np.int32, "INT32"), tensor("width", [width], np.int32, "INT32")]
        inputs.append(tensor("order", [order.encode()], np.object_, "BYTES"))
        self.client.async_stream_infer("numbers", inputs, request_id=request_id, **options)

    def next(self) -> Any:
        result, error = self.answers.get(timeout=30)
        if error is not None:
            raise error
        return result


def tensor(name: str, values: list[Any], dtype: Any, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, [len(values)], datatype)
    made.set_data_from_numpy(np.array(values, dtype))
    return made


def is_final(result: Any) -> bool:
    return result.get_response().parameters["triton_final_response"].bool_param


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: ")
            yield json.loads(line.removeprefix("data: "))


def numbers(n: int, order: str = "", width: int = 1, **others: Any) -> dict[str, Any]:
    return {"n": n, "width": width, "order": order, **others}


def url(server: Inferd, model: str, action: str = "generate_stream") -> str:
    return f"{server.url}/v2/models/{model}/{action}"


def ask(server: Inferd, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with httpx.stream("POST", url(server, model), json=body, timeout=30) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        return list(events(response))


def test_every_yield_is_a_response_with_the_id_of_its_request(server: Inferd) -> None:
    with Stream(server) as stream:
        stream.count(3, "a", enable_empty_final_response=True)
        got = [stream.next() for _ in range(4)]
    assert [result.get_response().id for result in got] == ["a"] * 4
    assert [is_final(result) for result in got] == [False, False, False, True]
    assert [result.as_numpy("y").tolist() for result in got[:3]] == [[0], [1], [2]]
    assert got[3].as_numpy("y") is None


def test_no_response_is_an_answer_too(server: Inferd) -> None:
    with Stream(server) as stream:
        stream.count(0, "none", enable_empty_final_response=True)
        assert is_final(stream.next())
    assert ask(server, "numbers", numbers(0)) == []


def test_an_error_after_responses_ends_its_request_and_not_the_stream(server: Inferd) -> None:
    with Stream(server) as stream:
        stream.count(1, "a", "raise")
        assert stream.next().as_numpy("y").tolist() == [0]
        with pytest.raises(InferenceServerException, match="the end is bad"):
            stream.next()
        stream.count(1, "b", enable_empty_final_response=True)
        assert [is_final(stream.next()), is_final(stream.next())] == [False, True]
    with_error = ask(server, "numbers", numbers(1, "raise"))
    assert with_error[0]["y"] == 0
    assert with_error[1] == {"error": "the end is bad", "status": 400}
    assert ask(server, "numbers", numbers(1, "refuse")) == [{"error": "nothing is yielded to this", "status": 400}]


def test_a_unary_call_names_the_calls_that_stream(server: Inferd) -> None:
    with triton.InferenceServerClient(server.address) as client:
        config = client.get_model_config("numbers", as_json=True)["config"]
        assert config["model_transaction_policy"]["decoupled"] is True
        inputs = [tensor("n", [1], np.int32, "INT32"), tensor("width", [1], np.int32, "INT32")]
        inputs.append(tensor("order", [b""], np.object_, "BYTES"))
        with pytest.raises(InferenceServerException, match=r"ModelStreamInfer .*/v2/models/numbers/generate_stream"):
            client.infer("numbers", inputs)


def test_models_of_either_kind_stream_sync_or_not(server: Inferd) -> None:
    assert [event["output"] for event in ask(server, "words", {"text": "so it goes"})] == ["so", "it", "goes"]
    letters = ask(server, "letters", {"text": ["ab", "c"], "id": "q"})
    assert [(event["letter"], event["place"], event["id"]) for event in letters] == [
        ("a", 0, "q"),
        ("b", 1, "q"),
        ("c", 0, "q"),
    ]
    assert ask(server, "words", {"text": ["two", "rows"]})[0]["error"].startswith("Words.predict() streams")


def test_generate_has_exactly_one_response(server: Inferd) -> None:
    def generate(model: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(url(server, model, "generate"), json=body, timeout=30)

    one = generate("words", {"text": "one", "id": "q", "temperature": 0.5})
    assert one.status_code == 200
    assert one.json() == {"id": "q", "model_name": "words", "model_version": "1", "output": "one"}
    for text, what in {"": "no response", "one two": "more than one"}.items():
        answer = generate("words", {"text": text})
        assert answer.status_code == 400
        assert what in answer.json()["error"]
    assert generate("words", {}).status_code == 400
    assert generate("nobody", {}).status_code == 404
    versioned = httpx.post(f"{server.url}/v2/models/words/versions/1/generate", json={"text": "one"})
    assert versioned.json()["output"] == "one"


def test_ordinary_models_generate_too(server: Inferd) -> None:
    answer = httpx.post(url(server, "echo", "generate"), json={"text": ["a", "b"]}, timeout=30)
    assert answer.json()["output"] == ["a", "b"]
    assert [event["output"] for event in ask(server, "echo", {"text": "a"})] == ["a"]


def test_ten_thousand_large_responses_to_a_slow_reader_stay_bounded(server: Inferd, marks: Path) -> None:
    count, width = 10_000, 25_000  # 100 KB each: 1 GB together
    body = numbers(count, "count slow", width)
    before = resident_bytes(server)
    with httpx.stream("POST", url(server, "numbers"), json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        # Nobody reads: the model stops at some response, far from the last.
        made = wait_for(lambda: settled(marks / "slow.made"), "the model waits for its reader")
        assert made < count / 20
        assert resident_bytes(server) - before < 64 << 20
    wait_for((marks / "slow.closed").exists, "the generator is closed when the reader goes")
    stream_all(server, count, width, before)


def stream_all(server: Inferd, count: int, width: int, before: int) -> None:
    """All of them over gRPC, in their order, with a look at the memory now and then."""
    with Stream(server) as stream:
        stream.answers = queue.Queue(8)
        stream.count(count, "all", width=width, enable_empty_final_response=True)
        for number in range(count):
            found = stream.next().as_numpy("y")
            assert found[0] == number
            assert found.shape == (width,)
            if number % 1000 == 0:
                assert resident_bytes(server) - before < 64 << 20
        assert is_final(stream.next())


def resident_bytes(server: Inferd) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def settled(mark: Path) -> int:
    """What stands in ``mark`` when it stands still for as long as many responses take; else 0."""
    pause = threading.Event()
    seen = mark.read_text() if mark.exists() else ""
    for _ in range(20):
        pause.wait(0.025)
        if not mark.exists() or mark.read_text() != seen:
            return 0
    return int(seen or 0)


def test_a_client_that_goes_stops_the_generator(server: Inferd, marks: Path) -> None:
    with httpx.stream("POST", url(server, "numbers"), json=numbers(1 << 30, "count gone"), timeout=30) as response:
        next(response.iter_lines())
    wait_for((marks / "gone.closed").exists, "the generator is closed")
    with Stream(server) as stream:
        stream.count(1 << 30, "a", "count cancelled")
        stream.next()
    wait_for((marks / "cancelled.closed").exists, "the generator is closed")
    assert ask(server, "numbers", numbers(1))[0]["y"] == 0


def test_a_timeout_ends_a_stream(server: Inferd, marks: Path) -> None:
    got = ask(server, "numbers", numbers(1 << 30, "count late", timeout=300_000))
    assert "y" in got[0]
    assert "timeout" in got[-1]["error"]
    wait_for((marks / "late.closed").exists, "the generator is closed")


def test_a_worker_killed_in_mid_stream_is_an_error_and_the_next_request_works(serve: Any, folder: Path) -> None:
    with serve(folder, "--threads", "1") as server:
        with httpx.stream("POST", url(server, "numbers"), json=numbers(1, "hang"), timeout=30) as response:
            found = events(response)
            os.kill(next(found)["pid"], signal.SIGKILL)
            assert "in the middle" in next(found)["error"]
            assert list(found) == []
        ready = f"{server.url}/v2/models/numbers/ready"
        wait_for(lambda: httpx.get(ready).status_code == 200, "a worker is started again")
        assert ask(server, "numbers", numbers(1))[0]["y"] == 0


def test_a_worker_that_dies_before_the_first_response_is_tried_again(serve: Any, folder: Path, marks: Path) -> None:
    with serve(folder, "--threads", "1") as server:
        assert ask(server, "numbers", numbers(0, "once again")) == []
        assert (marks / "again.died").exists()
        assert (marks / "again.closed").exists()


def test_streams_share_a_call_with_each_other(server: Inferd) -> None:
    with Stream(server) as stream:
        for request in range(20):
            stream.count(request % 4, str(request), enable_empty_final_response=True)
        ended: dict[str, int] = {}
        while len(ended) < 20:
            result = stream.next()
            request_id = result.get_response().id
            assert request_id not in ended
            if is_final(result):
                ended[request_id] = int(request_id) % 4
    assert set(ended) == {str(request) for request in range(20)}
