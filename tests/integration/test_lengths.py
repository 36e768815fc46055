"""Inputs of different lengths that share a batch, and requests of more rows than run together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnxruntime
import pytest

from outside import models
from outside.metrics import Metrics
from outside.process import Inferd
from outside.traffic import send, tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFER = "/v2/models/masked/infer"
# The padding of x is no zero: only the mask keeps it out of the answer.
PADDING = """\
padding:
  inputs:
    x: {axis: 1, value: 7}
    mask: {axis: 1, value: 0}
  outputs:
    shifted: {axis: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    models.masked(folder / "masked" / "1" / "model.onnx")
    (folder / "masked" / "model.yaml").write_text(PADDING)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    run = tmp_path_factory.mktemp("lengths_run")
    with Inferd(run, folder, "--threads", "1", "--no-profiling", "--batch-rows-max", "16") as server:
        yield server


def inputs_of(rows: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """Whole numbers, so that sums are exact in any order."""
    random = np.random.default_rng(seed)
    x = random.integers(-50, 50, (rows, length)).astype(np.float32)
    return {"x": x, "mask": (random.random((rows, length)) < 0.7).astype(np.float32)}


def body_of(inputs: dict[str, np.ndarray]) -> bytes:
    tensors = [tensor(name, "FP32", array.ravel().tolist(), list(array.shape)) for name, array in inputs.items()]
    return json.dumps({"inputs": tensors}).encode()


def outputs_of(answer: Any) -> list[np.ndarray]:
    return [np.array(one["data"], np.float32).reshape(one["shape"]) for one in answer["outputs"]]


def test_every_request_of_a_burst_of_many_lengths_gets_what_it_would_get_alone(folder: Path, server: Inferd) -> None:
    random = np.random.default_rng(4)
    requests = [inputs_of(int(random.integers(1, 4)), int(random.integers(1, 70)), seed) for seed in range(300)]
    answers = send(server.address, INFER, [body_of(one) for one in requests], connections=64)
    lone = onnxruntime.InferenceSession(folder / "masked" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for one, answer in zip(requests, answers, strict=True):
        assert answer.status == 200, answer
        for got, expected in zip(outputs_of(answer.json()), lone.run(None, one), strict=True):
            np.testing.assert_array_equal(got, expected)
    metrics = Metrics(server.metrics_url)
    runs, rows = (metrics.value(f"inferd_batch_rows_{part}", model="masked") for part in ("count", "sum"))
    assert rows > 1.5 * sum(len(one["x"]) for one in requests) / len(requests) * runs, "nothing shared a batch"


def test_a_request_of_many_rows_and_its_own_length_is_cut_and_put_together(folder: Path, server: Inferd) -> None:
    before = Metrics(server.metrics_url).value("inferd_batch_rows_count", model="masked")
    many = inputs_of(100, 13, 5)
    answer = httpx.post(f"{server.url}{INFER}", content=body_of(many), timeout=30)
    lone = onnxruntime.InferenceSession(folder / "masked" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for got, expected in zip(outputs_of(answer.json()), lone.run(None, many), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert Metrics(server.metrics_url).value("inferd_batch_rows_count", model="masked") - before >= 7
    statistics = httpx.get(f"{server.url}/v2/models/masked/stats").json()["model_stats"][0]
    assert statistics["inference_stats"]["success"]["count"] < statistics["inference_count"]


def test_padded_inputs_of_one_request_must_have_one_length(server: Inferd) -> None:
    wrong = {"x": np.zeros((1, 3), np.float32), "mask": np.zeros((1, 4), np.float32)}
    answer = httpx.post(f"{server.url}{INFER}", content=body_of(wrong))
    assert (answer.status_code, "one length" in answer.text) == (400, True), answer.text


@pytest.mark.parametrize(
    ("padding", "part"),
    [
        ("{inputs: {y: {axis: 1}}}", "'y' is not one of the model's; it has x, mask"),
        ("{inputs: {x: {axis: 2}}}", "no free dimension 2"),
        ("{inputs: {x: {}}, outputs: {total: {axis: 1}}}", "no free dimension 1"),
    ],
)
def test_padding_that_the_model_cannot_have_is_told_when_it_is_loaded(
    serve, folder: Path, tmp_path: Path, padding: str, part: str
) -> None:
    (tmp_path / "inferd.yaml").write_text(
        f"models:\n  - path: {folder / 'masked' / '1' / 'model.onnx'}\n    name: masked\n    padding: {padding}\n"
    )
    server = serve(tmp_path / "inferd.yaml").launch()
    assert server.wait() != 0
    assert part in server.log() + server.output()
    server.assert_nothing_is_left()
    server.kill()
