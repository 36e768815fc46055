"""Models come and go for as long as a server runs: nothing of them may stay behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outside import models

# The whole thousand takes minutes: INFERD_TEST_CYCLES=1000.
CYCLES = int(os.environ.get("INFERD_TEST_CYCLES", "60"))

CYCLE = """
import gc, json, os, sys
from pathlib import Path

import psutil

from inferd.control.dataplane import DataPlane
from inferd.control.config import desired_state
from inferd.control.resources import observe

file, cycles = Path(sys.argv[1]), int(sys.argv[2])
machine = observe()
desired = desired_state([file], {"port": 0, "metrics_port": 0, "log_level": "error"}, {"threads": 1}, machine)
plane = DataPlane(desired.gateway, desired.log)
settings = {**desired.models[0].settings, "profiling": False}
me = psutil.Process()
held = []
for cycle in range(cycles):
    plane.load(settings)
    workers = [psutil.Process(one["pid"]) for model in plane.status()["models"] for one in model["replicas"]]
    plane.unload(settings["name"], settings["version"])
    assert psutil.wait_procs(workers, timeout=10)[1] == [], "a worker stayed"
    gc.collect()
    held.append({"rss": me.memory_info().rss, "fds": me.num_fds(), "threads": me.num_threads()})
plane.close()
print(json.dumps(held))
"""


@pytest.mark.parametrize("kind", ["onnx", "python"])
def test_a_model_that_was_loaded_and_unloaded_leaves_no_memory_descriptor_or_thread(kind, tmp_path):
    import json

    file = models.identity(tmp_path / "m.onnx", "FP32", ["n", 4]) if kind == "onnx" else models.moody(tmp_path / "m.py")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", CYCLE, str(file), str(CYCLES)],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    held = json.loads(ran.stdout.splitlines()[-1])
    # Pools and caches fill up at first.
    settled, last = held[CYCLES // 3], held[-1]
    print(f"{kind}: {settled} after {CYCLES // 3} cycles, {last} after {CYCLES}")
    assert last["fds"] <= settled["fds"] + 2
    assert last["threads"] <= settled["threads"] + 2
    assert last["rss"] - settled["rss"] < 4 << 20
