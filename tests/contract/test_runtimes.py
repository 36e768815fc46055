"""One suite for every runtime, through real workers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

import inferd
from inferd.errors import ModelFailed

from .conftest import PYTHON_MODEL, call, infer, make_onnx


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with inferd.Server(made.path, threads=1, **made.settings) as server:
            yield server


def rows_of(count):
    return [[float(row % 7), row / 7, -(row % 5) - 10.0] for row in range(count)]


def answer(made, rows):
    """What the library says of ``rows``, and how far an answer may be from it."""
    return pytest.approx(np.asarray(made.answer(np.array(rows, np.float32))).ravel().tolist(), rel=1e-5, abs=1e-5)


def output(made, body):
    (found,) = [tensor for tensor in body["outputs"] if tensor["name"] == made.output]
    return found


def test_the_signature_is_the_models(server, made):
    (model,) = server.models
    assert (model.name, model.version) == ("line", 1)
    (spec,) = model.signature.inputs
    assert str(spec) in ("x: FP32[?, 3]", "x: FP64[?, 3]")
    assert made.output in [spec.name for spec in model.signature.outputs]
    assert all(spec.shape[0] == -1 for spec in model.signature.outputs)
    assert "runtime" in model.facts


def test_a_started_server_is_ready_and_warm(server):
    assert call(f"{server.url}/v2/health/ready")[0] == 200
    assert call(f"{server.url}/v2/models/line/ready")[0] == 200
    (model,) = server.status()["models"]
    assert model["state"] == "ready"
    assert [replica["state"] for replica in model["replicas"]] == ["ready"]


def test_batching_is_earned_by_a_model_whose_rows_are_independent(server):
    assert server.models[0].signature.batched, server.models[0].signature.batching_off


def test_an_answer_is_the_librarys(server, made):
    rows = rows_of(5)
    status, body = infer(server.url, "line", rows)
    assert status == 200, body
    assert output(made, body)["shape"][0] == 5
    assert output(made, body)["data"] == answer(made, rows)


def test_rows_in_a_batch_equal_rows_one_by_one(server, made):
    rows = rows_of(16)
    _, together = infer(server.url, "line", rows)
    alone = [output(made, infer(server.url, "line", [row])[1])["data"] for row in rows]
    each = [value for row in alone for value in row]
    # A product of one row and that of many round in other places.
    assert output(made, together)["data"] == pytest.approx(each, rel=1e-6, abs=1e-6)


def test_every_caller_gets_its_own_rows(server, made):
    with ThreadPoolExecutor(16) as callers:
        answers = callers.map(lambda n: infer(server.url, "line", [[n, n, n]] * (1 + n % 3)), range(120))
        for n, (status, body) in enumerate(answers):
            assert status == 200
            assert output(made, body)["data"] == answer(made, [[n, n, n]] * (1 + n % 3))


def test_more_rows_than_a_batch_may_have_run_in_parts(server, made):
    rows = rows_of(100)
    status, body = infer(server.url, "line", rows)
    assert status == 200
    assert output(made, body)["data"] == answer(made, rows)


def test_no_rows_at_all_are_answered_with_none(server):
    tensor = {"name": "x", "datatype": "FP32", "shape": [0, 3], "data": []}
    status, body = call(f"{server.url}/v2/models/line/infer", {"inputs": [tensor]})
    assert status == 200
    assert [(output["shape"][0], output["data"]) for output in body["outputs"]] == [(0, [])] * len(body["outputs"])


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "z"},
        {"datatype": "BYTES"},
        {"shape": [1, 4], "data": [1, 2, 3, 4]},
        {"data": [1, 2]},
        {"data": ["a", 1, 2]},
    ],
)
def test_wrong_input_is_the_clients_fault_and_does_no_harm(server, tensor):
    status, body = infer(server.url, "line", [[1, 2, 3]], **tensor)
    assert status == 400
    assert body["error"]
    assert infer(server.url, "line", [[1, 2, 3]])[0] == 200


def test_whole_numbers_and_narrower_floats_are_widened(server, made):
    expected = output(made, infer(server.url, "line", [[1, 2, 3]])[1])["data"]
    for datatype in ("INT64", "UINT8", "FP16"):
        status, body = infer(server.url, "line", [[1, 2, 3]], datatype=datatype)
        assert status == 200, body
        assert output(made, body)["data"] == expected


def test_a_large_tensor_makes_the_arena_grow(server, made):
    rows = 20_000
    status, body = infer(server.url, "line", [[1, 1, 1]] * rows)
    assert status == 200, body.get("error")
    one = answer(made, [[1, 1, 1]]).expected
    assert output(made, body)["data"] == pytest.approx(one * rows, rel=1e-5, abs=1e-5)


def test_a_model_that_is_unloaded_gives_its_memory_back(made, cache):
    with inferd.Server(made.path, threads=1, **made.settings) as server:
        worker = psutil.Process(server.status()["models"][0]["replicas"][0]["pid"])
        assert worker.is_running()
    assert not worker.is_running()


def test_two_replicas_serve(made, cache):
    with inferd.Server(made.path, replicas=2, threads=1, **made.settings) as server:
        pids = {replica["pid"] for replica in server.status()["models"][0]["replicas"]}
        assert len(pids) == 2
        assert output(made, infer(server.url, "line", [[0, 0, 0]])[1])["data"] == answer(made, [[0, 0, 0]])


def test_batching_that_is_switched_off_is_off(tmp_path, cache):
    with inferd.Server(make_onnx(tmp_path / "line.onnx"), batching="off") as server:
        assert "off" in server.models[0].signature.batching_off
        assert infer(server.url, "line", [[0, 0, 0]] * 5)[1]["outputs"][0]["shape"] == [5, 3]


@pytest.mark.parametrize("kind", ["onnx", "python"])
def test_a_model_that_mixes_rows_is_not_batched_and_the_reason_is_told(kind, tmp_path, cache):
    file = tmp_path / ("mixes.onnx" if kind == "onnx" else "mixes.py")
    if kind == "onnx":
        make_onnx(file, mixes_rows=True)
    else:
        file.write_text(
            PYTHON_MODEL.replace('return {"y": x *', 'return {"y": x.mean(axis=0, keepdims=True) + 0 * x *')
        )
    with inferd.Server(file) as server:
        reason = "reduces over the rows" if kind == "onnx" else "changes when other rows"
        assert reason in server.models[0].signature.batching_off


@pytest.mark.parametrize(
    ("name", "content"), [("broken.onnx", "not a model"), ("broken.py", "1 / 0"), ("empty.py", "")]
)
def test_a_model_that_cannot_be_loaded_is_named_and_nothing_is_left(name, content, tmp_path, cache):
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelFailed, match=name.split(".")[0]):
        inferd.Server(tmp_path / name).start()
