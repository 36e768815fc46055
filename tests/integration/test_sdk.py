"""Models of the SDK behind a real server: batched, in stages, with errors that belong to one row."""

import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import inferd
from outside.waiting import wait_for

STAGED = """
from typing import Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray

from inferd import InvalidInput, Model, Shape


class Answer(TypedDict):
    label: list[str]
    pid: list[int]


class Staged(Model):
    def setup(self):
        import os

        self.pid = os.getpid()

    def preprocess(self, text: list[str]) -> list:
        return [[len(one), self.pid] for one in text]

    def load(self):
        self.weights = np.array([1, 0], np.float32)

    def predict(self, x: Annotated[NDArray[np.float64], Shape(2)]) -> Annotated[NDArray[np.float64], Shape(2)]:
        return x

    def postprocess(self, row: Annotated[NDArray[np.float64], Shape(2)]) -> Answer:
        for position, (length, _) in enumerate(row):
            if length == 13:
                raise InvalidInput("thirteen letters bring bad luck", row=position)
        return {"label": ["long" if one[0] > 5 else "short" for one in row], "pid": [int(one[1]) for one in row]}
"""

BY_ROW = """
from inferd import InvalidInput, Model


class Reverse(Model):
    def predict(self, text: str) -> str:
        if text == "boom":
            raise KeyError("what only the log may show")
        if text == "no":
            raise InvalidInput("no is no text")
        return text[::-1]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "staged.py").write_text(STAGED)
    (folder / "reverse.py").write_text(BY_ROW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with inferd.Server(folder / "staged.py", folder / "reverse.py", threads=1, slo="2s") as server:
            yield server


def ask(server, model, texts):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=30)
    body = answer.json()
    if answer.status_code != 200:
        return answer.status_code, body["error"]
    return 200, {output["name"]: output["data"] for output in body["outputs"]}


def test_hooks_run_in_workers_of_their_own(server):
    status, body = ask(server, "staged", ["abc", "abcdefgh"])
    assert status == 200
    assert body["label"] == ["short", "long"]
    pids = {model["name"]: model["replicas"][0]["pid"] for model in server.status()["models"] if model["replicas"]}
    assert body["pid"] == [pids["staged.preprocess"]] * 2
    assert len({pids[f"staged.{stage}"] for stage in ("preprocess", "predict", "postprocess")} | {os.getpid()}) == 4


def test_the_objective_is_the_whole_pipelines(server):
    staged = httpx.get(f"{server.url}/v2/models/staged").json()
    assert [tensor["name"] for tensor in staged["inputs"]] == ["text"]
    assert [tensor["name"] for tensor in staged["outputs"]] == ["label", "pid"]


def test_a_row_that_is_refused_is_named_and_others_are_answered(server):
    with ThreadPoolExecutor(8) as callers:
        bad = [callers.submit(ask, server, "staged", ["fine", "x" * 13]) for _ in range(4)]
        good = [callers.submit(ask, server, "staged", ["fine"]) for _ in range(20)]
    for answer in bad:
        assert answer.result() == (
            400,
            "step 'postprocess' of pipeline 'staged': row 1: thirteen letters bring bad luck",
        )
    assert all(answer.result()[0] == 200 for answer in good)


def test_a_method_of_one_row_is_batched_and_names_the_row(server):
    signature = next(model.signature for model in server.models if model.name == "reverse")
    assert signature.batched
    assert ask(server, "reverse", ["abc", "def"]) == (200, {"output": ["cba", "fed"]})
    assert ask(server, "reverse", ["abc", "no"]) == (400, "row 1: no is no text")


def test_a_row_is_counted_from_the_first_that_was_sent_also_in_a_later_part(tmp_path, cache):
    (tmp_path / "reverse.py").write_text(BY_ROW)
    with inferd.Server(tmp_path / "reverse.py", threads=1, batch_rows_max=8, profiling=False) as server:
        texts = ["fine"] * 20
        texts[13] = "no"
        assert ask(server, "reverse", texts) == (400, "row 13: no is no text")


def test_what_a_method_trips_over_is_in_the_log_with_the_users_own_lines_only(tmp_path):
    (tmp_path / "reverse.py").write_text(BY_ROW)
    from outside.process import Inferd

    with Inferd(tmp_path / "run", tmp_path / "reverse.py") as process:
        assert ask(process, "reverse", ["fine", "boom"]) == (500, "the model raised KeyError")
        wait_for(lambda: "what only the log may show" in process.log(), "the fault is in the log")
        log = process.log()
    assert 'reverse.py\\", line 8, in predict' in log or 'reverse.py", line 8, in predict' in log
    assert "raised for row 1 of the batch" in log
    assert "inferd/worker" not in log
    assert "inferd/sdk" not in log


def test_errors_while_loading_show_the_users_traceback(tmp_path, cache):
    (tmp_path / "broken.py").write_text(
        "from inferd import Model\n\nclass Broken(Model):\n    def load(self):\n        1 / 0\n"
        "    def predict(self, text: list[str]) -> list[str]: ...\n"
    )
    with pytest.raises(inferd.ModelFailed, match="ZeroDivisionError") as raised:
        inferd.Server(tmp_path / "broken.py").start()
    assert "line 5, in load" in raised.value.detail
    assert "inferd/sdk" not in raised.value.detail
