"""Answers that are given again: to whom, for how long, within which bound, and that nobody sees a difference."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from inferd.control.config import desired_state
from inferd.control.dataplane import DataPlane
from inferd.control.resources import observe
from outside.clients import Client
from outside.metrics import Metrics
from outside.models import EXIT, NOTHING, RAISE, SAY, SLEEP
from outside.traffic import Background, all_at_once, four_columns, orders, row_of, send
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outside.process import Inferd

MOODY = "/v2/models/moody/infer"


def runs(server: Inferd, word: float) -> int:
    """How often the moody model was told to say ``word``, and did."""
    return server.log().count(f"the model says {word:g}")


def counted(server: Inferd, model: str) -> tuple[float, float]:
    """Hits and misses."""
    metrics = Metrics(server.metrics_url)
    hits, misses = (metrics.value(f"inferd_cache_{what}_total", model=model) for what in ("hits", "misses"))
    stats = httpx.get(f"{server.url}/v2/models/{model}/stats").json()["model_stats"][0]["inference_stats"]
    assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (hits, misses)
    assert (stats["cache_hit"]["ns"] > 0) == (hits > 0)
    return hits, misses


@pytest.fixture(scope="module")
def cached(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    from outside.process import Inferd

    folder = tmp_path_factory.mktemp("cached")
    with Inferd(
        folder, files / "moody.py", files / "identity.onnx", "--cache-max-bytes", "1MiB", "--no-profiling"
    ) as server:
        yield server


def test_equal_requests_at_once_run_once_and_later_ones_not_at_all(cached: Inferd) -> None:
    before = counted(cached, "moody")
    body = orders((SAY, 101), (SLEEP, 0.3))
    answers = send(cached.address, MOODY, [body] * 30, connections=30)
    answers += send(cached.address, MOODY, [body] * 5)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert runs(cached, 101) == 1
    hits, misses = counted(cached, "moody")
    assert (hits - before[0], misses - before[1]) == (34, 1)


def test_whoever_waits_for_an_equal_request_does_so_within_its_own_timeout(cached: Inferd) -> None:
    body = orders((SAY, 102), (SLEEP, 1.0))
    leader = Background(lambda: all_at_once(cached.address, MOODY, [body], 1))
    wait_for(lambda: runs(cached, 102) == 1, "the run of the first")
    [hurried] = send(cached.address, MOODY, [body], Inferd_Timeout_Ms="100")
    assert hurried.status == 504, hurried.body
    assert 0.09 < hurried.took_s < 0.8
    [patient] = send(cached.address, MOODY, [body], Inferd_Timeout_Ms="20000")
    assert patient.body == leader.answers()[0].body
    assert runs(cached, 102) == 1


@contextmanager
def hurried_leader(
    serve, files: Path, word: float, timeout_ms: int
) -> Iterator[tuple[Inferd, int, Future, list[Future]]]:
    """A server that runs 0.8 s for a caller who waits ``timeout_ms``, and for six others who ask the same.

    Yields the server, the bytes of one request, the answers to the first and to the others.
    """
    body = orders((SAY, word), (SLEEP, 0.8))
    # A server that has not learned yet how long that takes: it would not let the first in.
    with (
        serve(files / "moody.py", "--cache-max-bytes", "1MiB", "--no-profiling") as server,
        ThreadPoolExecutor(8) as pool,
    ):
        hurried = pool.submit(send, server.address, MOODY, [body], 1, Inferd_Timeout_Ms=str(timeout_ms))
        wait_for(lambda: runs(server, word) == 1, "the run of the first")
        others = [pool.submit(send, server.address, MOODY, [body], 1) for _ in range(6)]
        yield server, len(body), hurried, others


def test_a_leader_whose_time_is_over_takes_nobody_along(serve, files: Path) -> None:
    with hurried_leader(serve, files, 103, 400) as (server, _, hurried, others):
        assert hurried.result()[0].status == 504
        assert {other.result()[0].status for other in others} == {200}
        # One of the others led the second run, and all had its answer.
        assert runs(server, 103) == 2


def test_who_waited_when_the_server_was_told_to_end_is_answered(serve, files: Path) -> None:
    with hurried_leader(serve, files, 105, 600) as (server, size, hurried, others):
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_inflight_bytes") == 7 * size, "the others")
        server.terminate()
        assert hurried.result()[0].status == 504
        # Its time was over: the others are run after all, though nothing new is admitted.
        assert {other.result()[0].status for other in others} == {200}
        assert server.wait() == 0


def test_errors_are_not_kept(cached: Inferd) -> None:
    for _ in range(2):
        answers = send(cached.address, MOODY, [orders((SAY, 104), (RAISE, 0))] * 4, connections=4)
        assert {answer.status for answer in answers} == {500}
    assert runs(cached, 104) >= 2


def test_a_request_that_ends_the_worker_is_answered_to_all_who_made_it(serve, files: Path) -> None:
    with serve(files / "moody.py", "--cache-max-bytes", "1MiB") as server:
        answers = send(server.address, MOODY, [orders((EXIT, 3))] * 3, connections=3)
        assert {answer.status for answer in answers} <= {500, 503}
        [after] = send(server.address, MOODY, [orders((NOTHING, 1))])
        assert after.status == 200


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_hit_is_the_miss_byte_for_byte_over_rest(cached: Inferd, binary: bool) -> None:
    index = 201 + binary
    body = json.loads(four_columns(index))
    if binary:
        body["parameters"] = {"binary_data_output": True}
    before = counted(cached, "identity")
    first, second = (httpx.post(f"{cached.url}/v2/models/identity/infer", json=body) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    same = ("content-type", "content-length", "inference-header-content-length")
    assert [first.headers.get(name) for name in same] == [second.headers.get(name) for name in same]
    hits, misses = counted(cached, "identity")
    assert (hits - before[0], misses - before[1]) == (1, 1)


def test_a_hit_is_the_miss_byte_for_byte_over_grpc(cached: Inferd) -> None:
    sent = np.array([row_of(203)], np.float32)
    with Client("grpc", cached.address) as client:
        first, second = (client.infer("identity", [client.input("x", sent, "FP32")]) for _ in range(2))
    assert first.get_response().SerializeToString() == second.get_response().SerializeToString()


def test_one_answer_serves_every_form_of_the_question(cached: Inferd) -> None:
    sent = np.array([row_of(204)], np.float32)
    hits = counted(cached, "identity")[0]
    for kind, binary in (("http", False), ("http", True), ("grpc", None)):
        with Client(kind, cached.address) as client:
            options: dict[str, Any] = {} if binary is None else {"binary_data": binary}
            tensor = client.input("x", sent, "FP32", **options)
            answer = client.infer("identity", [tensor], outputs=[client.output("y", **options)], request_id=f"{kind}")
            np.testing.assert_array_equal(answer.as_numpy("y"), sent)
    assert counted(cached, "identity")[0] - hits == 2


def test_a_selection_of_outputs_takes_from_the_same_answer(cached: Inferd) -> None:
    body = json.loads(orders((NOTHING, 205)))
    whole = httpx.post(f"{cached.url}{MOODY}", json=body).json()["outputs"]
    part = httpx.post(f"{cached.url}{MOODY}", json={**body, "outputs": [{"name": "pid"}]}).json()["outputs"]
    assert part == [whole[1]]


def test_other_inputs_are_other_requests(cached: Inferd) -> None:
    before = counted(cached, "identity")
    for index in range(300, 340):
        [answer] = send(cached.address, "/v2/models/identity/infer", [four_columns(index)])
        assert answer.data() == row_of(index)
    assert counted(cached, "identity") == (before[0], before[1] + 40)


def test_the_cache_never_takes_more_than_its_bound(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--cache-max-bytes", "8KiB", "--no-profiling") as server:
        for start in range(0, 200, 20):
            send(server.address, "/v2/models/identity/infer", [four_columns(start + more) for more in range(20)])
            assert Metrics(server.metrics_url).value("inferd_cache_bytes", model="identity") <= 8192
        assert Metrics(server.metrics_url).value("inferd_cache_bytes", model="identity") > 2048
        # Larger than the whole: answered, not kept.
        rows = [value for index in range(1000) for value in row_of(index)]
        tensor = {"name": "x", "datatype": "FP32", "shape": [1000, 4], "data": rows}
        for _ in range(2):
            answer = httpx.post(f"{server.url}/v2/models/identity/infer", json={"inputs": [tensor]})
            assert answer.json()["outputs"][0]["data"] == rows
        assert counted(server, "identity") == (0, 202)


def test_a_model_without_a_cache_runs_every_request(serve, files: Path) -> None:
    with serve(files / "moody.py") as server:
        body = orders((SAY, 1))
        send(server.address, MOODY, [body] * 3, connections=1)
        wait_for(lambda: runs(server, 1) == 3, "three runs")
        assert "inferd_cache" not in httpx.get(server.metrics_url).text


def test_a_version_that_is_loaded_again_has_an_empty_cache(files: Path) -> None:
    desired = desired_state(
        [files / "moody.py"], {}, {"cache_max_bytes": 2**20, "profiling": False}, observe(), ports_free=True
    )
    [model] = desired.models
    data_plane = DataPlane(desired.gateway, desired.log)
    try:
        addresses = data_plane.addresses

        def pid() -> int:
            [answer] = send(addresses["data"], MOODY, [orders((NOTHING, 0))])
            return answer.data(1)[0]

        def bytes_kept() -> float:
            return Metrics(f"http://{addresses['metrics']}/metrics").value("inferd_cache_bytes", model="moody")

        data_plane.load(model.settings)
        first = pid()
        assert pid() == first
        assert bytes_kept() > 0
        data_plane.unload("moody", 1)
        assert bytes_kept() == 0
        data_plane.load(model.settings)
        assert pid() != first
    finally:
        data_plane.close()


def test_the_steps_of_a_pipeline_are_answered_from_their_models_caches(serve, files: Path, tmp_path: Path) -> None:
    spec = tmp_path / "inferd.yaml"
    spec.write_text(
        f"models: [{{path: {files / 'moody.py'}, cache_max_bytes: 1MiB}}]\n"
        "pipelines:\n"
        "  - {name: line, steps: [{name: one, model: moody, inputs: {x: x}}], outputs: {y: one.y}}\n"
    )
    with serve(spec) as server:
        body = orders((SAY, 7))
        answers = [send(server.address, f"/v2/models/{name}/infer", [body])[0] for name in ("line", "moody", "line")]
        assert {answer.status for answer in answers} == {200}, answers
        assert answers[0].data() == answers[1].data() == answers[2].data() == [SAY, 7]
        assert runs(server, 7) == 1
        assert counted(server, "moody") == (2, 1)


def test_explain_says_what_the_cache_is_good_for(cached: Inferd) -> None:
    from inferd.cli.explain import ask, report

    send(cached.address, "/v2/models/identity/infer", [four_columns(400)] * 3)
    told = report(ask(cached.metrics_url, "identity"))
    assert "Cache" in told
    assert "of 1MiB" in told
    assert "without a run of their own" in " ".join(told.split())


def test_a_model_with_side_effects_can_not_have_a_cache(files: Path) -> None:
    import inferd

    with pytest.raises(inferd.SpecError, match="side effects"):
        inferd.Server(files / "moody.py", cache_max_bytes="1MiB", retry_on_worker_loss=False)
