"""Sequences: requests that go on from each other, whose state the server keeps or the model does."""

from __future__ import annotations

import os
import queue
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import inferd
from outside import models
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUMS = """
import os
from typing import TypedDict

from inferd import Model, Sequence


class Answer(TypedDict):
    sum: list[float]
    pid: list[int]
    total: list[float]


class Sums(Model):
    sequence = Sequence(state=["total"])

    def predict(self, value: list[float], total: list[float]) -> Answer:
        sums = [one + before for one, before in zip(value, total)]
        if -77.5 in value:
            os._exit(1)
        return {"sum": sums, "pid": [os.getpid()] * len(sums), "total": sums}
"""

OWN = """
from inferd import Context, Model, Sequence


class Own(Model):
    sequence = Sequence(idle_max_s=2, sequences_max=3)
    example = {"value": [0.0, 0.0]}

    def load(self):
        self.totals = {}

    def predict(self, value: float, context: Context) -> float:
        place = context.sequence
        if place is None:
            return 0.0
        before = 0.0 if place.start else self.totals[place.id]
        self.totals[place.id] = before + value
        return self.totals.pop(place.id) if place.end else self.totals[place.id]
"""

TRITON = '''
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Keeps totals by itself; checks that its controls say what its request does."""

    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            x, start, ids = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("INPUT", "START", "CORRID")
            )
            assert x.shape == (1, 1), x.shape
            name = request.correlation_id()
            first = bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
            assert (bool(start[0, 0]), int(ids[0, 0])) == (first, name)
            self.totals[name] = x[0, 0] + (0 if first else self.totals.get(name, 0))
            total = np.array([[self.totals[name]]], np.float32)
            responses.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT", total)]))
        return responses
'''

CONFIG = """
max_batch_size: 8
input [ { name: "%(input)s" data_type: TYPE_FP32 dims: [ %(dim)d ] } ]
output [ { name: "%(output)s" data_type: TYPE_FP32 dims: [ %(dim)d ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 64 }
  control_input [ { name: "%(start)s" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ]
  %(more)s
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[inferd.Server]:
    folder = tmp_path_factory.mktemp("sequences")
    (folder / "sums.py").write_text(SUMS)
    (folder / "own.py").write_text(OWN)
    models.accumulator(folder / "repository" / "steps" / "1" / "model.onnx")
    (folder / "repository" / "steps" / "model.yaml").write_text(
        "sequence: {start: start, state: {total: total_out}}\nreplicas: 2\n"
    )
    triton = folder / "triton"
    models.accumulator(triton / "state" / "1" / "model.onnx")
    state = 'state [ { input_name: "total" output_name: "total_out" data_type: TYPE_FP32 dims: [ 2 ] } ]'
    names = {"input": "x", "dim": 2, "output": "sum", "start": "start", "more": state}
    (triton / "state" / "config.pbtxt").write_text('backend: "onnxruntime"' + CONFIG % names)
    corrid = 'control_input [ { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ]'
    names = {"input": "INPUT", "dim": 1, "output": "OUTPUT", "start": "START", "more": corrid}
    (triton / "python").mkdir()
    (triton / "python" / "config.pbtxt").write_text('backend: "python"' + CONFIG % names)
    (triton / "python" / "1").mkdir()
    (triton / "python" / "1" / "model.py").write_text(TRITON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        paths = [folder / "sums.py", folder / "own.py", folder / "repository", triton]
        with inferd.Server(*paths, threads=1, profiling=False) as server:
            yield server


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[inferd.Server]:
    """One whose workers a test may kill."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "sums.py").write_text(SUMS)
    (tmp_path / "own.py").write_text(OWN)
    with inferd.Server(tmp_path / "sums.py", tmp_path / "own.py", threads=1, profiling=False) as server:
        yield server


