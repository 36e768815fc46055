"""Pipelines of real models, over REST and gRPC."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
import pytest

from outside import models
from outside.clients import KINDS, Client
from outside.metrics import Metrics
from outside.models import SLEEP
from outside.process import Inferd
from outside.traffic import Background, all_at_once, four_columns, orders, row_of, tensor
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

YAML = """
defaults: {threads: 1, profiling: false}
models:
  - one.onnx
  - {path: other.onnx, replicas: 2}
  - judge.py
  - moody.py
pipelines:
  - name: sequence
    slo: 500ms
    steps:
      - {name: last, model: other, inputs: {x: first.y}}
      - {name: first, model: one, inputs: {x: numbers}}
    outputs: {result: last.y}
  - name: join
    steps:
      - {name: left, model: one, inputs: {x: a}}
      - {name: right, model: other, inputs: {x: b}}
      - {name: both, model: judge, inputs: {x: left.y, z: right.y}}
    outputs: {sum: both.sum, left: left.y}
  - name: switch
    steps:
      - {name: judged, model: judge, inputs: {x: numbers, z: numbers}}
      - {name: high, model: one, inputs: {x: judged.sum}, when: {tensor: judged.large, equals: 1}}
      - {name: low, model: other, inputs: {x: numbers}, when: {tensor: judged.large, equals: 0}}
    outputs: {result: [high.y, low.y], large: judged.large}
  - name: shares
    steps:
      - {name: only, model: {one: 1, other: 3}, inputs: {x: numbers}}
    outputs: {result: only.y}
  - name: careful
    steps:
      - {name: risky, model: judge, inputs: {x: numbers, z: numbers}, optional: true}
      - {name: safe, model: one, inputs: {x: numbers}}
    outputs: {result: [risky.sum, safe.y]}
  - name: strict
    steps:
      - {name: before, model: one, inputs: {x: numbers}}
      - {name: risky, model: judge, inputs: {x: before.y, z: before.y}}
    outputs: {result: risky.sum}
  - name: slow
    steps:
      - {name: sleep, model: moody, inputs: {x: orders}}
      - {name: again, model: moody, inputs: {x: sleep.y}}
    outputs: {done: again.y}
"""

JUDGE = """
import numpy as np

from inferd import InvalidInput


