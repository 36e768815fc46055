"""Runs of a microsecond and of minutes, in any order: none that is honest is ended, whatever objective and limits say.

Times depend on inputs, and nothing tells a run that computes from one that hangs but a bound that somebody stated.
"""

from __future__ import annotations

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from outside.metrics import Metrics
from outside.process import Inferd

if TYPE_CHECKING:
    from pathlib import Path

SLEEPS = """
import asyncio
import time
from inferd import Model

class Sleeps(Model):
    def predict(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds
"""
AWAITS = SLEEPS.replace("    def predict", "    async def predict").replace("time.sleep", "await asyncio.sleep")
COMPUTES = SLEEPS.replace(
    "time.sleep(seconds)", "ends = time.perf_counter() + seconds\n        while time.perf_counter() < ends: pass"
)
MODELS = {"sleeps": SLEEPS, "awaits": AWAITS, "computes": COMPUTES}
SHORTEST_S = 1e-6
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "objective": {"slo": "20ms"},
    "bounded": {"execution_max_s": 0},
    "both": {"slo": "20ms", "execution_max_s": 0},
}


def lengths(seed: int, count: int, longest_s: float) -> list[float]:
    """From the shortest to the longest, as many of each magnitude, in random order; the longest is among them."""
    chance = random.Random(seed)
    magnitudes = [chance.uniform(math.log(SHORTEST_S), math.log(longest_s)) for _ in range(count - 1)]
    drawn = [*(round(math.exp(one), 7) for one in magnitudes), longest_s]
    chance.shuffle(drawn)
    return drawn


def serving(folder: Path, longest_s: float) -> Inferd:
    models = []
    for way, settings in WAYS.items():
        # A bound is nothing for those that keep it.
        stated = {"execution_max_s": 2 * longest_s + 5} if "execution_max_s" in settings else {}
        for name, text in MODELS.items():
            place = folder / f"{name}_{way}"
            place.mkdir(parents=True)
            (place / "model.py").write_text(text)
            models.append({"path": str(place / "model.py"), "name": place.name, **settings, **stated})
    defaults = {"threads": 1, "profiling": False, "replicas": 1}
    (folder / "inferd.yaml").write_text(json.dumps({"defaults": defaults, "models": models}))
    return Inferd(folder / "run", folder / "inferd.yaml")


def all_are_answered(folder: Path, count: int, longest_s: float) -> None:
    with serving(folder, longest_s) as server:

        def ask(model: str, seed: int) -> None:
            for number, seconds in enumerate(lengths(seed, count, longest_s)):
                # A caller that has time, and one that states how much.
                headers = {"Inferd-Timeout-Ms": str(int(1000 * (2 * longest_s + 30)))} if number % 2 else {}
                answer = httpx.post(
                    f"{server.url}/models/{model}", content=json.dumps(seconds), headers=headers, timeout=600
                )
                assert answer.status_code == 200, f"{model}, {seconds} s: {answer.text}\n{server.log()}"
                assert answer.json() == seconds

        names = [f"{name}_{way}" for name in MODELS for way in WAYS]
        with ThreadPoolExecutor(len(names)) as pool:
            for asked in [pool.submit(ask, name, seed) for seed, name in enumerate(names)]:
                asked.result()
        assert Metrics(server.metrics_url).value("inferd_worker_losses_total") == 0


def test_runs_of_microseconds_and_seconds_are_answered(tmp_path: Path) -> None:
    all_are_answered(tmp_path, 16, 2.0)


@pytest.mark.slow
def test_runs_of_microseconds_and_minutes_are_answered(tmp_path: Path) -> None:
    all_are_answered(tmp_path, 10, 90.0)
