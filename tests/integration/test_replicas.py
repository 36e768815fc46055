"""Replicas that are not alike: one that is far slower than the other, one that stalls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from outside.traffic import Answer, orders, send
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from outside.process import Inferd

STALL_S = 6.0
UNEVEN = f"""
import os
import time
from pathlib import Path

import numpy as np


def first(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Uneven:
    inputs = [{{"name": "x", "datatype": "FP32", "shape": [-1, 2]}}]
    outputs = [{{"name": "y", "datatype": "FP32", "shape": [-1, 2]}}]

    def load(self, folder, slow):
        self.folder = Path(folder)
        self.takes = 0.08 if slow and first(self.folder / "slow") else 0.004

    def predict(self, batch):
        stalls = batch["x"][0, 0] == 1 and first(self.folder / "stalled")
        time.sleep({STALL_S} if stalls else self.takes)
        return {{"y": batch["x"]}}
"""


def configure(folder: Path, *, slow: bool, settings: str) -> Path:
    (folder / "uneven.py").write_text(UNEVEN)
    spec = folder / "inferd.yaml"
    spec.write_text(
        "defaults: {threads: 1, profiling: false}\nmodels:\n"
        f"  - {{path: uneven.py, replicas: 2, batching: off, {settings},\n"
        f"     parameters: {{folder: {folder}, slow: {str(slow).lower()}}}}}\n"
    )
    return spec


def explain(server: Inferd) -> dict[str, Any]:
    told = httpx.get(server.metrics_url.replace("/metrics", "/explain")).json()
    explained: dict[str, Any] = told["models"][0]["explain"]
    return explained


def ask(server: Inferd, *bodies: bytes, connections: int = 1) -> list[Answer]:
    answers = send(server.address, "/v2/models/uneven/infer", list(bodies), connections)
    assert {answer.status for answer in answers} == {200}
    return answers


def test_a_replica_that_is_far_slower_is_left_out_unless_told_otherwise(serve, tmp_path: Path) -> None:
    for number, (settings, left_out) in enumerate([("ejection: true", True), ("ejection: false", False)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with serve(configure(folder, slow=True, settings=settings)) as server:
            ask(server, *[orders((0, 0))] * 200, connections=2)
            told = explain(server)
            assert (told["ejections"] > 0) == left_out
            assert told["replicas_ejected"] == int(left_out)
            ask(server, *[orders((0, 0))] * 20)


def test_a_run_that_stalls_is_answered_by_its_copy(serve, tmp_path: Path) -> None:
    with serve(configure(tmp_path, slow=False, settings="hedge_budget: 0.5")) as server:
        ask(server, *[orders((0, 0))] * 40)
        (stalled,) = ask(server, orders((1, 0)))
        assert stalled.took_s < STALL_S / 2
        assert explain(server)["hedges"] >= 1
        wait_for(lambda: explain(server)["queue"]["handed_out"] == 0, "an end of all runs that anybody waits for")
