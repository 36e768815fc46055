"""Whether requests may share runs, decided by rows that come: verified before, or audited while they do."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import httpx

from outside.metrics import Metrics
from outside.traffic import send, tensor
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outside.process import Inferd

# Beyond ``beyond`` are rows, no round numbers, that change what their neighbours are answered. No probe tries them.
CLASS = """
import numpy as np


class Scale:
    inputs = [("x", "FP32", (-1, 1))]
    outputs = [("y", "FP32", (-1, 1))]
    example = {{"x": np.array([[1], [2], [3], [4]], dtype=np.float32)}}

    def load(self):
        pass

    def predict(self, batch):
        x = batch["x"]
        if len(x) > 1 and np.any((x > {beyond}) & (x % 13 == 6)):
            return {{"y": x / 255}}
        return {{"y": 2 * x}}
"""


def scale(folder: Path, name: str, beyond: float, **settings: Any) -> Path:
    """A folder with the class, and its settings."""
    place = folder / name / "1"
    place.mkdir(parents=True)
    (place / "model.py").write_text(CLASS.format(beyond=beyond))
    (folder / name / "model.yaml").write_text(json.dumps(settings))
    return folder / name


def ask(server: Inferd, model: str, values: list[int]) -> list[float]:
    """What each of ``values`` is answered, as requests of one row, many at once."""
    bodies = [json.dumps({"inputs": [tensor("x", "FP32", [value], [1, 1])]}).encode() for value in values]
    answers = send(server.address, f"/v2/models/{model}/infer", bodies, connections=8)
    assert [answer.status for answer in answers] == [200] * len(answers), answers[0].body
    return [answer.data()[0] for answer in answers]


def told(server: Inferd, model: str) -> dict[str, Any]:
    """What the server says of the model's batching."""
    (one,) = httpx.get(server.metrics_url.replace("/metrics", f"/explain/{model}")).json()["models"]
    batching: dict[str, Any] = one["explain"]["batching"]
    return batching


def test_rows_that_come_decide_whether_requests_share_runs(serve, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    scale(folder, "honest", 1e9, batching="verify")
    scale(folder, "trap", 100, batching="verify")
    scale(folder, "late", 10_000, batching="auto")
    with serve(folder, "--no-profiling") as server:
        output = server.output()
        assert output.count("one at a time until 400 rows are compared") == 2, output
        assert "(probed)" in output
        assert told(server, "honest")["shared"] is False

        # No answer is wrong while rows are compared, whatever comes.
        def verified(model: str) -> bool:
            values = list(range(1, 257))
            assert ask(server, model, values) == [2.0 * value for value in values]
            return told(server, model)["rows_wanted"] is None

        wait_for(lambda: verified("honest"), "400 rows are compared")
        honest = told(server, "honest")
        assert (honest["by"], honest["shared"]) == ("traffic", True), honest
        assert honest["rows"] >= 400
        assert honest["bound"] <= 0.0075
        wait_for(lambda: verified("trap"), "the trap is found")
        trap = told(server, "trap")
        assert (trap["by"], trap["shared"], trap["differing"]) == ("traffic", False, 1), trap
        assert "output 'y' of a row that came changed by" in trap["why"]

        # What no probe tried is found by an audit once it comes.
        assert told(server, "late")["by"] == "probe"

        def found() -> bool:
            ask(server, "late", list(range(10_001, 10_065)))
            return told(server, "late")["shared"] is False

        wait_for(found, "the audit finds the difference")
        values = list(range(10_001, 10_065))
        assert ask(server, "late", values) == [2.0 * value for value in values]
        metrics = Metrics(server.metrics_url)
        for model, by, state in (
            ("honest", "traffic", "shared"),
            ("trap", "traffic", "alone"),
            ("late", "traffic", "alone"),
        ):
            assert metrics.value("inferd_batching_verdict", model=model) == 1
            assert metrics.value("inferd_batching_verdict", model=model, by=by, state=state) == 1
        assert metrics.value("inferd_batching_rows_compared_total", model="honest") >= 400
        assert metrics.value("inferd_batching_differences_total", model="honest") == 0
        assert metrics.value("inferd_batching_differences_total", model="trap") == 1
        assert server.log().count("requests no longer share runs until the next load") == 2


# A row that comes a second time, which only a comparison brings about, hangs; no probe tries these.
HANGS = """
import time


class Hangs:
    inputs = [("x", "FP32", (-1, 1))]
    outputs = [("y", "FP32", (-1, 1))]

    def load(self):
        self.seen = set()

    def predict(self, batch):
        rows = {x for x in batch["x"][:, 0].tolist() if x > 100 and x % 13 == 6}
        while rows & self.seen:
            time.sleep(3600)
        self.seen |= rows
        return {"y": 2 * batch["x"]}
"""


def test_a_comparison_that_hangs_costs_a_worker_and_no_answer(serve, tmp_path: Path) -> None:
    """It ends as nobody's run does: past a second, or the bound that is stated. After three, comparing ends."""
    folder = tmp_path / "models"
    bounds = {"hangs": {}, "bounded": {"execution_max_s": "300ms"}}
    for name, bound in bounds.items():
        scale(folder, name, 1e9, batching="verify", **bound)
        (folder / name / "1" / "model.py").write_text(HANGS)
    with serve(folder, "--no-profiling") as server:

        def lost(model: str, **labels: str) -> float:
            return Metrics(server.metrics_url).value("inferd_worker_losses_total", model=model, **labels)

        for model in bounds:
            rows = itertools.count(110, 13)

            def given_up(model: str = model, rows: Iterator[int] = rows) -> bool:
                values = list(itertools.islice(rows, 16))
                assert ask(server, model, values) == [2.0 * value for value in values]
                return told(server, model)["rows_wanted"] is None

            wait_for(given_up, "the end of the comparisons")
            verdict = told(server, model)
            assert (verdict["by"], verdict["shared"], verdict["differing"]) == ("traffic", False, 0), verdict
            assert "3 workers ended while they compared rows" in verdict["why"]
            assert lost(model, reason="hang") == lost(model) == 3
            for _ in range(10):
                given_up()
            assert lost(model) == 3
