"""What a Triton repository says of inputs that may be left out, of classes' names and of warm-up requests."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

import inferd
from outside import models
from outside.clients import Client
from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOTING = """
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.file = Path(__file__).parent / "noted"

    def execute(self, requests):
        responses = []
        for request in requests:
            text, top = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("text", "top"))
            with self.file.open("a") as file:
                print(json.dumps([[row[0].decode() for row in text], top[:, 0].tolist()]), file=file)
            if (top > 8).any():
                raise pb_utils.TritonModelException("more than eight")
            tensor = pb_utils.Tensor("sum", top + np.array([[len(row[0])] for row in text], np.int32))
            responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
        return responses
"""

CONFIGS = {
    "factor": """
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "factor" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]
dynamic_batching { }
""",
    "noting": """
backend: "python"
max_batch_size: 8
input [
  { name: "text" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "top" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
]
output [ { name: "sum" data_type: TYPE_INT32 dims: [ 1 ] } ]
dynamic_batching { }
model_warmup [
  {
    name: "zeros" batch_size: 3 count: 2
    inputs { key: "text" value: { data_type: TYPE_STRING dims: [ 1 ] zero_data: true } }
    inputs { key: "top" value: { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } }
  },
  {
    name: "file" batch_size: 2
    inputs { key: "text" value: { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "text" } }
    inputs { key: "top" value: { data_type: TYPE_INT32 dims: [ 1 ] random_data: true } }
  },
  { name: "none" inputs { key: "text" value: { data_type: TYPE_STRING dims: [ 1 ] zero_data: true } } }
]
""",
    "both": """
platform: "ensemble"
max_batch_size: 8
input [ { name: "RAW" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step { model_name: "factor" model_version: -1
    input_map { key: "x" value: "RAW" } output_map { key: "y" value: "OUT" } }
}
""",
}


def make_repository(folder: Path) -> Path:
    for name, text in CONFIGS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
    models.scaled(folder / "factor" / "1" / "model.onnx", ["n", 1], np.array([[3]]))
    (folder / "factor" / "labels.txt").write_text("a\nb\n")
    (folder / "noting" / "1").mkdir()
    (folder / "noting" / "1" / "model.py").write_text(NOTING)
    (folder / "noting" / "warmup").mkdir()
    (folder / "noting" / "warmup" / "text").write_bytes(struct.pack("<I", 4) + b"kept")
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    with Inferd(tmp_path_factory.mktemp("triton"), repository, "--threads", "1", "--no-profiling") as server:
        yield server


@pytest.fixture(scope="module", params=["http", "grpc"])
def asked(request: pytest.FixtureRequest, triton: Inferd) -> Iterator[Client]:
    with Client(request.param, triton.address) as connected:
        yield connected


X = np.array([[1, 4, 2, 3]], np.float32)


def test_an_optional_input_is_its_initializer_where_it_is_left_out(asked: Client) -> None:
    x = asked.input("x", X, "FP32")
    np.testing.assert_array_equal(asked.infer("factor", [x]).as_numpy("y"), 3 * X)
    factor = asked.input("factor", np.array([[2]], np.float32), "FP32")
    np.testing.assert_array_equal(asked.infer("factor", [x, factor]).as_numpy("y"), 2 * X)
    config = asked.describe("get_model_config", "factor")
    config = config.get("config", config)
    assert [one.get("optional", False) for one in config["input"]] == [False, True]
    assert config["output"][0]["label_filename"] == "labels.txt"


def test_a_step_of_an_ensemble_may_leave_it_out_and_hands_its_labels_on(asked: Client) -> None:
    raw = asked.input("RAW", X, "FP32")
    np.testing.assert_array_equal(asked.infer("both", [raw]).as_numpy("OUT"), 3 * X)
    # The ensemble is not batched: all of its output is one set of scores.
    answer = asked.infer("both", [raw], outputs=[asked.output("OUT", class_count=2)])
    assert answer.as_numpy("OUT").tolist() == [b"12.000000:1:b", b"9.000000:3"]


def test_classes_are_called_by_the_lines_of_the_label_file(asked: Client) -> None:
    answer = asked.infer("factor", [asked.input("x", X, "FP32")], outputs=[asked.output("y", class_count=4)])
    assert answer.as_numpy("y").tolist() == [[b"12.000000:1:b", b"9.000000:3", b"6.000000:2", b"3.000000:0:a"]]


def test_warm_up_requests_are_run_as_the_configuration_has_them(triton: Inferd, repository: Path) -> None:
    noted = (repository / "noting" / "1" / "noted").read_text().splitlines()
    assert noted[-3:-1] == ['[["", "", ""], [0, 0, 0]]'] * 2
    assert noted[-1] in [f'[["kept", "kept"], [{number}, {number}]]' for number in (0, 1)]
    printed = triton.output()
    assert "noting/config.pbtxt:21: warm-up sample 'none' has batch_size 0 and is not run" in printed
    assert "'warmup' is no version" not in printed


def test_a_python_model_says_no_default_and_model_yaml_does(
    asked: Client, triton: Inferd, tmp_path: Path, serve: Callable[..., Inferd]
) -> None:
    text = np.array([[b"four"], [b"seven77"]], object)
    assert "noting/config.pbtxt:6: 'input.optional' has no effect here: 'top' has no default" in triton.output()
    status, message = asked.refusal("infer", "noting", [asked.input("text", text, "BYTES")])
    assert (status, "input 'top' is missing" in message) == (400, True)
    other = make_repository(tmp_path / "other")
    (other / "noting" / "model.yaml").write_text("optional: {top: 5}")
    with serve(other, "--threads", "1", "--no-profiling") as server, Client("http", server.address) as client:
        answer = client.infer("noting", [client.input("text", text, "BYTES")])
        assert answer.as_numpy("sum").tolist() == [[9], [12]]
        assert "has no default" not in server.output()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("labels.txt", "none.txt", "factor/config.pbtxt:8: there is no '"),
        ('input_data_file: "text"', 'input_data_file: "none"', "noting/config.pbtxt:16: there is no '"),
        ("dims: [ 1 ] zero_data", "dims: [ -1 ] zero_data", "input 'text' has dynamic dims [-1]; write fixed sizes"),
    ],
)
def test_what_is_not_there_is_told_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    root = make_repository(tmp_path)
    for name in ("factor", "noting"):
        file = root / name / "config.pbtxt"
        file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(inferd.SpecError) as told:
        inferd.Server(root)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("factor", 'name: "x" data_type: TYPE_FP32 dims: [ 4 ]', 'name: "x" data_type: TYPE_FP32 dims: [ 4 ] optional: true', "optional: the model has no default for input 'x'"),
        ("noting", "{ data_type: TYPE_INT32 dims: [ 1 ] zero", "{ data_type: TYPE_INT64 dims: [ 1 ] zero", "warm-up sample 'zeros': input 'top': it is INT64 in the sample, but the model takes INT32"),
        ("noting", "batch_size: 3", "batch_size: 9", "warm-up sample 'zeros': it has 9 rows, and batch_rows_max is 8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_ends_the_load(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    root = make_repository(tmp_path)
    file = root / name / "config.pbtxt"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(inferd.ModelFailed) as failed, inferd.Server(root / name, threads=1, profiling=False):
        pass
    assert words in str(failed.value)
