"""What a model keeps stays what it was: its inputs, though their memory is used again, and what it gave before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pytest
from numpy.typing import NDArray

from inferd import Context, Model, Shape, TensorSpec, testing
from inferd.runtimes.python import PythonRuntime
from inferd.runtimes.triton import TritonRuntime
from inferd.sdk.runtime import StageRuntime

Row = Annotated[NDArray[np.float32], Shape(2)]


class Memory:
    """One stretch of memory for the inputs of every batch."""

    def __init__(self):
        self._memory = np.zeros((3, 2), np.float32)
        self._gone = np.zeros(3, bool)

    def batch(self, value, names=("x",), *, contexts=False):
        self._memory[:] = value
        batch = dict.fromkeys(names, self._memory)
        if contexts:
            batch |= {"context": np.full(3, b"", object), "context.cancelled": self._gone}
        return batch

    def cancel(self):
        self._gone[:] = True

    def holds(self, array):
        return np.shares_memory(array, self._memory)


class Keeper(Model):
    def load(self):
        self.kept = []

    def predict(self, x: Row) -> Row:
        self.kept.append(x)
        x *= 1
        return x


class ByRow(Keeper):
    def predict(self, x: Row, context: Context) -> Row:
        self.kept.append(x)
        return x


class Async(Keeper):
    async def predict(self, x: Row) -> Row:
        self.kept.append(x)
        return x


class Streams(Keeper):
    def predict(self, x: Row) -> Iterator[Row]:
        self.kept.append(x)
        yield x


class Hooked(Keeper):
    def setup(self):
        self.kept = []

    def preprocess(self, x: Row) -> Row:
        self.kept.append(x)
        return x

    def postprocess(self, x: Row) -> Row:
        self.kept.append(x)
        return x


STAGES = {
    "predict": (Keeper, "predict"),
    "row by row": (ByRow, "predict"),
    "async": (Async, "predict"),
    "streams": (Streams, "predict"),
    "preprocess": (Hooked, "preprocess"),
    "postprocess": (Hooked, "postprocess"),
}


@pytest.mark.parametrize(("model_class", "stage"), STAGES.values(), ids=STAGES)
def test_arrays_that_a_model_keeps_are_its_own(model_class, stage):
    model, memory = model_class(), Memory()
    runtime = StageRuntime(model, stage, {})
    model.kept.clear()
    for value in (1, 2):
        batch = memory.batch(value, contexts=model_class is ByRow)
        list(runtime.stream(batch)) if runtime.streams else runtime.predict(batch)
    memory.batch(3)
    assert {float(kept.max()) for kept in model.kept} == {1, 2}
    assert not any(map(memory.holds, model.kept))
    runtime.close()


class Views(Keeper):
    zero_copy = True

    def predict(self, x: Row) -> Row:
        self.kept.append(x)
        return x


def test_a_model_that_takes_views_gets_them_and_can_not_write_there():
    model, memory = Views(), Memory()
    runtime = StageRuntime(model, "predict", {})
    runtime.predict(memory.batch(1))
    assert memory.holds(model.kept[-1])
    assert not model.kept[-1].flags.writeable
    assert memory.batch(2)["x"].flags.writeable


class OfArrays:
    inputs = [TensorSpec("x", "FP32", (-1, 2))]  # noqa: RUF012
    outputs = inputs

    def load(self):
        self.kept = []

    def predict(self, batch):
        self.kept.append(batch["x"])
        return batch


class OfArraysStreaming(OfArrays):
    def predict(self, batch):
        self.kept.append(batch["x"])
        yield batch


class OfViews(OfArrays):
    zero_copy = True


def of_arrays(model_class):
    nothing = {"inputs": None, "outputs": None}
    return PythonRuntime({"file": "model.py", "signature": nothing, "parameters": {}}, model_class)


@pytest.mark.parametrize("model_class", [OfArrays, OfArraysStreaming])
def test_arrays_that_a_class_of_arrays_keeps_are_its_own(model_class):
    runtime, memory = of_arrays(model_class), Memory()
    for value in (1, 2):
        batch = memory.batch(value)
        list(runtime.stream(batch)) if runtime.streams else runtime.predict(batch)
    memory.batch(3)
    assert [float(kept.max()) for kept in runtime._model.kept] == [1, 2]
    assert all(kept.flags.writeable for kept in runtime._model.kept)


def test_a_class_of_arrays_that_takes_views_gets_them_and_can_not_write_there():
    runtime, memory = of_arrays(OfViews), Memory()
    runtime.predict(memory.batch(1))
    assert memory.holds(runtime._model.kept[0])
    assert not runtime._model.kept[0].flags.writeable


TRITON = """
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    zero_copy = {zero_copy}

    def initialize(self, args):
        self.kept, self.buffer = [], np.zeros((2, 2), np.float32)

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            self.kept.append(x)
            y = self.buffer[:len(x)] if len(requests) == 1 else np.zeros_like(x)
            y[:] = x
            responses.append(pb.InferenceResponse([pb.Tensor("y", y)]))
        return responses
