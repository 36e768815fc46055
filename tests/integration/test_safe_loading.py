"""No model file runs code when it is loaded, unless its owner vouched for that very file."""

import hashlib
import os
import pickle
import zipfile

import joblib
import mlflow.pyfunc
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

import inferd
from inferd.errors import ModelFailed, SpecError
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
    assert "not what trusted_sha256 vouches for" in message
    assert not mark.exists()


def test_a_pickle_that_is_swapped_between_the_check_and_the_load_is_not_run(tmp_path, mark, cache):
    from inferd.errors import Forbidden
    from inferd.runtimes.trust import trusted_bytes

    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(Forbidden, match="changed after it was checked"):
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
