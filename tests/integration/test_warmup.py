"""Requests that warm replicas up, and names of classes: what stands beside a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

import inferd
from outside import models
from outside.clients import Client
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

NOTING = """
import os
from pathlib import Path

from inferd import InvalidInput, Model


class Noting(Model):
    example = {"text": ["example", "example"], "top": [1, 1]}

    def load(self, file: str):
        self.file = Path(file)

    def predict(self, text: list[str], top: list[int] = 7) -> list[str]:
        if not all(text):
            raise InvalidInput("there is no text")
        if text[0] in ("good", "from"):
            with self.file.open("a") as file:
                print(os.getpid(), text, top, file=file)
        if text[0] == "die":
            os._exit(3)
        return text
"""

BODY = {
    "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["from", "file"]},
        {"name": "top", "datatype": "INT64", "shape": [2], "data": [3, 4]},
    ]
}


def noting(folder: Path, warmup: str) -> Path:
    (folder / "m" / "1").mkdir(parents=True)
    (folder / "m" / "warmup").mkdir()
    (folder / "m" / "warmup" / "request.json").write_text(json.dumps(BODY))
    (folder / "m" / "1" / "model.py").write_text(NOTING)
    (folder / "m" / "model.yaml").write_text(f"parameters: {{file: '{folder}/noted'}}\nwarmup: {warmup}\n")
    return folder / "m"


def test_every_replica_runs_every_sample_before_it_is_ready(tmp_path: Path) -> None:
    warmup = "[{name: usual, inputs: {text: [good]}, rows: 3, count: 2}, {file: request.json}]"
    wanted = ["['good', 'good', 'good'] [7, 7, 7]"] * 2 + ["['from', 'file'] [3, 4]"]
    with inferd.Server(noting(tmp_path, warmup), replicas=2, profiling=False) as server:
        noted = [line.split(" ", 1) for line in (tmp_path / "noted").read_text().splitlines()]
        pids = {pid for pid, _ in noted}
        assert len(pids) == 2
        for pid in pids:
            # What the probe made of the samples comes before.
            assert [what for process, what in noted if process == pid][-len(wanted) :] == wanted
        # A replica that takes the place of another is warmed as it was.
        with inferd.Client(server.url) as client, pytest.raises(inferd.InferdError):
            client.infer("m", {"text": ["die"]})

        def lines() -> list[str]:
            return (tmp_path / "noted").read_text().splitlines()

        wait_for(lambda: any(one.split(" ", 1)[0] not in pids and "from" in one for one in lines()), "a new replica")


@pytest.mark.parametrize(
    ("warmup", "words"),
    [
        ("[{inputs: {text: [good]}}, {name: empty, inputs: {text: ['']}}]", "warm-up sample 'empty': there is no text"),
        ("[{inputs: {words: [good]}}]", "warm-up sample '1': the model has no input 'words'"),
        ("[{inputs: {top: [1]}}]", "warm-up sample '1': it lacks input 'text' (BYTES [-1])"),
        ("[{inputs: {text: [good], top: [half]}}]", "warm-up sample '1': input 'top': \"half\" is not a valid INT64"),
        ("[{inputs: {text: [good]}, rows: 33}]", "warm-up sample '1': it has 33 rows, and batch_rows_max is 32"),
    ],
)
def test_a_sample_that_fails_ends_the_load(tmp_path: Path, warmup: str, words: str) -> None:
    with pytest.raises(inferd.ModelFailed) as failed, inferd.Server(noting(tmp_path, warmup), profiling=False):
        pass
    assert words in str(failed.value)
    assert "help: correct the sample" in str(failed.value)


@pytest.mark.parametrize(
    ("warmup", "words"),
    [
        ("[{file: other.json}]", "m/1: warm-up sample 'other.json': '"),
        ("[{rows: 0}]", "model.yaml:2: warmup: sample 1: rows: 0 is not a positive integer"),
        ("[{row: 2}]", "model.yaml:2: warmup: sample 1: unknown key 'row'; known keys: name, file"),
        ("often", "model.yaml:2: warmup: 'often' is not a warm-up; write true, false, or a list"),
    ],
)
def test_what_is_wrong_with_samples_is_told_with_its_place(tmp_path: Path, warmup: str, words: str) -> None:
    with pytest.raises(inferd.SpecError) as told:
        inferd.Server(noting(tmp_path, warmup))
    assert words in str(told.value)


def test_an_onnx_model_runs_its_samples_too(tmp_path: Path) -> None:
    models.add_sub(tmp_path / "m" / "1" / "model.onnx")
    settings = tmp_path / "m" / "model.yaml"
    settings.write_text("warmup: [{inputs: {a: [[1, 2, 3, 4]], b: [[0, 0, 0, 0]]}, rows: 8}, {rows: 32}]")
    with inferd.Server(tmp_path / "m", threads=1, profiling=False) as server, inferd.Client(server.url) as client:
        assert client.infer("m", {"a": np.ones((1, 4), np.int32), "b": np.ones((1, 4), np.int32)})["sum"][0, 0] == 2
    settings.write_text("warmup: [{name: short, inputs: {a: [[1, 2, 3, 4]]}}]")
    with pytest.raises(inferd.ModelFailed, match="'short': it lacks input 'b'"), inferd.Server(tmp_path / "m"):
        pass


@pytest.mark.parametrize("kind", ["http", "grpc"])
@pytest.mark.parametrize("labels", ["[cat, dog]", "animals.txt"])
def test_classes_are_called_by_their_labels(tmp_path: Path, kind: str, labels: str) -> None:
    models.identity(tmp_path / "m" / "1" / "model.onnx", "FP32", ["n", 3])
    (tmp_path / "m" / "animals.txt").write_text("cat\ndog\n")
    (tmp_path / "m" / "model.yaml").write_text(f"labels: {{y: {labels}}}")
    with (
        inferd.Server(tmp_path / "m", threads=1, profiling=False) as server,
        Client(kind, server.url.removeprefix("http://")) as client,
    ):
        scores = client.input("x", np.array([[0.5, 0.25, 0.75]], np.float32), "FP32")
        answer = client.infer("m", [scores], outputs=[client.output("y", class_count=3)])
        assert answer.as_numpy("y").tolist() == [[b"0.750000:2", b"0.500000:0:cat", b"0.250000:1:dog"]]
        config = client.describe("get_model_config", "m")
        (output,) = config.get("config", config)["output"]
        assert output.get("label_filename") == (labels if labels.endswith(".txt") else None)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ("{y: other.txt}", inferd.SpecError, "labels: output 'y': '"),
        ("{z: [cat]}", inferd.ModelFailed, "labels: the model has no output 'z'"),
    ],
)
def test_labels_that_are_not_there_end_the_start(
    tmp_path: Path, labels: str, error: type[Exception], words: str
) -> None:
    models.identity(tmp_path / "m" / "1" / "model.onnx", "FP32", ["n", 3])
    (tmp_path / "m" / "model.yaml").write_text(f"labels: {labels}")
    with pytest.raises(error) as told, inferd.Server(tmp_path / "m", threads=1, profiling=False):
        pass
    assert words in str(told.value)
