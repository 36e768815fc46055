"""The open-loop generator of the benchmarks, against a server of ours."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from outside.process import Inferd

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def openloop() -> Any:
    spec = importlib.util.spec_from_file_location("openloop", BENCHMARKS / "openloop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its annotations are looked up by the module's name.
    sys.modules["openloop"] = module
    spec.loader.exec_module(module)
    # Says nothing and takes no time where it is built.
    subprocess.run(module.BUILD.split(), check=True, cwd=BENCHMARKS.parent)
    return module


class Request:
    """What the benchmarks call a request."""

    headers = {"Content-Type": "application/json"}  # noqa: RUF012 - nobody changes it
    others: tuple[bytes, ...] = ()

    def __init__(self, model: str, shape: list[int]) -> None:
        self.path = f"/v2/models/{model}/infer"
        datatype, data = "FP32" if model == "four" else "FP64", list(range(math.prod(shape)))
        tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
        self.body = json.dumps({"inputs": [tensor]}).encode()


def test_equal_seeds_give_equal_times_and_the_burstiness_asked_for(openloop: Any) -> None:
    times = list(openloop.Arrivals(500, 40, 3, 4.0).offsets())
    assert times == list(openloop.Arrivals(500, 40, 3, 4.0).offsets())
    assert times != list(openloop.Arrivals(500, 40, 4, 4.0).offsets())
    assert times == sorted(times)
    gaps = [later - sooner for sooner, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 3.5 < deviation / mean < 4.5


def test_every_request_of_a_burst_is_answered_and_the_generator_tells_of_itself(openloop: Any, zoo: Inferd) -> None:
    arrivals = openloop.Arrivals(400, 1.0, 1, 4.0)
    seen = openloop.open_loop(zoo.address, Request("four", [1, 4]), arrivals, 0)
    assert (seen.refused, seen.errors, seen.first_error) == (0, 0, None)
    assert len(seen.latencies_s) == len(list(arrivals.offsets()))
    assert 0 < seen.quantile(0.5) <= seen.quantile(0.99)
    assert 0 < seen.lateness_s["p50"] <= seen.lateness_s["p99"] <= seen.lateness_s["most"]
    assert seen.own_request_s > 0
    assert seen.connections >= 1


def test_what_the_server_does_not_take_is_an_error_with_its_reason(openloop: Any, zoo: Inferd) -> None:
    seen = openloop.open_loop(zoo.address, Request("four", [1, 5]), openloop.Arrivals(200, 0.2, 1), 0)
    assert (seen.latencies_s, seen.refused, seen.first_error) == ([], 0, "answered 400")
    assert seen.errors == seen.sent > 0


def test_a_slow_server_is_charged_for_all_that_was_due_meanwhile(
    openloop: Any, serve: Callable[..., Inferd], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\n\n"
        "from inferd import Model\n\n\n"
        "class Slow(Model):\n"
        "    def predict(self, x: list[float]) -> dict:\n"
        "        time.sleep(0.02 * len(x))\n"
        '        return {"y": x}\n'
    )
    with serve(tmp_path / "slow.py") as server:
        # Twice what it can do: the queue grows, and with it what each request takes from when it was due.
        seen = openloop.open_loop(server.address, Request("slow", [1]), openloop.Arrivals(100, 1.0, 1), 0)
    assert seen.errors == 0
    assert seen.quantile(0.99) > 0.3


def test_a_generator_that_was_late_says_so(openloop: Any) -> None:
    late = openloop.OpenLoop([0.1], 0, 0, lateness_s={"p99": 2 * openloop.LATE_S})
    assert late.generator_was_late
    assert not openloop.OpenLoop([0.1], 0, 0, lateness_s={"p99": openloop.LATE_S / 2}).generator_was_late


def test_a_generator_that_was_not_built_is_told_how_to_be(
    openloop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    with pytest.raises(openloop.GeneratorFailed, match="cargo build --release -p inferd-openloop"):
        openloop.program()