class Judge:
    inputs = [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("x", "z")]
    outputs = [
        {"name": "sum", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "large", "datatype": "INT64", "shape": [-1, 1]},
    ]

    def load(self):
        pass

    def predict(self, batch):
        if (batch["x"] < 0).any():
            raise InvalidInput("negative numbers are not judged")
        total = batch["x"] + batch["z"]
        return {"sum": total, "large": (total.sum(axis=1, keepdims=True) > 100).astype(np.int64)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    models.identity(folder / "one.onnx", "FP32", ["n", 4])
    models.identity(folder / "other.onnx", "FP32", ["n", 4])
    models.moody(folder / "moody.py")
    (folder / "judge.py").write_text(JUDGE)
    (folder / "inferd.yaml").write_text(YAML)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    with Inferd(tmp_path_factory.mktemp("run"), folder / "inferd.yaml") as running:
        yield running


def ask(server: Inferd, pipeline: str, *inputs: tuple[str, list[float]], **headers: str) -> httpx.Response:
    body = {"inputs": [tensor(name, "FP32", data, [len(data) // 4, 4]) for name, data in inputs]}
    return httpx.post(f"{server.url}/v2/models/{pipeline}/infer", json=body, headers=headers)


def outputs(answer: httpx.Response) -> dict[str, list[float]]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_is_asked_and_described_like_a_model(kind: str, server: Inferd) -> None:
    numbers = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Client(kind, server.address) as client:
        result = client.infer("sequence", [client.input("numbers", numbers, "FP32")])
        assert (result.as_numpy("result") == numbers).all()
        assert client.call("is_model_ready", "sequence")
        metadata = client.describe("get_model_metadata", "sequence")
        assert metadata["platform"] == "ensemble"
        assert [one["name"] for one in metadata["inputs"]] == ["numbers"]
        assert client.describe("get_model_config", "sequence")
        stats = client.describe("get_inference_statistics", "sequence")["model_stats"][0]
        assert int(stats["inference_stats"]["success"]["count"]) >= 1


def test_steps_side_by_side_are_joined(server: Inferd) -> None:
    found = outputs(ask(server, "join", ("a", [1, 2, 3, 4]), ("b", [10, 20, 30, 40])))
    assert found == {"sum": [11, 22, 33, 44], "left": [1, 2, 3, 4]}


def test_a_switch_takes_one_way_and_rows_that_disagree_are_sent_back(server: Inferd) -> None:
    assert outputs(ask(server, "switch", ("numbers", [1, 1, 1, 1]))) == {"result": [1, 1, 1, 1], "large": [0]}
    assert outputs(ask(server, "switch", ("numbers", [50] * 4))) == {"result": [100] * 4, "large": [1]}
    both = ask(server, "switch", ("numbers", [1, 1, 1, 1, 50, 50, 50, 50]))
    assert both.status_code == 400
    assert "judged.large" in both.json()["error"]
    assert "separate requests" in both.json()["error"]


def test_a_splitter_gives_each_model_its_share(server: Inferd) -> None:
    def rows(model: str) -> float:
        return Metrics(server.metrics_url).value("inferd_batch_rows_sum", model=model)

    before = rows("one"), rows("other")
    for _ in range(40):
        outputs(ask(server, "shares", ("numbers", [1, 2, 3, 4])))
    one, other = rows("one") - before[0], rows("other") - before[1]
    assert one + other == 40
    # Evenly spread, so that no run of requests is far from the shares.
    assert 8 <= one <= 12


def test_an_optional_step_that_fails_is_done_without(server: Inferd) -> None:
    assert outputs(ask(server, "careful", ("numbers", [1] * 4))) == {"result": [2] * 4}
    assert outputs(ask(server, "careful", ("numbers", [-1] * 4))) == {"result": [-1] * 4}


def test_a_step_that_fails_names_itself(server: Inferd) -> None:
    answer = ask(server, "strict", ("numbers", [-1] * 4))
    assert answer.status_code == 400
    assert answer.json()["error"] == "step 'risky' of pipeline 'strict': negative numbers are not judged"


def test_one_timeout_holds_for_all_steps(server: Inferd) -> None:
    path = "/v2/models/slow/infer"
    body = {"inputs": [tensor("orders", "FP32", [float(SLEEP), 0.3], [1, 2])]}
    begun = time.monotonic()
    late = httpx.post(f"{server.url}{path}", json=body, headers={"Inferd-Timeout-Ms": "100"})
    assert (late.status_code, time.monotonic() - begun < 0.3) == (504, True), late.text
    assert httpx.post(f"{server.url}{path}", json=body).status_code == 200


def test_a_caller_who_leaves_takes_his_steps_along(folder: Path, tmp_path: Path) -> None:
    with Inferd(tmp_path, folder / "inferd.yaml") as server:
        body = {"inputs": [tensor("orders", "FP32", [float(SLEEP), 0.2], [1, 2])]}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=0.1)

        def executed() -> float:
            return Metrics(server.metrics_url).value("inferd_execution_duration_seconds_count", model="moody")

        begun = executed()
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_inflight_bytes") == 0, "the end of it")
        # Its first step had begun; the second never came.
        assert httpx.post(f"{server.url}/v2/models/moody/infer", content=orders((0, 0))).status_code == 200
        assert executed() <= begun + 2


def test_a_worker_killed_in_the_middle_loses_nothing(folder: Path, tmp_path: Path) -> None:
    with Inferd(tmp_path, folder / "inferd.yaml") as server:
        bodies = [four_columns(index).replace(b'"x"', b'"numbers"') for index in range(4000)]
        traffic = Background(lambda: all_at_once(server.address, "/v2/models/sequence/infer", bodies, 16))
        wait_for(
            lambda: Metrics(server.metrics_url).value("inferd_requests_total", model="sequence", outcome="ok") > 300,
            "load",
        )
        status = httpx.get(server.metrics_url.replace("/metrics", "/explain/other")).json()
        psutil.Process(status["models"][0]["replicas"][0]["pid"]).kill()
        answers = traffic.answers()
        assert {answer.status for answer in answers} == {200}
        assert all(answer.data() == row_of(answer.index) for answer in answers)


def test_draining_answers_what_a_pipeline_admitted(folder: Path, tmp_path: Path) -> None:
    with Inferd(tmp_path, folder / "inferd.yaml") as server:
        body = json.dumps({"inputs": [tensor("orders", "FP32", [float(SLEEP), 0.3], [1, 2])]}).encode()
        traffic = Background(lambda: all_at_once(server.address, "/v2/models/slow/infer", [body] * 3, 3))
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_inflight_bytes") > 0, "requests under way")
        server.terminate()
        assert [answer.status for answer in traffic.answers()] == [200] * 3
        assert server.wait() == 0


def test_pipelines_that_share_a_step_share_its_batches(folder: Path, tmp_path: Path) -> None:
    shared = folder / "shared.yaml"
    shared.write_text(
        """
defaults: {threads: 1, profiling: false}
models: [one.onnx, moody.py]
pipelines:
  - {name: mine, steps: [{name: s, model: moody, inputs: {x: orders}}], outputs: {y: s.y}}
  - {name: yours, steps: [{name: s, model: moody, inputs: {x: orders}}], outputs: {y: s.y}}
"""
    )
    with Inferd(tmp_path, shared) as server:
        body = json.dumps({"inputs": [tensor("orders", "FP32", [float(SLEEP), 0.05], [1, 2])]}).encode()
        both = [
            Background(lambda name=name: all_at_once(server.address, f"/v2/models/{name}/infer", [body] * 20, 10))
            for name in ("mine", "yours")
        ]
        assert {answer.status for traffic in both for answer in traffic.answers()} == {200}
        metrics = Metrics(server.metrics_url)
        rows = metrics.value("inferd_batch_rows_sum", model="moody")
        assert rows == 40
        assert metrics.value("inferd_batch_rows_count", model="moody") < rows / 2


def test_a_burst_of_one_tenants_pipeline_costs_that_tenant_where_two_share_a_step(folder: Path, tmp_path: Path) -> None:
    shared = folder / "tenants.yaml"
    shared.write_text(
        """
server: {tenant_header: x-tenant, tenants: {mine: 1, yours: 1}}
defaults: {threads: 1, profiling: false}
models:
  - one.onnx
  - {path: moody.py, batching: off}
pipelines:
  - name: mine
    steps: [{name: own, model: one, inputs: {x: numbers}}, {name: shared, model: moody, inputs: {x: orders}}]
    outputs: {own: own.y, done: shared.y}
  - {name: yours, steps: [{name: shared, model: moody, inputs: {x: orders}}], outputs: {done: shared.y}}
"""
    )
    order = tensor("orders", "FP32", [float(SLEEP), 0.02], [1, 2])
    with Inferd(tmp_path, shared) as server:

        def send(pipeline: str, inputs: list[dict[str, Any]], count: int) -> Background:
            body = json.dumps({"inputs": inputs}).encode()
            path, headers = f"/v2/models/{pipeline}/infer", {"x-tenant": pipeline}
            return Background(lambda: all_at_once(server.address, path, [body] * count, count, headers))

        yours = send("yours", [order], 80)
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_queue_rows", model="moody") > 60, "a backlog")
        mine = send("mine", [tensor("numbers", "FP32", row_of(1), [1, 4]), order], 15)
        answers = [*mine.answers(), *yours.answers()]
        assert {answer.status for answer in answers} == {200}
        # Every other run is mine until mine are done: after some thirty of the eighty.
        longest = [max(answer.took_s for answer in traffic.answers()) for traffic in (mine, yours)]
        assert longest[0] < 0.7 * longest[1], longest


@pytest.mark.parametrize(
    ("steps", "outputs_", "fault"),
    [
        (
            "[{name: a, model: one, inputs: {x: n}}, {name: b, model: counts, inputs: {x: a.y}}]",
            "{r: b.y}",
            "pipeline 'wrong', step 'b': input 'x' takes INT64[-1, 4], but 'a.y' is FP32[-1, 4]",
        ),
        (
            "[{name: a, model: one, inputs: {x: b.y}}, {name: b, model: one, inputs: {x: a.y}}]",
            "{r: b.y}",
            "pipeline 'wrong': steps 'a', 'b' wait for each other; break the cycle",
        ),
        (
            "[{name: a, model: one, inputs: {w: n}}]",
            "{r: a.y}",
            "pipeline 'wrong', step 'a': its model has no input 'w'; it takes 'x'",
        ),
        (
            "[{name: a, model: one, inputs: {x: n}}]",
            "{r: a.z}",
            "'a.z' is given by no step; that step gives 'y'",
        ),
        (
            "[{name: a, model: onne, inputs: {x: n}}]",
            "{r: a.y}",
            "pipeline 'wrong', step 'a': there is no model 'onne'; did you mean 'one'?",
        ),
    ],
)
def test_steps_that_do_not_fit_are_told_at_load(
    steps: str, outputs_: str, fault: str, folder: Path, tmp_path: Path
) -> None:
    models.identity(folder / "counts.onnx", "INT64", ["n", 4])
    file = folder / "wrong.yaml"
    file.write_text(
        f"models: [one.onnx, counts.onnx]\npipelines:\n  - {{name: wrong, steps: {steps}, outputs: {outputs_}}}\n"
    )
    server = Inferd(tmp_path, file).launch()
    assert server.wait() in (1, 2)
    assert fault in server.log(), server.log()