def ask(
    server: inferd.Server,
    model: str,
    value: Any,
    sequence: Any,
    *,
    start: bool = False,
    end: bool = False,
    name: str = "value",
    datatype: str = "FP64",
) -> tuple[int, Any]:
    """The status, and the outputs by name or the error."""
    data = np.atleast_2d(value) if isinstance(value, list) else np.array([value])
    tensor = {"name": name, "datatype": datatype, "shape": list(data.shape), "data": data.reshape(-1).tolist()}
    parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
    body = {"inputs": [tensor], "parameters": parameters}
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=30)
    if answer.status_code != 200:
        return answer.status_code, answer.json()["error"]
    return 200, {output["name"]: output["data"] for output in answer.json()["outputs"]}


def step(server: inferd.Server, value: float, sequence: Any, **more: Any) -> tuple[int, Any]:
    return ask(server, "steps", [value, 2 * value], sequence, name="x", datatype="FP32", **more)


def test_each_request_goes_on_from_the_one_before_and_clients_see_no_state(server: inferd.Server) -> None:
    for sequence in (7, "seven"):
        assert step(server, 1, sequence, start=True) == (200, {"sum": [1, 2]})
        assert step(server, 10, sequence) == (200, {"sum": [11, 22]})
        assert step(server, 100, sequence, end=True) == (200, {"sum": [111, 222]})
        status, error = step(server, 1, sequence)
        assert (status, "knows no sequence" in error, "sequence_start" in error) == (400, True, True), error
    metadata = httpx.get(f"{server.url}/v2/models/steps").json()
    assert [one["name"] for one in metadata["inputs"]] == ["x"]
    assert [one["name"] for one in metadata["outputs"]] == ["sum"]


def test_sequences_do_not_mix_and_share_batches(server: inferd.Server) -> None:
    def run(sequence: int) -> list[tuple[int, Any]]:
        return [step(server, sequence, sequence, start=number == 0, end=number == 9) for number in range(10)]

    before = batches(server, "steps")
    with ThreadPoolExecutor(16) as pool:
        results = dict(zip(range(1, 65), pool.map(run, range(1, 65)), strict=True))
    for sequence, answers in results.items():
        expected = [(200, {"sum": [sequence * (n + 1), 2 * sequence * (n + 1)]}) for n in range(10)]
        assert answers == expected, sequence
    assert batches(server, "steps") - before < 640, "rows of different sequences ran together"


def batches(server: inferd.Server, model: str) -> int:
    stats = httpx.get(f"{server.url}/v2/models/{model}/stats").json()["model_stats"][0]
    return int(stats["execution_count"])


def test_state_outlives_the_worker_that_made_it(own_server: inferd.Server) -> None:
    status, first = ask(own_server, "sums", 1.0, 5, start=True)
    assert (status, first["sum"]) == (200, [1.0])
    assert "total" not in first
    os.kill(first["pid"][0], signal.SIGKILL)
    status, second = ask(own_server, "sums", 2.0, 5)
    assert (status, second["sum"]) == (200, [3.0])
    assert second["pid"] != first["pid"]


def test_a_request_that_fails_leaves_the_state_as_it_was(own_server: inferd.Server) -> None:
    assert ask(own_server, "sums", 1.0, 6, start=True)[0] == 200
    status, error = ask(own_server, "sums", -77.5, 6)
    assert status == 500, error
    status, answer = ask(own_server, "sums", 2.0, 6)
    assert (status, answer["sum"]) == (200, [3.0])


def test_requests_sent_all_at_once_over_a_stream_run_in_their_order(server: inferd.Server) -> None:
    client = tritonclient.grpc.InferenceServerClient(server.url.removeprefix("http://"))
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    try:
        for number in range(50):
            tensor = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
            place = {"sequence_id": 77, "sequence_start": number == 0, "sequence_end": number == 49}
            client.async_stream_infer("steps", [tensor], **place)
        sums = [float(answers.get(timeout=30).as_numpy("sum")[0, 0]) for _ in range(50)]
    finally:
        client.stop_stream()
        client.close()
    assert sums == list(range(1, 51))


