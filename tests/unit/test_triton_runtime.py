"""Models written for Triton's Python backend, without a server around them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes import triton_utils
from inferd.runtimes.triton import TritonRuntime, is_triton
from inferd.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Make = Callable[..., TritonRuntime] if TYPE_CHECKING else Any

X = {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}
CONFIG = {"max_batch_size": 4, "input": [X], "output": [{**X, "name": "y"}]}
HEAD = "import json\nimport numpy as np\nimport triton_python_backend_utils as pb\n\n\nclass TritonPythonModel:\n"
EXECUTE = (
    "    def execute(self, requests):\n"
    "        x = pb.get_input_tensor_by_name(requests[0], 'x').as_numpy()\n"
    "        return [{}]\n"
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Loads a model of ``body`` with ``config``; modules and paths are as before afterwards."""
    path, modules = list(sys.path), set(sys.modules)

    def load(
        body: str, config: dict[str, Any] | None = CONFIG, *, device: str = "cpu", **parameters: Any
    ) -> TritonRuntime:
        file = tmp_path / "m" / "1" / "model.py"
        file.parent.mkdir(parents=True)
        file.write_text(HEAD + body)
        settings: dict[str, Any] = {"file": str(file), "parameters": parameters, "batching": "auto"}
        if config is not None:
            about = {"name": "m", "version": 1, "folder": str(file.parent.parent), "device": device, "config": config}
            settings["triton"] = about
        assert is_triton(settings)
        return TritonRuntime(settings)

    yield load
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def answer(value: str) -> str:
    return EXECUTE.format(f"pb.InferenceResponse([pb.Tensor('y', {value})])")


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(count * 2, dtype=np.float32).reshape(count, 2)}


def test_a_model_gets_its_arguments_and_one_request_for_a_batch(make: Make) -> None:
    model = make(
        "    def initialize(self, args):\n"
        "        self.config = json.loads(args.pop('model_config'))\n"
        "        self.args = args\n" + answer("x + len(requests)"),
        {**CONFIG, "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "2"}}},
        b=3,
    )
    np.testing.assert_array_equal(model.predict(rows(3))["y"], rows(3)["x"] + 1)
    assert model._model.config["parameters"] == {"a": {"string_value": "1"}, "b": {"string_value": "3"}}
    args = model._model.args
    folder = args.pop("model_repository")
    assert Path(folder).name == "m"
    assert args == {
        "model_instance_kind": "CPU",
        "model_instance_name": "m_0_0",
        "model_instance_device_id": "0",
        "model_version": "1",
        "model_name": "m",
    }
    model.close()


def test_a_model_is_told_its_device(make: Make) -> None:
    model = make("    def initialize(self, args):\n        self.args = args\n" + answer("x"), device="cuda:2")
    assert (model._model.args["model_instance_kind"], model._model.args["model_instance_device_id"]) == ("GPU", "2")


def test_the_batch_dimension_is_put_before_dims_where_there_is_one(make: Make) -> None:
    assert make(answer("x")).signature.inputs == (TensorSpec("x", "FP32", (-1, 2)),)


@pytest.mark.parametrize(
    ("config", "batching"),
    [(CONFIG, "auto"), ({**CONFIG, "dynamic_batching": {}}, "on"), ({**CONFIG, "max_batch_size": 0}, "off")],
)
def test_rows_of_several_callers_run_together_as_the_configuration_says(
    make: Make, config: dict[str, Any], batching: str
) -> None:
    model = make(answer("x"), config)
    assert model.completed({"batching": "auto"})["batching"] == batching
    assert model.completed({"batching": "off"})["batching"] == "off"


def test_no_more_rows_run_at_once_than_the_model_takes(make: Make) -> None:
    model = make(answer("np.full_like(x, len(x))"))
    assert model.predict(rows(9))["y"][:, 0].tolist() == [4, 4, 4, 4, 4, 4, 4, 4, 1]


def test_inputs_belong_to_the_model(make: Make) -> None:
    batch = rows(1)
    batch["x"].flags.writeable = False
    model = make(
        EXECUTE.format("self.work(x)") + "    def work(self, x):\n        x += 1\n        self.kept = x\n" + ""
        "        return pb.InferenceResponse([pb.Tensor('y', x)])\n"
    )
    np.testing.assert_array_equal(model.predict(batch)["y"], [[1, 2]])
    assert not np.shares_memory(model._model.kept, batch["x"])


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        ("pb.InferenceResponse(error=pb.TritonError('no such row'))", ModelFailed, "no such row"),
        ("pb.InferenceResponse([], pb.TritonError('bad row', pb.TritonError.INVALID_ARG))", InvalidInput, "bad row"),
        ("pb.InferenceResponse(error='a text')", ModelFailed, "a text"),
        ("1, 2", ModelFailed, "2 responses for 1 request"),
        ("None", ModelFailed, "NoneType, not an InferenceResponse"),
        ("pb.Tensor('y', x).to_dlpack()", ModelFailed, "to_dlpack() is not supported by inferd\nhelp: use as_numpy()"),
        ("pb.Tensor.from_dlpack('y', x)", ModelFailed, "tensor.cpu().numpy()"),
        ("requests[0].get_response_sender()", ModelFailed, "decoupled"),
        ("requests[0].exec()", ModelFailed, "InferenceRequest.exec()"),
        ("pb.InferenceRequest(model_name='a').exec()", ModelFailed, "ensemble_scheduling in config.pbtxt"),
        ("pb.MetricFamily(name='a')", ModelFailed, "triton_python_backend_utils.MetricFamily is not supported"),
    ],
)
def test_what_fails_or_is_not_there_is_said(make: Make, response: str, kind: type[Exception], words: str) -> None:
    model = make(EXECUTE.format(response))
    with pytest.raises(kind) as raised:
        model.predict(rows(1))
    assert words in str(raised.value)


