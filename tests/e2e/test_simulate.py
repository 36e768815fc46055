"""``inferd simulate`` as it is typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from inferd.cli.commands import FAILED, WRONG, run
from outside.process import Inferd
from outside.traffic import four_columns

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``fraud.onnx`` and what ``inferd explain --json`` might have said of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    curve = [{"rows": rows, "mean_s": 0.001 + 0.0002 * rows, "high_s": 0.01, "samples": 9} for rows in (1, 8, 32)]
    why = {"curve": curve, "spread": [[0.01, 0.9], [0.5, 1.0], [0.99, 1.3]], "overhead_s": {"batch": 1e-4}}
    model = {"name": "fraud", "version": 1, "signature": {"batching": "on"}, "explain": why}
    (folder / "measured.json").write_text(json.dumps({"models": [model]}))
    return folder


def simulated(folder: Path, *arguments: str) -> dict[str, Any]:
    line = ["simulate", "fraud.onnx", "--profile", "measured.json", "--json", "report.json", *arguments]
    assert run(line) == 0
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_a_load_is_told_as_a_table_a_report_and_a_picture(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = simulated(measured, "--trace", "poisson:500", "--slo", "25ms", "--duration", "20s", "--plot", "load.png")
    printed = capsys.readouterr().out
    for expected in ("fraud", "p99 25ms", "yes", "BUSY", "ROWS EACH", "policy slack"):
        assert expected in printed
    assert 9_000 < report["requests"] < 11_000
    assert report["targets"][0]["attainment"] > 0.99
    assert (measured / "load.png").read_bytes().startswith(b"\x89PNG")


def test_equal_seeds_give_equal_reports_and_a_slower_policy_a_worse_one(measured: Path) -> None:
    load = ("--trace", "bursty:1000,4", "--slo", "25ms", "--duration", "10s", "--seed", "7")
    report = simulated(measured, *load)
    assert simulated(measured, *load) == report
    alone = simulated(measured, *load, "--policy", "equal_division")
    assert alone["targets"][0]["attainment"] < report["targets"][0]["attainment"]


def test_a_machine_that_was_slow_for_a_while_is_slow_again(measured: Path) -> None:
    load = ("--trace", "poisson:2000", "--slo", "25ms", "--duration", "10s")
    steady = simulated(measured, *load)
    told = json.loads((measured / "measured.json").read_text())
    told["models"][0]["explain"]["recent_ratios"] = [0.9] * 400 + [6.0] * 100
    (measured / "measured.json").write_text(json.dumps(told))
    changing = simulated(measured, *load)
    assert changing["targets"][0]["attainment"] < steady["targets"][0]["attainment"] - 0.05


def test_the_fewest_replicas_that_hold_the_objective_are_found(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ("--trace", "poisson:9000", "--slo", "25ms", "--duration", "5s")
    report = simulated(measured, *load, "--find", "replicas")
    replicas = report["models"][0]["replicas"]
    assert f"{replicas} of fraud" in capsys.readouterr().out
    assert report["targets"][0]["holds"]
    assert not simulated(measured, *load, "--replicas", str(replicas - 1))["targets"][0]["holds"]


def test_arrivals_are_read_from_a_file(measured: Path) -> None:
    (measured / "arrivals.csv").write_text("time_s,model,rows\n" + "".join(f"{at / 100},,2\n" for at in range(100)))
    report = simulated(measured, "--trace", "arrivals.csv")
    assert (report["requests"], report["models"][0]["rows"]) == (100, [[2, 100]])


def test_what_requests_cost_the_gateway_is_part_of_their_latency(measured: Path) -> None:
    load = ("--trace", "poisson:2000", "--slo", "25ms", "--duration", "5s")
    free = simulated(measured, *load)
    told = json.loads((measured / "measured.json").read_text())
    told["models"][0]["explain"]["overhead_s"]["request"] = 2e-4
    (measured / "measured.json").write_text(json.dumps(told))
    busy = simulated(measured, *load)
    # 40 % of a gateway's time: read and answered one after the other, some wait for others.
    assert busy["targets"][0]["latency"]["mean_s"] > free["targets"][0]["latency"]["mean_s"] + 2e-4


def test_what_a_server_says_of_itself_is_what_is_simulated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Inferd(folder / "run", folder / "fraud.onnx") as server:
        for _ in range(20):
            httpx.post(f"{server.url}/v2/models/fraud/infer", content=four_columns(3)).raise_for_status()
        assert run(["explain", "--url", server.metrics_url, "--json"]) == 0
    (folder / "said.json").write_text(said := capsys.readouterr().out)
    # Between the end of a run and the moment at which that is seen some time passes, but not a second.
    unseen = json.loads(said)["models"][0]["explain"]["overhead_s"]["unseen"]
    assert all(0 < seconds < 1 for _, seconds in unseen)
    assert len(unseen) > 5
    line = ["simulate", str(folder / "fraud.onnx"), "--trace", "poisson:50", "--profile", str(folder / "said.json")]
    assert run([*line, "--slo", "100ms", "--duration", "10s"]) == 0
    assert "yes" in capsys.readouterr().out


def test_a_pipeline_is_simulated_step_by_step_over_models_that_it_shares(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (measured / "both.yaml").write_text(
        """
models:
  - path: fraud.onnx
pipelines:
  - name: twice
    slo: 25ms
    steps:
      - {name: once, model: fraud, inputs: {x: x}}
      - {name: again, model: fraud, inputs: {x: once.y}}
    outputs: {y: again.y}
"""
    )
    line = "simulate both.yaml --profile measured.json --trace poisson:200 --trace fraud=poisson:50 --json both.json"
    assert run([*line.split(), "--duration", "20s"]) == 0
    twice, alone = json.loads((measured / "both.json").read_text())["targets"]
    assert [step["name"] for step in twice["steps"]] == ["once", "again"]
    assert twice["holds"]
    assert alone["latency"]["p50_s"] < twice["latency"]["p50_s"]
    assert "  again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--trace posson:3", "poisson:RATE"),
        ("--trace poisson:3 --policy fifo", "known are equal_division"),
        ("--trace poisson:3 --profile fraud.onnx", "inferd explain --json"),
        ("--trace poisson:3 --profile none.json", "No such file"),
        ("--trace other=poisson:3", "known are fraud"),
        ("--trace poisson:3 --find replicas", "--slo 50ms"),
        ("--trace poisson:3 --duration 20", "20ms or 20s"),
        ("", "--trace"),
    ],
)
def test_what_is_typed_wrong_is_answered_with_what_would_be_right(
    measured: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    assert run(["simulate", "fraud.onnx", "--profile", "measured.json", *arguments.split()]) == WRONG
    assert words in capsys.readouterr().err


def test_a_model_that_was_never_measured_is_named_with_how_to(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "fraud.onnx", "--trace", "poisson:3"]) == WRONG
    printed = capsys.readouterr().err
    assert "'fraud' was never measured" in printed
    assert "inferd explain --json" in printed


def test_an_objective_that_nothing_holds_ends_the_search(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "simulate fraud.onnx --profile measured.json --trace poisson:100 --slo 1ms --duration 1s --find replicas"
    assert run(line.split()) == FAILED
    assert "even 256 replicas of 'fraud'" in capsys.readouterr().err
