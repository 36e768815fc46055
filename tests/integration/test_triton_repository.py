"""A repository laid out for Triton is served as it stands, and asked with Triton's own clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
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

ADD_SUB = '''
import json

import triton_python_backend_utils as pb_utils

from .words import REFUSAL  # beside the file, as a package


class TritonPythonModel:
    """INPUT0 + INPUT1 and INPUT0 - INPUT1, times a factor."""

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.factor = float(self.config["parameters"]["factor"]["string_value"])
        assert (args["model_name"], args["model_version"]) == ("add_sub", "1")
        names = ("OUTPUT0", "OUTPUT1")
        configs = [pb_utils.get_output_config_by_name(self.config, name) for name in names]
        self.dtypes = [pb_utils.triton_string_to_numpy(config["data_type"]) for config in configs]
        pb_utils.Logger.log_info("initialized")

    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            assert len(a) <= self.config["max_batch_size"], len(a)
            if (a == -1).any():
                error = pb_utils.TritonError(REFUSAL, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=error))
                continue
            if (a == -2).any():
                raise pb_utils.TritonModelException("minus two is too much")
            if (a == -3).any():
                pb_utils.InferenceRequest(model_name="line", inputs=[]).exec()
            results = zip(("OUTPUT0", "OUTPUT1"), (a + b, a - b), self.dtypes)
            tensors = [pb_utils.Tensor(name, (value * self.factor).astype(dtype)) for name, value, dtype in results]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def finalize(self):
        print("finalized")
'''

COMPLETING = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "text", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "length", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
            assert len(text) <= 4
            length = np.array([[len(row[0])] for row in text], np.int32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("length", length)]))
        return responses
"""

CONFIGS = {
    "four": """
name: "four"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
version_policy { all { } }
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }
""",
    "pair": """
# No batch dimension: what looks like one is the model's own.
backend: "onnxruntime"
max_batch_size: 0
default_model_filename: "pair.onnx"
input { name: "a" data_type: TYPE_INT32 dims: -1 dims: 4 }
input { name: "b" data_type: TYPE_INT32 dims: [ -1, 4 ] }
output [
  { name: "sum" data_type: TYPE_INT32 dims: [ -1, 4 ] label_filename: "labels.txt" },
  { name: "difference" data_type: TYPE_INT32 dims: [ -1, 4 ] }
]
""",
    "wide": """
# As the model of Triton's own quick start: clients leave out what the model has in front.
name: "wide"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 2, 3 ] reshape { shape: [ 1, 2, 3, 1 ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 1, 2, 3, 1 ] } } ]
""",
    "flat": """
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
dynamic_batching { }
""",
    "add_sub": """
name: "add_sub"
backend: "python"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
]
parameters { key: "factor" value: { string_value: "2" } }
instance_group [ { kind: KIND_CPU } ]
dynamic_batching { }
""",
    "both": """
name: "both"
platform: "ensemble"
max_batch_size: 8
input [ { name: "RAW" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [
  { name: "TOTAL" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "REST" data_type: TYPE_FP32 dims: [ 4 ] }
]
ensemble_scheduling {
  step [
    {
      model_name: "add_sub"
      model_version: -1
      input_map { key: "INPUT0" value: "copied" }
      input_map { key: "INPUT1" value: "RAW" }
      output_map { key: "OUTPUT0" value: "TOTAL" }
      output_map { key: "OUTPUT1" value: "REST" }
    },
    {
      model_name: "four"
      model_version: -1
      input_map { key: "x" value: "RAW" }
      output_map { key: "y" value: "copied" }
    }
  ]
}
""",
}


def make_repository(folder: Path) -> Path:
    for name, text in CONFIGS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
    for version in ("1", "2"):
        models.identity(folder / "four" / version / "model.onnx", "FP32", ["n", 4])
    models.identity(folder / "wide" / "1" / "model.onnx", "FP32", [1, 2, 3, 1])
    models.identity(folder / "flat" / "1" / "model.onnx", "FP32", ["n"])
    models.add_sub(folder / "pair" / "1" / "pair.onnx")
    (folder / "pair" / "labels.txt").write_text("zero\none\n")
    (folder / "pair" / "tools").mkdir()
    (folder / "add_sub" / "1" / "model.py").write_text(ADD_SUB)
    (folder / "add_sub" / "1" / "words.py").write_text("REFUSAL = 'minus one is refused'\n")
    (folder / "length" / "1").mkdir(parents=True)
    (folder / "length" / "1" / "model.py").write_text(COMPLETING)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    before = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()}
    with Inferd(tmp_path_factory.mktemp("triton"), repository, "--threads", "1", "--no-profiling") as server:
        yield server
    after = {file: file.read_bytes() for file in before}
    assert after == before


