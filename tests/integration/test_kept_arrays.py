"""Models that keep what they were given, behind a real server: no later request changes it."""

from __future__ import annotations

import numpy as np
import pytest

import inferd

ROWS, WIDTH, REQUESTS = 3, 512, 12

OF_ARRAYS = """
import numpy as np
from inferd import TensorSpec

class Keeper:
    inputs = [TensorSpec("x", "FP32", (-1, {width}))]
    outputs = [TensorSpec("seen", "FP32", (-1, {requests}))]
    zero_copy = {zero_copy}

    def load(self):
        self.kept = []

    def predict(self, batch):
        self.kept.append(batch["x"].copy() if self.zero_copy else batch["x"])
        seen = np.full((len(batch["x"]), {requests}), -1, np.float32)
        for position, kept in enumerate(self.kept[-{requests}:]):
            seen[:, position] = kept.max() if kept.max() == kept.min() else np.nan
        return {{"seen": seen}}
"""

TYPED = """
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape

class Keeper(Model):
    def load(self):
        self.kept = []

    {keyword}def predict(self, x: Annotated[NDArray[np.float32], Shape({width})]) -> Annotated[NDArray[np.float32], Shape({requests})]:
        self.kept.append(x)
        seen = np.full((len(x), {requests}), -1, np.float32)
        for position, kept in enumerate(self.kept[-{requests}:]):
            seen[:, position] = kept.max() if kept.max() == kept.min() else np.nan
        return seen
"""

HOOKED = """
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape

class Keeper(Model):
    def setup(self):
        self.kept = []

    def preprocess(self, x: Annotated[NDArray[np.float32], Shape({width})]) -> Annotated[NDArray[np.float32], Shape({requests})]:
        self.kept.append(x)
        seen = np.full((len(x), {requests}), -1, np.float32)
        for position, kept in enumerate(self.kept[-{requests}:]):
            seen[:, position] = kept.max() if kept.max() == kept.min() else np.nan
        return seen

    def predict(self, seen: Annotated[NDArray[np.float32], Shape({requests})]) -> Annotated[NDArray[np.float32], Shape({requests})]:
        return seen
"""

TRITON = """
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({{"name": "x", "data_type": "TYPE_FP32", "dims": [{width}]}})
        config.add_output({{"name": "seen", "data_type": "TYPE_FP32", "dims": [{requests}]}})
        config.set_max_batch_size(8)
        return config

    def initialize(self, args):
        self.kept = []

    def execute(self, requests):
        (request,) = requests
        x = pb.get_input_tensor_by_name(request, "x").as_numpy()
        self.kept.append(x)
        seen = np.full((len(x), {requests}), -1, np.float32)
        for position, kept in enumerate(self.kept[-{requests}:]):
            seen[:, position] = kept.max() if kept.max() == kept.min() else np.nan
        return [pb.InferenceResponse([pb.Tensor("seen", seen)])]
"""

REUSES = """
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape

class Reuses(Model):
    def load(self):
        self.memory = np.zeros((64, {width}), np.float32)

    def predict(self, x: Annotated[NDArray[np.float32], Shape({width})]) -> Annotated[NDArray[np.float32], Shape({width})]:
        self.memory[: len(x)] = x
        return self.memory[: len(x)][:, ::-1]
"""

STREAMS = """
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape

Array = Annotated[NDArray[np.float32], Shape({width})]

class Keeper(Model):
    def load(self):
        self.kept, self.memory = [], np.zeros((1, {width}), np.float32)

    def predict(self, x: Array) -> Iterator[Array]:
        self.kept.append(x)
        for kept in self.kept:
            self.memory[:] = kept
            yield self.memory
"""

KINDS = {
    "of_arrays": (OF_ARRAYS, {"zero_copy": False}),
    "of_views": (OF_ARRAYS, {"zero_copy": True}),
    "typed": (TYPED, {"keyword": ""}),
    "awaited": (TYPED, {"keyword": "async "}),
    "hooked": (HOOKED, {}),
    "triton": (TRITON, {}),
    "reuses": (REUSES, {}),
    "streams": (STREAMS, {}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keepers")
    for name, (text, named) in KINDS.items():
        (folder / f"{name}.py").write_text(text.format(width=WIDTH, requests=REQUESTS, **named))
    files = [folder / f"{name}.py" for name in KINDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with inferd.Server(*files, threads=1, batching="on", warmup=False, profiling=False) as server:
            yield server


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("reuses", "streams")])
def test_what_a_model_kept_of_a_request_is_what_it_was(name, scheme, server):
    with inferd.Client(f"{scheme}://{server.address}") as client:
        for value in range(REQUESTS):
            found = client.infer(name, np.full((ROWS, WIDTH), value, np.float32))[_output(name)]
    assert found.tolist() == [list(range(REQUESTS))] * ROWS


def _output(name):
    return "seen" if name in ("of_arrays", "of_views", "triton") else "output"


def test_memory_that_a_model_gives_again_and_again_is_read_before_it_is_written_again(server):
    with inferd.Client(server.url) as client:
        answers = [client.infer("reuses", np.full((ROWS, WIDTH), value, np.float32)) for value in range(REQUESTS)]
    assert [float(answer["output"].max()) for answer in answers] == list(range(REQUESTS))
    assert [float(answer["output"].min()) for answer in answers] == list(range(REQUESTS))


def test_what_a_model_that_streams_kept_of_a_request_is_what_it_was(server):
    with inferd.Client(f"grpc://{server.address}") as client:
        for value in range(1, REQUESTS):
            answers = list(client.stream("streams", np.full((1, WIDTH), value, np.float32)))
    # The first is of the run that showed what the outputs are, if there was one.
    seen = [(float(answer["output"].min()), float(answer["output"].max())) for answer in answers]
    assert seen[-REQUESTS + 1 :] == [(value, value) for value in range(1, REQUESTS)]
