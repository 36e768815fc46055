"""Runs that take far longer than usual: honest work is answered, and holds nobody up."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from outside.metrics import Metrics
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

SLEEPERS = {
    "awaits": """
import asyncio
from inferd import Model

class Awaits(Model):
    async def predict(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds
""",
    "sleeps": """
import time
from inferd import Model

class Sleeps(Model):
    def predict(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds
""",
    "computes": """
import time
from inferd import Model

class Computes(Model):
    def predict(self, seconds: float) -> float:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            pass
        return seconds
""",
}


def ask(url: str, model: str, seconds: float, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/models/{model}", content=json.dumps(seconds), headers=headers, timeout=60)


def stalled(metrics_url: str) -> float:
    return Metrics(metrics_url).value("inferd_replicas", state="stalled")


def ended(metrics_url: str) -> float:
    return Metrics(metrics_url).value("inferd_worker_losses_total", reason="hang")


@pytest.mark.parametrize("model", sorted(SLEEPERS))
def test_a_run_of_seconds_after_many_of_microseconds_is_answered(serve, tmp_path: Path, model: str) -> None:
    (tmp_path / f"{model}.py").write_text(SLEEPERS[model])
    with serve(tmp_path / f"{model}.py", "--threads", "1") as server:
        for _ in range(40):
            assert ask(server.url, model, 0).json() == 0
        [before] = server.workers()
        with ThreadPoolExecutor(1) as caller:
            slow = caller.submit(ask, server.url, model, 6)
            wait_for(lambda: stalled(server.metrics_url) == 1, "the stall")
            wait_for(lambda: len(server.workers()) == 2, "the spare")
            assert ask(server.url, model, 0).json() == 0
            answer = slow.result()
        assert (answer.status_code, answer.json()) == (200, 6)
        wait_for(lambda: server.workers() == [before], "the end of the spare")
        assert Metrics(server.metrics_url).value("inferd_worker_losses_total") == 0


def test_a_limit_that_is_stated_is_obeyed_and_the_message_names_it(serve, tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text(SLEEPERS["sleeps"])
    with serve(tmp_path / "sleeps.py", "--execution-max-s", "2s", "--threads", "1") as server:
        for _ in range(40):
            assert ask(server.url, "sleeps", 0).json() == 0
        assert ask(server.url, "sleeps", 1.5).json() == 1.5
        answer = ask(server.url, "sleeps", 30)
        assert answer.status_code == 504
        assert "execution_max_s = 2s" in answer.json()["error"]


def test_a_run_whose_caller_has_gone_is_ended_and_others_are_served(serve, tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text(SLEEPERS["sleeps"])
    with serve(tmp_path / "sleeps.py", "--threads", "1") as server:
        assert ask(server.url, "sleeps", 0).json() == 0
        [before] = server.workers()
        assert ask(server.url, "sleeps", 600, **{"Inferd-Timeout-Ms": "300"}).status_code == 504
        wait_for(lambda: ended(server.metrics_url) == 1, "its end", 60)
        wait_for(lambda: len(server.workers()) == 1 and server.workers() != [before], "another worker")
        assert ask(server.url, "sleeps", 0).json() == 0
