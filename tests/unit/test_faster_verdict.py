"""Which of two versions of a model is served, and what is said of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from inferd.errors import InferdError, InvalidInput
from inferd.runtimes.faster import verdict as module
from inferd.runtimes.faster.compare import no_margin
from inferd.runtimes.faster.graph import FP32, FP64, Graph, refuse
from inferd.types import InputSchema, Signature, TensorSpec
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.runtimes.faster import Verdict

COLUMNS = 3
FP64_MAX = float(np.finfo(np.float64).max)
SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, COLUMNS)),), (TensorSpec("y", "FP64", (-1,)),))


class Library:
    """A model that sums its columns, slowly."""

    def __init__(self, refuses: Callable[[np.ndarray], np.ndarray] | None = None, **schema: Any) -> None:
        self.signature = SIGNATURE
        self.facts = {"runtime": "a library 1.0"}
        self.schemas = (InputSchema("x", ("a", "b", "c"), **schema),)
        self.ignored_columns = ("d",)
        self.asked: list[np.ndarray] = []
        self.pause_s = 2e-3
        self._refuses = refuses

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (x,) = batch.values()
        self.asked.append(x.copy())
        if self._refuses is not None and self._refuses(x).any():
            raise InvalidInput("there is a number that it does not like")
        time.sleep(self.pause_s)
        return {"y": x[:, 0] + x[:, 1] + x[:, 2]}


def summed(graph: Graph, x: str) -> str:
    columns = [graph.add("Gather", x, graph.constant(np.int64(column)), axis=1) for column in range(COLUMNS)]
    return graph.add("Add", graph.add("Add", *columns[:2]), columns[2])


def exactly(graph: Graph) -> str:
    return summed(graph, "x")


def rounded(graph: Graph) -> str:
    return graph.add("Cast", graph.add("Cast", summed(graph, "x"), to=FP32), to=FP64)


def beyond(graph: Graph) -> str:
    """Refuses what is beyond 1e6 in the first column."""
    first = graph.add("Abs", graph.add("Gather", "x", graph.constant(np.int64(0)), axis=1))
    bad = graph.add("Greater", first, graph.constant(np.float64(1e6)))
    return summed(graph, refuse(graph, "x", bad, "the first column is too large"))


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Verdict]:
    """What is decided between a library and a graph."""
    count = itertools.count()

    def tried(library: Library, build: Callable[[Graph], str], tolerance: float | None = None) -> Verdict:
        def convert(_: Any, signature: Signature) -> Any:
            graph = Graph()
            yield graph.model(signature, {"y": build(graph)})

        monkeypatch.setattr(module, "runtime", lambda _: SimpleNamespace(load=lambda _: library))
        monkeypatch.setattr(module, "_converter", lambda _: SimpleNamespace(convert=convert, margin=no_margin))
        monkeypatch.setattr(module, "_RUNS_S", 0.02)
        folder = tmp_path / f"out{next(count)}"
        found = module.try_onnx({"runtime": "any", "threads": 1, "batch_rows_max": 8}, folder, tolerance)
        assert (folder / "model.onnx").exists() == (found.chosen == "onnx")
        return found

    return tried


def test_a_conversion_that_answers_the_same_is_served_with_what_its_library_refuses(decide):
    library = Library(missing=True)
    found = decide(library, exactly)
    assert found.chosen == "onnx", found
    assert found.why.startswith("converted from a library 1.0: ")
    assert "times as fast at 1 row, " in found.why
    assert "times as fast at 8 rows" in found.why
    assert "differ by at most 0.0e+00" in found.why
    assert found.schemas == (library.schemas[0].to_json(),)
    assert found.ignored_columns == ("d",)


def test_a_conversion_that_is_slower_is_not_served(decide):
    def long_way_round(graph: Graph) -> str:
        sums = exactly(graph)
        # Nothing that an optimizer may leave out: a table of everything times everything.
        table = graph.constant(np.zeros((512, 512)))
        for _ in range(3):
            table = graph.add("MatMul", table, graph.add("Mul", table, graph.add("ReduceSum", sums, keepdims=0)))
        nothing = graph.add("Mul", graph.add("ReduceSum", table, keepdims=0), graph.constant(np.float64(0)))
        return graph.add("Where", graph.add("IsNaN", nothing), sums, graph.add("Add", sums, nothing))

    library = Library()
    library.pause_s = 0
    found = decide(library, long_way_round)
    assert found.chosen == "library"
    assert "the same answers, but not faster (0." in found.why


def test_a_conversion_that_rounds_is_not_served_and_it_is_said_what_would_allow_it(decide):
    found = decide(Library(largest=1e30), rounded)
    assert found.chosen == "library"
    assert "apart by up to" in found.why
    assert "times as fast" in found.why
    proposed = float(found.why.split("faster_tolerance: ")[1].split()[0])
    assert 1e-8 < proposed < 1e-4
    assert decide(Library(largest=1e30), rounded, proposed).chosen == "onnx"


def test_a_conversion_whose_rows_depend_on_those_beside_them_is_not_served(decide):
    def shared(graph: Graph) -> str:
        # Nothing is added where there are 2 rows or more.
        rows = graph.add("Gather", graph.add("Shape", "x"), graph.constant(np.int64(0)))
        alone = graph.add("Cast", graph.add("Equal", rows, graph.constant(np.int64(1))), to=FP64)
        return graph.add("Add", exactly(graph), alone)

    found = decide(Library(largest=1e30), shared)
    assert found.chosen == "library"
    assert "'y' is apart by up to" in found.why


def test_a_conversion_of_another_model_is_not_served_and_no_tolerance_is_proposed(decide):
    found = decide(
        Library(largest=1e30), lambda graph: graph.add("Mul", exactly(graph), graph.constant(np.float64(1.5)))
    )
    assert found.chosen == "library"
    assert "faster_tolerance" not in found.why
    assert "'y' is apart by up to" in found.why


def test_only_what_the_gateway_lets_through_is_asked(decide):
    library = Library(missing=False, largest=1e30)
    assert decide(library, exactly).chosen == "onnx"
    assert all(np.isfinite(x).all() and np.abs(x).max(initial=0) <= 1e30 for x in library.asked)
    assert max(np.abs(x).max(initial=0) for x in library.asked) == 1e30


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        (np.isnan, "missing values"),
        (lambda x: np.isinf(x[:, 1]), "infinity in column 'b'"),
        (lambda x: x[:, 2] == -np.inf, "-infinity in column 'c'"),
        (lambda x: np.isfinite(x) & (np.abs(x) > 1e38), "value"),
    ],
)
def test_a_library_that_refuses_what_its_schema_does_not_tell_serves_itself(decide, refuses, said):
    found = decide(Library(refuses), exactly)
    assert found.chosen == "library"
    assert "refuses what its schema does not tell: " in found.why
    assert said in found.why
    assert "does not like" in found.why


def test_what_library_and_conversion_both_refuse_is_no_difference(decide):
    def refuses(x: np.ndarray) -> np.ndarray:
        return np.abs(x[:, 0]) > 1e6

    found = decide(Library(refuses, largest=FP64_MAX), beyond)
    assert found.chosen == "onnx", found
    # Clients are told where infinity is, which no conversion can.
    assert "infinity in column 'a'" in decide(Library(refuses), beyond).why


def test_a_conversion_that_refuses_what_the_library_answers_is_not_served(decide):
    found = decide(Library(), beyond)
    assert found.chosen == "library"
    assert "it fails where the library answers" in found.why
    assert "refuse: the first column is too large" in found.why


def test_a_library_that_refuses_everything_is_said_to(decide):
    def everything(graph: Graph) -> str:
        return summed(graph, refuse(graph, "x", graph.add("Equal", "x", "x"), "anything"))

    with pytest.raises(InferdError, match="answers no rows"):
        decide(Library(lambda x: np.ones(len(x), bool), missing=False, largest=FP64_MAX), everything)


@pytest.mark.parametrize("shape", [(-1,), (-1, -1), (-1, 3, 3)])
def test_models_of_other_inputs_are_their_librarys(decide, shape):
    library = Library()
    library.signature = Signature((TensorSpec("x", "FP64", shape),), SIGNATURE.outputs)
    assert "one FP32 or FP64 matrix" in decide(library, exactly).why
    library.signature = Signature((TensorSpec("x", "INT64", (-1, 3)),), SIGNATURE.outputs)
    assert "one FP32 or FP64 matrix" in decide(library, exactly).why


# -- the process ----------------------------------------------------------------------------------------------------


def test_a_conversion_ends_with_the_process_that_asked_for_it(tmp_path):
    # It waits for whatever comes through the pipe that it takes for a model.
    os.mkfifo(tmp_path / "m.txt")
    load = {"runtime": "lightgbm", "file": str(tmp_path / "m.txt"), "parameters": {}}
    request = json.dumps({"load": load, "folder": str(tmp_path), "tolerance": 0.0})
    asks = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "inferd.runtimes.faster"], stdin=subprocess.PIPE, text=True)
child.stdin.write({request!r})
child.stdin.close()
print(child.pid, flush=True)
child.wait()
"""
    asker = subprocess.Popen([sys.executable, "-c", asks], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    child = psutil.Process(int(asker.stdout.readline()))
    try:
        writer = None

        def is_read() -> bool:
            nonlocal writer
            # Fails while nobody has it open for reading.
            with contextlib.suppress(OSError):
                writer = os.open(tmp_path / "m.txt", os.O_WRONLY | os.O_NONBLOCK)
            return writer is not None or not child.is_running()

        wait_for(is_read, "the conversion to read the model", 60)
        assert writer is not None
        asker.kill()
        child.wait(30)
        os.close(writer)
    finally:
        asker.kill()
        asker.wait()
        asker.stdout.close()
        if child.is_running():
            child.kill()