def test_a_model_that_remembers_by_itself_loses_its_sequences_with_its_worker(own_server: inferd.Server) -> None:
    assert ask(own_server, "own", 1.0, 1, start=True) == (200, {"output": [1.0]})
    assert ask(own_server, "own", 2.0, 1) == (200, {"output": [3.0]})
    os.kill(pid_of(own_server, "own"), signal.SIGKILL)
    status, error = wait_for(lambda: served(ask(own_server, "own", 2.0, 1)), "the new worker", 30)
    assert (status, "sequence was lost" in error) == (503, True), error
    assert ask(own_server, "own", 2.0, 1)[0] == 400, "it is not known any more"
    assert ask(own_server, "own", 5.0, 1, start=True, end=True) == (200, {"output": [5.0]})


def served(answer: tuple[int, Any]) -> tuple[int, Any] | None:
    """None while no replica runs."""
    return None if "no replica" in answer[1] else answer


def pid_of(server: inferd.Server, model: str) -> int:
    found = [one for one in server.status()["models"] if one["name"] == model]
    return int(found[0]["replicas"][0]["pid"])


def test_sequences_are_bounded_in_number_and_forgotten_when_idle(server: inferd.Server) -> None:
    for sequence in (11, 12, 13):
        wait_for(lambda one=sequence: ask(server, "own", 1.0, one, start=True)[0] == 200, "a place", 30)
    status, error = ask(server, "own", 1.0, 14, start=True)
    assert (status, "sequences_max" in error) == (503, True), error
    wait_for(lambda: ask(server, "own", 1.0, 14, start=True, end=True)[0] == 200, "the others to be forgotten", 30)
    status, error = ask(server, "own", 1.0, 11)
    assert (status, "idle" in error) == (400, True), error


SLOW = """
import time

from inferd import Model, Sequence


class Slow(Model):
    sequence = Sequence(state={"before": "output"})
    example = {"value": [0.0, 0.0], "before": [0.0, 0.0]}

    def predict(self, value: list[float], before: list[float]) -> list[float]:
        time.sleep(0.3)
        return [one + other for one, other in zip(value, before)]
"""


def in_line(server: inferd.Server) -> int:
    return int(server.status()["models"][0]["sequences"]["waiting"])


def test_who_waits_in_a_sequence_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    server = inferd.Server(tmp_path / "slow.py", profiling=False)
    server.start()
    try:
        # The state is the only output, so that clients get none; they count what is answered.
        assert ask(server, "slow", 1.0, 1, start=True) == (200, {})
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(ask, server, "slow", 1.0, 1) for _ in range(12)]
            wait_for(lambda: len(asked) - 1 <= in_line(server) + sum(one.done() for one in asked), "requests in line")
            server.stop()
            answers = [one.result() for one in asked]
    finally:
        server.stop()
    assert answers == [(200, {})] * 12


def test_what_is_wrong_about_a_sequence_is_said(server: inferd.Server) -> None:
    status, error = ask(server, "sums", 1.0, 0)
    assert (status, "sequence_id" in error) == (400, True), error
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
    body["parameters"] = {"sequence_id": 1, "sequence_start": True}  # type: ignore[assignment]
    answer = httpx.post(f"{server.url}/v2/models/steps/infer", json=body)
    assert (answer.status_code, "one row" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc])
def test_a_triton_repository_keeps_its_sequences(server: inferd.Server, module: Any) -> None:
    with module.InferenceServerClient(server.url.removeprefix("http://")) as client:
        for model, name, output, width in (("state", "x", "sum", 2), ("python", "INPUT", "OUTPUT", 1)):
            sums = []
            for number in range(4):
                tensor = module.InferInput(name, [1, width], "FP32")
                tensor.set_data_from_numpy(np.full((1, width), number + 1, np.float32))
                place = {"sequence_id": 9, "sequence_start": number == 0, "sequence_end": number == 3}
                sums.append(float(client.infer(model, [tensor], **place).as_numpy(output)[0, 0]))
            assert sums == [1, 3, 6, 10], model