"""


@pytest.fixture
def triton(tmp_path):
    path, modules = list(sys.path), set(sys.modules)

    def load(*, zero_copy=False, **more):
        file = tmp_path / "m" / "1" / "model.py"
        file.parent.mkdir(parents=True)
        file.write_text(TRITON.format(zero_copy=zero_copy))
        x = {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}
        config = {"max_batch_size": 2, "input": [x], "output": [{**x, "name": "y"}], **more}
        about = {"name": "m", "version": 1, "folder": str(file.parent.parent), "device": "cpu", "config": config}
        return TritonRuntime({"file": str(file), "parameters": {}, "batching": "auto", "triton": about})

    yield load
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_arrays_that_a_model_for_triton_keeps_are_its_own(triton):
    model, memory = triton(), Memory()
    for value in (1, 2):
        model.predict(memory.batch(value))
    memory.batch(3)
    # In parts of two rows and one.
    assert [float(kept.max()) for kept in model._model.kept] == [1, 1, 2, 2]


def test_a_model_for_triton_that_takes_views_gets_them_and_can_not_write_there(triton):
    model, memory = triton(zero_copy=True), Memory()
    model.predict(memory.batch(1))
    assert all(map(memory.holds, model._model.kept))
    assert not any(kept.flags.writeable for kept in model._model.kept)


def test_memory_that_a_model_for_triton_gives_for_every_part_is_read_in_time(triton):
    model = triton()
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(model.predict({"x": x})["y"], x)


def test_arrays_and_states_that_a_model_of_sequences_keeps_are_its_own(triton):
    model, memory = triton(sequence_batching={"control_input": [], "state": []}), Memory()
    about = {"inferd.context": np.full(3, b"", object), "inferd.context.cancelled": np.zeros(3, bool)}
    for value in (1, 2):
        model.predict(memory.batch(value) | about)
    memory.batch(3)
    assert [float(kept.max()) for kept in model._model.kept] == [1] * 3 + [2] * 3


class Reuses(Model):
    """Gives the same memory for every row and every request."""

    def load(self):
        self.array = np.zeros(2, np.float32)
        self.record = {"squares": []}

    def predict(self, x: float) -> dict:
        self.array[:] = x
        self.record["squares"].clear()
        self.record["squares"].append(x * x)
        return {"twice": self.array, "record": self.record}


class ReusesAsync(Reuses):
    async def predict(self, x: float) -> dict:
        return super().predict(x)


@pytest.mark.parametrize("model_class", [Reuses, ReusesAsync])
def test_what_a_model_gives_for_a_row_is_not_changed_by_the_next(model_class):
    with testing.loaded(model_class) as model:
        found = model.predict(x=[1.0, 2.0])
        model.predict(x=[3.0, 4.0])
    assert np.asarray(found["twice"]).tolist() == [[1, 1], [2, 2]]
    assert found["record"] == [{"squares": [1.0]}, {"squares": [4.0]}]


class ReusesAll(Model):
    def load(self):
        self.array = np.zeros((1, 2), np.float32)

    def predict(self, x: Row) -> Row:
        self.array[:] = x
        return self.array


def test_what_a_model_gives_in_a_test_is_not_changed_by_the_next_request():
    with testing.loaded(ReusesAll) as model:
        given = np.ones((1, 2), np.float32)
        first = model.predict(x=given)
        model.predict(x=np.full((1, 2), 2, np.float32))
        assert first.tolist() == [[1, 1]]
        assert given.tolist() == [[1, 1]]


def test_a_context_that_a_model_keeps_stays_as_it_was():
    model, memory = ByRow(), Memory()
    runtime = StageRuntime(model, "predict", {})
    seen = []
    model.predict = lambda x, context: seen.append(context) or x
    runtime.call._method = model.predict
    runtime.predict(memory.batch(1, contexts=True))
    memory.cancel()
    assert [context.cancelled for context in seen] == [False] * 3
