import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.python import import_file, load
from inferd.types import DATATYPES, Signature, TensorSpec
from inferd.worker.batching import decide_batching
from inferd.worker.loop import answer
from inferd.worker.probe_rows import sample
from inferd.worker.tensors import as_array, checked_outputs, pack_bytes, unpack_bytes

LOAD = {"batching": "auto", "batch_rows_max": 32, "tolerance": {"absolute": 1e-5, "relative": 1e-3}}


class FakeRuntime:
    """A runtime around a function."""

    def __init__(self, predict, inputs=(("x", "FP32", (-1, 3)),), outputs=(("y", "FP32", (-1, 3)),), example=None):
        self.predict = predict
        self.example = example
        self.signature = Signature(*(tuple(TensorSpec(*spec) for spec in specs) for specs in (inputs, outputs)))


class FakeBatch:
    """A batch that keeps its answer."""

    def __init__(self, **inputs):
        self._inputs = inputs
        self.rows = len(next(iter(inputs.values())))
        self.answered = None

    def inputs(self):
        return self._inputs

    def finish(self, outputs, execution_s):
        assert execution_s >= 0
        self.answered = outputs

    def fail(self, kind, message, detail):
        self.answered = (kind, message, detail)


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_an_array_over_memory_shares_it(datatype):
    dtype = np.dtype(DATATYPES[datatype])
    memory = bytearray(6 * dtype.itemsize)
    array = as_array(datatype, (2, 3), memoryview(memory))
    array[1, 2] = 1
    assert any(memory[5 * dtype.itemsize :])
    assert (array.shape, array.dtype) == ((2, 3), dtype)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_bytes_elements_survive_the_way_there_and_back(elements):
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    assert list(unpack_bytes(memoryview(pack_bytes(array)), (len(elements),))) == elements


def test_outputs_are_cast_where_nothing_of_their_kind_is_lost():
    signature = FakeRuntime(
        None, outputs=(("y", "FP32", (-1,)), ("n", "INT32", (-1,)), ("s", "BYTES", (-1,)))
    ).signature
    outputs = checked_outputs({"y": np.ones(2), "n": np.ones(2, np.int64), "s": np.array(["a", "b"])}, signature, 2)
    assert [output.dtype.name for output in outputs] == ["float32", "int32", "object"]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "did not return output 'y'"),
        ({"y": np.ones((2, 4), np.float32)}, "has shape"),
        ({"y": np.ones((3, 3), np.float32)}, "3 rows for a batch of 2"),
        ({"y": np.array([["a"] * 3] * 2)}, "FP32 is declared"),
        ({"y": np.ones((2, 3), np.complex64)}, "FP32 is declared"),
    ],
)
def test_outputs_that_are_not_as_declared_fail_and_say_how(outputs, words):
    with pytest.raises(ModelFailed, match=words):
        checked_outputs(outputs, FakeRuntime(None).signature, 2)


def test_batching_is_earned_by_rows_that_do_not_mix():
    assert decide_batching(FakeRuntime(lambda batch: {"y": batch["x"] * 2}), LOAD).batched


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (FakeRuntime(lambda batch: {"y": batch["x"] - batch["x"].mean(axis=0)}), "changes when other rows"),
        (FakeRuntime(lambda batch: {"y": batch["x"][:1]}), "raises ModelFailed where 2 rows"),
        (FakeRuntime(lambda batch: 1 / 0), "the probe failed with ZeroDivisionError"),
        (FakeRuntime(lambda batch: {"y": batch["x"]}, inputs=(("x", "FP32", (3,)),)), "dimension 0 of 'x' is fixed"),
    ],
)
def test_batching_that_is_not_earned_is_off_and_the_reason_is_told(runtime, words):
    assert words in decide_batching(runtime, LOAD).batching_off


def test_the_setting_stands_above_the_probe():
    mixes = FakeRuntime(lambda batch: {"y": batch["x"] - batch["x"].mean()})
    assert decide_batching(mixes, {**LOAD, "batching": "on"}).batched
    assert decide_batching(FakeRuntime(None), {**LOAD, "batching": "off"}).batching_off == "batching: off"


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_sample_can_be_made_up_for_every_datatype(datatype):
    runtime = FakeRuntime(None, inputs=(("x", datatype, (-1, -1, 2)),))
    made = sample(runtime, 4)["x"]
    assert made.dtype == np.dtype(DATATYPES[datatype])
    assert (made.shape[0], made.shape[2]) == (4, 2)
    assert made.shape[1] != made.shape[0]


def test_a_models_own_example_is_preferred():
    runtime = FakeRuntime(None, example={"x": np.array([[1, 2, 3]], np.float32)})
    assert sample(runtime, 2)["x"].tolist() == [[1, 2, 3], [1, 2, 3]]


def predict_as_told(batch):
    value = batch["x"][0, 0]
    if value == -1:
        raise InvalidInput("x must not be negative")
    if value == -2:
        raise KeyError("a secret")
    if value == -3:
        sys.exit(1)
    return {"y": batch["x"] + 1}


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (-1, "InvalidInput", "x must not be negative"),
        (-2, "ModelFailed", "the model raised KeyError"),
        (-3, "ModelFailed", "the model raised SystemExit"),
    ],
)
def test_what_a_model_raises_answers_its_batch_and_keeps_secrets_from_clients(value, kind, message):
    runtime = FakeRuntime(predict_as_told)
    batch = FakeBatch(x=np.full((1, 3), value, np.float32))
    answer(batch, runtime, runtime.signature)
    assert batch.answered[:2] == (kind, message)
    assert "Traceback" in batch.answered[2]