def test_what_is_not_there_can_be_asked_for() -> None:
    assert not hasattr(triton_utils, "load_model")
    assert not hasattr(triton_utils, "__wrapped__")


COMPLETE = """\
    @staticmethod
    def auto_complete_config(config):
        for add, name in ((config.add_input, "x"), (config.add_output, "y")):
            add({"name": name, "data_type": "TYPE_FP32", "dims": [2]})
        config.set_max_batch_size(4)
        return config

"""


def test_a_model_without_a_configuration_completes_it(make: Make) -> None:
    model = make(COMPLETE + answer("x"), None)
    assert model.signature.inputs == (TensorSpec("x", "FP32", (-1, 2)),)
    assert model.completed({"batching": "auto"})["batching"] == "auto"


@pytest.mark.parametrize(
    ("body", "config", "words"),
    [
        (answer("x"), None, "'model.py' declares no inputs\nhelp: write input [ { name:"),
        ("    pass\n", CONFIG, "has no class TritonPythonModel with execute()"),
        (COMPLETE.replace("return config", "return None") + answer("x"), None, "did not return the configuration"),
        (COMPLETE + answer("x"), {**CONFIG, "max_batch_size": 8}, "max_batch_size is 8 in config.pbtxt"),
        (COMPLETE + answer("x"), {**CONFIG, "input": [{**X, "dims": [3]}]}, "input 'x' has dims [3] in config.pbtxt"),
        (COMPLETE.replace('"dims": [2]', "") + answer("x"), None, "has no dims"),
        (
            "    def initialize(self, args):\n        raise pb.TritonModelException('no weights')\n" + answer("x"),
            CONFIG,
            "no weights",
        ),
        (answer("x"), {**CONFIG, "input": [{**X, "data_type": "TYPE_INVALID"}]}, "unknown datatype 'INVALID'"),
        (
            COMPLETE.replace("set_max_batch_size(4)", "set_model_transaction_policy({'decoupled': True})")
            + answer("x"),
            None,
            "A decoupled model is not supported",
        ),
    ],
)
def test_a_model_that_can_not_be_served_says_why(
    make: Make, body: str, config: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises((ModelFailed, ValueError)) as raised:
        make(body, config)
    assert words in str(raised.value)


def test_other_models_in_python_are_not_taken_for_such(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class Model:\n    # no TritonPythonModel\n    pass\n")
    assert not is_triton({"file": str(tmp_path / "model.py")})
    assert not is_triton({"file": str(tmp_path / "absent.py")})


def test_types_have_the_numbers_and_names_that_models_know() -> None:
    assert triton_utils.triton_string_to_numpy("TYPE_FP32") is np.float32
    assert triton_utils.triton_string_to_numpy("TYPE_STRING") is np.object_
    assert triton_utils.triton_to_numpy_type(11) is np.float32
    assert [triton_utils.numpy_to_triton_type(kind) for kind in (np.bool_, np.int64, np.object_, np.bytes_)] == [
        1,
        9,
        13,
        13,
    ]
    assert triton_utils.Tensor("x", np.zeros((2, 1), np.float16)).triton_dtype() == 10


def test_text_goes_into_the_form_of_the_wire_and_back() -> None:
    array = np.array([b"a", "ü", b""], object)
    packed = triton_utils.serialize_byte_tensor(array)
    assert triton_utils.deserialize_bytes_tensor(packed.tobytes()).tolist() == [b"a", "ü".encode(), b""]


def test_configurations_are_searched_by_name() -> None:
    assert triton_utils.get_input_config_by_name(CONFIG, "x") == X
    assert triton_utils.get_output_config_by_name(CONFIG, "x") is None
    assert triton_utils.using_decoupled_model_transaction_policy(CONFIG) is False
    response = triton_utils.InferenceResponse([triton_utils.Tensor("y", np.zeros(1))])
    tensor = triton_utils.get_output_tensor_by_name(response, "y")
    assert tensor is not None
    assert tensor.shape() == (1,)


def test_what_a_batch_can_not_have_is_empty_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    request = triton_utils.InferenceRequest()
    assert (request.request_id(), request.parameters(), request.correlation_id()) == ("", "{}", 0)
    request.request_id()
    assert capsys.readouterr().err.count("request_id() is always empty") == 1