@pytest.fixture(scope="module", params=["http", "grpc"])
def asked(request: pytest.FixtureRequest, triton: Inferd) -> Iterator[Client]:
    with Client(request.param, triton.address) as connected:
        yield connected


def rows(count: int, start: float = 0) -> np.ndarray:
    return (np.arange(count * 4, dtype=np.float32) + start).reshape(count, 4)


def test_a_batched_onnx_model_answers_from_every_version_of_its_policy(asked: Client) -> None:
    for version in ("1", "2"):
        answer = asked.infer("four", [asked.input("x", rows(3), "FP32")], model_version=version)
        np.testing.assert_array_equal(answer.as_numpy("y"), rows(3))


def test_a_model_without_a_batch_dimension_answers(asked: Client) -> None:
    a = rows(2).astype(np.int32)
    answer = asked.infer("pair", [asked.input("a", a, "INT32"), asked.input("b", a, "INT32")])
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + a)


def test_clients_and_model_may_see_different_shapes(asked: Client) -> None:
    x = np.arange(6, dtype=np.float32)
    answer = asked.infer("wide", [asked.input("x", x.reshape(2, 3), "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("y"), x)
    assert asked.refusal("infer", "wide", [asked.input("x", x.reshape(3, 2), "FP32")])[0] == 400
    column = np.arange(7, dtype=np.float32).reshape(7, 1)
    answer = asked.infer("flat", [asked.input("x", column, "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("y"), column)


def test_a_model_of_the_python_backend_answers_and_gets_its_parameters(asked: Client) -> None:
    inputs = [asked.input("INPUT0", rows(3), "FP32"), asked.input("INPUT1", rows(3, 1), "FP32")]
    answer = asked.infer("add_sub", inputs)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), 2 * (rows(3) + rows(3, 1)))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), 2 * (rows(3) - rows(3, 1)))


@pytest.mark.parametrize(
    ("order", "status", "words"),
    [
        (-1, 400, "minus one is refused"),
        (-2, 500, "minus two is too much"),
        (-3, 500, "ensemble_scheduling in config.pbtxt"),
    ],
)
def test_errors_of_responses_and_of_the_backend_reach_the_client(
    asked: Client, order: int, status: int, words: str
) -> None:
    inputs = [asked.input(name, np.full((1, 4), order, np.float32), "FP32") for name in ("INPUT0", "INPUT1")]
    if asked.grpc and status == 500:
        with pytest.raises(Exception, match=words):
            asked.infer("add_sub", inputs)
    else:
        got, message = asked.refusal("infer", "add_sub", inputs)
        assert got == status
        assert words in message


def test_an_ensemble_is_a_pipeline_of_its_steps(asked: Client) -> None:
    answer = asked.infer("both", [asked.input("RAW", rows(2), "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("TOTAL"), 4 * rows(2))
    np.testing.assert_array_equal(answer.as_numpy("REST"), 0 * rows(2))


def test_a_model_without_a_configuration_completes_it_and_never_runs_more_rows_than_it_said(asked: Client) -> None:
    text = np.array([[b"a" * length] for length in range(11)], object)
    answer = asked.infer("length", [asked.input("text", text, "BYTES")])
    np.testing.assert_array_equal(answer.as_numpy("length"), np.arange(11, dtype=np.int32).reshape(11, 1))


@pytest.mark.parametrize(
    ("name", "batch", "inputs"),
    [
        ("four", 8, [("x", "TYPE_FP32", [4])]),
        ("wide", 0, [("x", "TYPE_FP32", [2, 3])]),
        ("flat", 4, [("x", "TYPE_FP32", [1])]),
        ("pair", 0, [("a", "TYPE_INT32", [-1, 4]), ("b", "TYPE_INT32", [-1, 4])]),
        ("add_sub", 8, [("INPUT0", "TYPE_FP32", [4]), ("INPUT1", "TYPE_FP32", [4])]),
    ],
)
def test_the_configuration_that_clients_read_is_the_files(
    asked: Client, name: str, batch: int, inputs: list[tuple[str, str, list[int]]]
) -> None:
    config = asked.describe("get_model_config", name)
    config = config.get("config", config)
    assert config["name"] == name
    assert int(config.get("max_batch_size", 0)) == batch
    read = [(one["name"], one["data_type"], [int(dim) for dim in one["dims"]]) for one in config["input"]]
    assert read == inputs
    assert int(config["instance_group"][0]["count"]) == (2 if name == "four" else 1)


def test_what_has_no_effect_is_printed_with_its_line(triton: Inferd) -> None:
    printed = triton.output()
    for expected in (
        "four/config.pbtxt:9: 'dynamic_batching.preferred_batch_size' has no effect: batch sizes follow",
        "four/config.pbtxt:9: 'dynamic_batching.max_queue_delay_microseconds' has no effect: batch sizes follow",
        "four/config.pbtxt:10: 'optimization' has no effect",
        "'tools' is no version",
    ):
        assert expected in printed, printed
    assert printed.count("note: ") == 5


def test_a_server_in_python_logs_what_has_no_effect(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    inferd.Server(repository)
    assert sum("has no effect" in record.message for record in caplog.records) == 4


def check(*arguments: object) -> tuple[int, str]:
    line = [sys.executable, "-m", "inferd", "check", *map(str, arguments)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_what_would_change_answers_ends_the_start(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "four", tmp_path / "four")
    file = tmp_path / "four" / "config.pbtxt"
    file.write_text(
        CONFIGS["four"]
        .replace("dynamic_batching {", "model_operations { op_library_filename: 'l' } # {")
        .split("optim")[0]
    )
    status, printed = check(tmp_path)
    assert status == 2
    assert "four/config.pbtxt:9: 'model_operations' is not supported" in printed
    assert "help: export the model with standard operators" in printed


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dims: [ 4 ] } ]\noutput", "dims: 4 reshape { shape: [ 2, 2 ] } } ]\noutput", "the model has [-1, 4]"),
        (
            "dims: [ 4 ] } ]\noutput",
            "dims: [ 5 ] } ]\noutput",
            "'x: FP32[?, 5]' is declared; the model has 'x: FP32[?, 4]'",
        ),
        ('name: "x"', 'name: "z"', "input 'z' is declared; the model has x"),
        ('name: "y" data_type: TYPE_FP32', 'name: "y" data_type: TYPE_FP16', "'y: FP16[?, 4]' is declared"),
    ],
)
def test_a_signature_other_than_the_models_ends_the_start(
    repository: Path, tmp_path: Path, serve: Callable[..., Inferd], old: str, new: str, words: str
) -> None:
    shutil.copytree(repository / "four", tmp_path / "repository" / "four")
    (tmp_path / "repository" / "four" / "config.pbtxt").write_text(CONFIGS["four"].replace(old, new, 1))
    server = serve(tmp_path / "repository").launch()
    assert server.wait() == 1
    assert words in server.log()
    assert "help: declare what the model has" in server.log()


def test_models_of_one_name_live_in_namespaces(repository: Path, tmp_path: Path, serve: Callable[..., Inferd]) -> None:
    other = tmp_path / "other" / "four"
    other.mkdir(parents=True)
    (other / "config.pbtxt").write_text('backend: "onnxruntime"')
    models.identity(other / "1" / "model.onnx", "FP32", ["n", 2])
    status, printed = check(repository, other.parent)
    assert status == 2
    assert "inferd serve a=REPOSITORY b=REPOSITORY" in printed
    with serve(f"a={repository}", f"b={other.parent}", "--threads", "1", "--no-profiling") as server:
        with Client("http", server.address) as client:
            answer = client.infer("a.both", [client.input("RAW", rows(2), "FP32")])
            np.testing.assert_array_equal(answer.as_numpy("TOTAL"), 4 * rows(2))
            two = np.ones((1, 2), np.float32)
            np.testing.assert_array_equal(client.infer("b.four", [client.input("x", two, "FP32")]).as_numpy("y"), two)
            assert client.call("is_model_ready", "four") is False
