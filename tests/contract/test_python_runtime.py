"""What only models in Python can do."""

import os

import pytest

import inferd

from .conftest import PYTHON_MODEL, call, infer

TEXT_MODEL = """
import numpy as np, os, threading
from inferd import TensorSpec

class Model:
    inputs = [TensorSpec("text", "BYTES", (-1,)), TensorSpec("times", "INT64", (-1,))]
    outputs = [TensorSpec("said", "BYTES", (-1,)), TensorSpec("length", "INT32", (-1,))]

    def load(self, mark="!"):
        self.mark = mark.encode()
        print("loading says this")

    def predict(self, batch):
        said = np.array([t * int(n) + self.mark for t, n in zip(batch["text"], batch["times"])], dtype=object)
        return {"said": said, "length": np.array([len(s) for s in said])}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, code in (("line", PYTHON_MODEL), ("text", TEXT_MODEL)):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(code)
    (folder / "text" / "model.yaml").write_text("parameters: {mark: '?'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with inferd.Server(folder, threads=1) as server:
            yield server


def test_what_a_model_says_about_its_input_reaches_the_client(server):
    assert infer(server.url, "line", [[-1, 0, 0]]) == (400, {"error": "x must not be -1"})


def test_what_a_model_trips_over_does_not_reach_the_client(server):
    status, body = infer(server.url, "line", [[-2, 0, 0]])
    assert status == 500
    assert "KeyError" in body["error"]
    assert "secret" not in body["error"]
    assert infer(server.url, "line", [[0, 0, 0]])[0] == 200


def test_text_of_any_length_goes_in_and_comes_out(server):
    inputs = [
        {"name": "text", "datatype": "BYTES", "shape": [3], "data": ["a", "", "ünï"]},
        {"name": "times", "datatype": "INT64", "shape": [3], "data": [2, 9, 1]},
    ]
    status, body = call(f"{server.url}/v2/models/text/infer", {"inputs": inputs})
    assert status == 200, body
    said, length = body["outputs"]
    assert said["data"] == ["aa?", "?", "ünï?"]
    assert length == {"name": "length", "datatype": "INT32", "shape": [3], "data": [3, 1, 6]}


def test_workers_of_all_models_are_forks_of_one_zygote(server):
    import psutil

    pids = [replica["pid"] for model in server.status()["models"] for replica in model["replicas"]]
    parents = {psutil.Process(pid).ppid() for pid in pids}
    assert len(pids) == 2
    assert len(parents) == 1
    assert parents != {os.getpid()}


def test_a_worker_has_no_privileges_to_gain_and_leaves_no_core(server):
    pid = server.status()["models"][0]["replicas"][0]["pid"]
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        assert "NoNewPrivs:\t1" in status.read()
    with open(f"/proc/{pid}/limits", encoding="utf-8") as limits:
        assert next(line for line in limits if "core file" in line).split()[4] == "0"
