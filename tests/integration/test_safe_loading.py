"""No model file runs code when it is loaded, unless its owner vouched for that very file."""

import hashlib
import json
import os
import pickle
import zipfile

import httpx
import joblib
import mlflow.pyfunc
import pytest
import skops.io
import tokenizers
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

import inferd
from inferd.errors import ModelFailed, SpecError
from outside import models
from outside.libraries import training


class Malicious:
    """What an attacker would put into a file: reading it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-was-run"


def refusal(path, **settings):
    with pytest.raises((SpecError, ModelFailed)) as raised:
        inferd.Server(path, threads=1, **settings).start()
    return str(raised.value)


@pytest.mark.parametrize("ending", ["pkl", "pickle", "joblib"])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path, mark, ending, cache):
    file = tmp_path / f"model.{ending}"
    file.write_bytes(pickle.dumps(Malicious(mark)))
    message = refusal(file)
    assert "is a pickle" in message
    assert "skops.io.dump" in message
    assert "ONNX" in message
    assert f"trusted_sha256: {hashlib.sha256(file.read_bytes()).hexdigest()}" in message
    assert not mark.exists()


def test_a_pickle_that_is_vouched_for_is_served(tmp_path, cache):
    x, _, label = training()
    joblib.dump(LogisticRegression().fit(x, label), tmp_path / "model.joblib")
    trusted = hashlib.sha256((tmp_path / "model.joblib").read_bytes()).hexdigest()
    for faster in (True, False):
        with inferd.Server(tmp_path / "model.joblib", trusted_sha256=trusted, faster=faster, threads=1) as server:
            assert [spec.name for spec in server.models[0].signature.outputs] == ["label", "probabilities"]


def test_a_pickle_that_changed_since_it_was_vouched_for_is_refused(tmp_path, mark, cache):
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"harmless": True}))
    trusted = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(pickle.dumps(Malicious(mark)))
    message = refusal(file, trusted_sha256=trusted)
    assert "does not match trusted_sha256" in message
    assert not mark.exists()


def test_a_pickle_that_is_swapped_between_the_check_and_the_load_is_not_run(tmp_path, mark, cache):
    from inferd.errors import Forbidden
    from inferd.runtimes.trust import trusted_bytes

    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(Forbidden, match="changed during the check"):
        trusted_bytes(file, "0" * 64)
    assert not mark.exists()


def test_a_skops_file_with_a_function_in_it_is_refused(tmp_path, cache):
    skops.io.dump(FunctionTransformer(os.system), tmp_path / "model.skops")
    message = refusal(tmp_path / "model.skops")
    assert "system" in message
    assert "trusted_sha256" in message


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickled_torch_module_is_refused(tmp_path, mark, form, cache):
    file = tmp_path / "model.pt"
    if form == "legacy":
        file.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickle.dumps(Malicious(mark)))
    message = refusal(file)
    assert "torch.jit.script" in message
    assert "safetensors" in message
    assert not mark.exists()


def test_an_mlflow_folder_with_a_pickled_function_is_refused(tmp_path, mark, cache):
    class Function(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input):
            return model_input

    folder = tmp_path / "model"
    mlflow.pyfunc.save_model(str(folder), python_model=Function(), pip_requirements=[])
    next(folder.glob("*.pkl")).write_bytes(pickle.dumps(Malicious(mark)))
    message = refusal(folder)
    assert "Python function" in message
    assert "trusted_sha256" in message
    assert not mark.exists()


def keras_file(path, *layers):
    """What Keras 3 writes, but for the weights."""
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "m", "layers": list(layers)},
        "compile_config": {"loss": {"module": "my_losses", "class_name": "Mine"}},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.12.0"}))
        archive.writestr("config.json", json.dumps(config))
    return path


DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"units": 1, "activation": {"module": "builtins", "class_name": "function", "config": "relu"}},
    "registered_name": None,
}
CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": CODE}}
INSIDE = {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": LAMBDA}}
ACTIVATION = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1, "activation": CODE}}
FOREIGN = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (LAMBDA, "contains a lambda layer"),
        (INSIDE, "contains a lambda layer"),
        (ACTIVATION, "contains a lambda layer"),
        (FOREIGN, "names code of 'os'"),
    ],
)
def test_a_keras_file_with_code_is_refused_without_tensorflow(tmp_path, layer, words, cache):
    file = keras_file(tmp_path / "model.keras", DENSE, layer)
    message = refusal(file)
    assert words in message
    assert "model.export(folder)" in message
    trusted = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"trusted_sha256: {trusted}" in message
    assert "does not match trusted_sha256" in refusal(file, trusted_sha256="0" * 64)


def test_a_keras_file_that_is_vouched_for_or_without_code_goes_on_to_tensorflow(tmp_path):
    from inferd.runtimes.tensorflow import compose
    from inferd.spec.settings import ModelSpec

    # Another interpreter, whose libraries are its own affair.
    file = keras_file(tmp_path / "model.keras", DENSE)
    assert compose(file, ModelSpec(python="/elsewhere/python"), 1).platform == "tensorflow_savedmodel"
    file = keras_file(tmp_path / "model.keras", LAMBDA)
    trusted = hashlib.sha256(file.read_bytes()).hexdigest()
    compose(file, ModelSpec(python="/elsewhere/python", trusted_sha256=trusted), 1)


def test_a_keras_file_that_is_no_archive_is_told_so(tmp_path, cache):
    (tmp_path / "model.keras").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "not a Keras archive" in refusal(tmp_path / "model.keras")


def test_code_in_a_hugging_face_folder_is_never_run(tmp_path, mark, cache):
    folder = tmp_path / "embedder"
    (folder / "onnx").mkdir(parents=True)
    words = tokenizers.models.WordLevel({"[UNK]": 0, "good": 1, "day": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])
    out = helper.make_tensor_value_info("twice", TensorProto.INT64, ["n", "t"])
    models.save(folder / "onnx" / "model.onnx", [helper.make_node("Add", ["input_ids"] * 2, ["twice"])], [ids], [out])
    auto = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto, "trust_remote_code": True}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.Tokens", None]}}))
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    (folder / "__init__.py").write_text("from . import code\n")
    with inferd.Server(folder, threads=1) as server:
        answer = httpx.post(f"{server.url}/models/embedder", json="good day", timeout=30)
        assert answer.json() == {"twice": [2, 4], "attention_mask": [1, 1]}
    assert not mark.exists()