def test_a_batch_is_answered_in_the_signatures_order():
    runtime = FakeRuntime(predict_as_told)
    batch = FakeBatch(x=np.zeros((2, 3), np.float32))
    answer(batch, runtime, runtime.signature)
    assert batch.answered[0].tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("code", "settings", "words"),
    [
        ("", {}, "no class with"),
        ("class A:\n  def predict(self, b): ...", {}, "no class with"),
        ("class A:\n  def load(self): ...\n  def predict(self, b): ...\nclass B(A): ...", {}, "2 classes"),
        ("class A:\n  def load(self): ...\n  def predict(self, b): ...", {"class": "C"}, "no class 'C'"),
        ("class A:\n  def predict(self, b): ...", {"class": "A"}, "lacks load"),
        ("class A:\n  def load(self): ...\n  def predict(self, b): ...", {}, "declares no inputs"),
        (
            "class A:\n  inputs=[('x','F',[1])]\n  def load(self): ...\n  def predict(self, b): ...",
            {},
            "unknown datatype",
        ),
    ],
)
def test_a_file_that_is_no_model_is_refused_with_the_remedy(tmp_path, code, settings, words, restored_modules):
    file = tmp_path / "model.py"
    file.write_text(code)
    with pytest.raises(ModelFailed, match=words):
        load(
            {
                "file": str(file),
                "class": None,
                "stage": None,
                "signature": {"inputs": None, "outputs": None},
                "parameters": {},
                **settings,
            }
        )


def test_a_model_gets_its_parameters_and_may_import_files_beside_it(tmp_path, restored_modules):
    (tmp_path / "helper_beside.py").write_text("FACTOR = 3")
    (tmp_path / "model.py").write_text(
        "import helper_beside\nfrom inferd import TensorSpec\n"
        "class Model:\n"
        "  inputs = [TensorSpec('x', 'FP32', (-1,))]\n"
        "  outputs = [('y', 'FP32', (-1,))]\n"
        "  def load(self, plus): self.plus = plus\n"
        "  def predict(self, batch): return {'y': batch['x'] * helper_beside.FACTOR + self.plus}\n"
    )
    settings = {
        "file": str(tmp_path / "model.py"),
        "class": None,
        "stage": None,
        "signature": {"inputs": None, "outputs": None},
        "parameters": {"plus": 1},
    }
    runtime = load(settings)
    assert runtime.predict({"x": np.array([2.0])})["y"] == [7.0]
    runtime.close()


@pytest.mark.parametrize("name", ["model.py", "helper_beside.py", "package_beside/inner.py"])
def test_a_file_that_was_replaced_within_a_second_is_read_anew(tmp_path, restored_modules, name):
    """Of equal size and time, so that CPython would take what it keeps in ``__pycache__`` for it."""
    files = {
        "model.py": "import helper_beside\nfrom package_beside.inner import VALUE as inner\nVALUE = 1\n",
        "helper_beside.py": "VALUE = 1\n",
        "package_beside/__init__.py": "",
        "package_beside/inner.py": "VALUE = 1\n",
    }
    (tmp_path / "package_beside").mkdir()
    for each, text in files.items():
        (tmp_path / each).write_text(text)
        os.utime(tmp_path / each, (1e9, 1e9))
    subprocess.run([sys.executable, "-m", "compileall", "-q", tmp_path], check=True)
    (tmp_path / name).write_text(files[name].replace("VALUE = 1", "VALUE = 2"))
    os.utime(tmp_path / name, (1e9, 1e9))
    module = import_file(tmp_path / "model.py")
    values = {
        "model.py": module.VALUE,
        "helper_beside.py": module.helper_beside.VALUE,
        "package_beside/inner.py": module.inner,
    }
    assert values == dict.fromkeys(values, 1) | {name: 2}


@pytest.fixture
def restored_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    yield
    for name in ("inferd_model", "helper_beside", "package_beside", "package_beside.inner"):
        sys.modules.pop(name, None)


def test_what_the_zygote_preloads_leaves_one_thread():
    script = "from inferd.worker.zygote import preload, threads_of_this_process as n; preload(); print(n())"
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, env={})
    assert result.stdout.strip() == "1"


@pytest.fixture
def zygote():
    """A zygote and the gateway's end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30)
    command = [sys.executable, "-P", "-m", "inferd.worker.zygote", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], env={}) as process:
        theirs.close()
        yield ours, process
        ours.close()
        assert process.wait(30) == 0


def fork(gateway, channel, log):
    request = json.dumps({"fork": {"env": {"A": "b"}, "directory": None, "cpus": [], "mark": 1 << 61}}).encode()
    socket.send_fds(gateway, [request], [channel, log])
    data, descriptors, _, _ = socket.recv_fds(gateway, 4096, 1)
    return json.loads(data)["pid"], descriptors[0]


def test_the_zygote_forks_and_tells_how_the_worker_ended(zygote):
    gateway, _ = zygote
    read, write = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = fork(gateway, theirs.fileno(), write)
    os.close(write)
    theirs.close()
    ours.close()
    told = json.loads(gateway.recv(4096))
    assert told["exited"]["pid"] == pid
    with os.fdopen(read, "rb") as log:
        log.read()
    os.close(pidfd)


def test_the_zygote_ends_its_workers_when_the_gateway_goes(zygote):
    gateway, process = zygote
    read, write = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid, pidfd = fork(gateway, theirs.fileno(), write)
        os.close(write)
        gateway.close()
        assert process.wait(30) == 0
        # The log's other end closes with the worker, its last holder.
        with os.fdopen(read, "rb") as log:
            log.read()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    os.close(pidfd)
