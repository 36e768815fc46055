"""``inferd simulate`` from its options to its tables: what a load would do to a server.

Reads options and the desired state, drives simulations, prints. Knows nothing of how a load is simulated.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from inferd.cli.show import table
from inferd.control.simulation.scenario import find_replicas, make_scenario, read_profile, simulate
from inferd.control.simulation.traces import read_traces
from inferd.spec.units import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine

__all__ = ["Options", "report_tables", "run"]

# Who waits longer than this wants to know how long it will be.
_PATIENCE_S = 2.0


class Options(NamedTuple):
    """The options of the command."""

    traces: tuple[str, ...]
    profile: Path | None
    policy: str
    find: str | None
    seed: int
    duration_s: float | None
    plot: Path | None
    json: Path | None


def run(desired: DesiredState, machine: Machine, options: Options) -> int:
    """Simulate, print, write what was asked for; the exit status."""
    scenario = make_scenario(desired, read_profile(options.profile), machine)
    # Who serves one pipeline asks about it, not about the models that it is made of.
    pipelines, models = ([one["name"] for one in scenario[kind]] for kind in ("pipelines", "models"))
    usual = next((names[0] for names in (pipelines, models) if len(names) == 1), None)
    arrivals, duration_s = read_traces(options.traces, [*pipelines, *models], options.duration_s, usual)
    scenario |= {"arrivals": arrivals, "duration_s": duration_s, "seed": options.seed, "policy": options.policy}
    if options.plot is not None:
        # A missing package is reported before the simulation runs.
        from inferd.cli.plots import draw
    if options.find is not None:
        scenario, report = find_replicas(scenario, _say_try)
        counts = ", ".join(f"{model['replicas']} of {model['name']}" for model in scenario["models"])
        click.echo(f"replicas that hold the objectives: {counts}\n")
    else:
        report = _simulate(scenario)
    click.echo(report_tables(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(report, options.plot)
    return 0


def report_tables(report: dict[str, Any]) -> str:
    """What came of the requests, and what ran."""
    head = ("TO", "REQUESTS", "IN TIME", "LATE", "REFUSED", "OBJECTIVE", "HOLDS", "P50", "P90", "P99", "P99.9")
    rows: list[tuple[str, ...]] = [head]
    for target in report["targets"]:
        rows.append(
            (
                target["name"],
                f"{target['requests']:,}",
                f"{100 * target['attainment']:.2f} %",
                f"{target['late']:,}",
                f"{target['refused']:,}",
                _objective(target),
                {True: "yes", False: "no", None: "-"}[target["holds"]],
                *_percentiles(target["latency"]),
            )
        )
        rows += [
            (f"  {step['name']}", f"{step['runs']:,}", *[""] * 5, *_percentiles(step["latency"]))
            for step in target["steps"]
        ]
    models = [("MODEL", "REPLICAS", "BUSY", "BATCHES", "ROWS EACH", "WAIT P50", "WAIT P99")]
    models += [
        (
            model["name"],
            str(model["replicas"]),
            f"{100 * model['utilisation']:.1f} %",
            f"{model['batches']:,}",
            f"{model['rows_mean']:.1f}",
            _ms(model["wait"]["p50_s"]),
            _ms(model["wait"]["p99_s"]),
        )
        for model in report["models"]
    ]
    said = f"{report['requests']:,} requests in {report['duration_s']:g} s, policy {report['policy']}"
    return f"{said}, seed {report['seed']}\n\n{table(rows)}\n\n{table(models)}"


def _percentiles(times: dict[str, float | None]) -> tuple[str, ...]:
    return tuple(_ms(times[name]) for name in ("p50_s", "p90_s", "p99_s", "p999_s"))


def _objective(target: dict[str, Any]) -> str:
    if target["objective_s"] is None:
        return "-"
    return f"p{target['percentile']:g} {format_duration(target['objective_s'])}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


def _say_try(replicas: dict[str, int]) -> None:
    click.echo("trying " + ", ".join(f"{count} of {name}" for name, count in replicas.items()), err=True)


def _simulate(scenario: dict[str, Any]) -> dict[str, Any]:
    """Simulate, with a bar once it takes long."""
    started_s = time.monotonic()
    with click.progressbar(length=1000, label="simulating", file=sys.stderr, hidden=True) as bar:

        def progress(share: float) -> None:
            bar.hidden = time.monotonic() - started_s < _PATIENCE_S
            bar.update(int(1000 * share) - bar.pos)

        return simulate(scenario, progress)
