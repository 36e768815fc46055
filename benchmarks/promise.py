"""How well a latency promise is kept, beside servers tuned by hand, and how well the simulator foretells it.

    python benchmarks/promise.py [--quick] [--only MODEL …]

Measures each model into ``benchmarks/results/promise-MODEL.json``; ``promise_page.py`` makes ``docs/promise.md`` of
what is there. The promise: 99 % of the requests within 25 ms of when they were due to leave, whatever the server does
meanwhile (arrivals are drawn in advance; a refusal is a miss). inferd is told the objective and nothing else; of each
peer every setting of a small search is tried and the best is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
import promise_page
import run
from bench import Bench, pin_harness
from openloop import Arrivals, open_loop
from peers import MosecRaw, TritonBinary
from servers import InferdBinary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openloop import OpenLoop
    from servers import Server

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("score", "mlp")
OBJECTIVE_S = 0.025
ATTAINMENT = 0.99
BURSTS_CV = 4.0
# Of the highest rate that inferd sustains.
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
# A step of the search for the highest rate, for everyone alike.
FINE = 1.02
COARSE = 1.1
# A run whose generator was late says nothing of the server: it is made again, so often.
TRIES = 4
# Between a server's start and its first load, for each alike.
SETTLE_S = 3.0
# Rates and bursts that each is loaded with before it is measured.
WARM = ((500.0, 1.0), (2000.0, 4.0), (2000.0, 4.0))
# Settings that a second, closer look is taken at.
FINALISTS = 3
BOUND_ROWS = (32, 64, 128, 256)


class InferdPromise(InferdBinary):
    """inferd that is told the objective."""

    name = "inferd"
    flags = ("--slo", "25ms")


@dataclass(frozen=True)
class Load:
    """Arrivals of one kind, over some seeds: bursts differ."""

    cv: float
    seconds: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What came of one load at one rate."""

    rate: float
    sent: int
    met: int
    refused: int
    seconds: float
    p50_s: float
    p99_s: float
    late_s: float
    """How late the generator was, at its 99th percentile."""

    @property
    def attainment(self) -> float:
        return self.met / self.sent if self.sent else 1.0


def measure(bench: Bench, server: Server, rate: float, load: Load, *, may_be_late: bool = False) -> Seen:
    """What comes of one load. ``may_be_late``: at a rate that the generator itself may not keep, one try must do."""
    tries = 1 if may_be_late else TRIES
    runs = [once(bench, server, Arrivals(rate, load.seconds, seed, load.cv), tries) for seed in load.seeds]
    found = Seen(
        rate,
        sum(run.sent for run in runs),
        sum(run.within(OBJECTIVE_S) for run in runs),
        sum(run.refused for run in runs),
        load.seconds * len(load.seeds),
        statistics.median(run.quantile(0.5) for run in runs),
        statistics.median(run.quantile(0.99) for run in runs),
        max(run.lateness_s["p99"] for run in runs),
    )
    say(
        f"  {server.name}: {rate:,.0f}/s CV {load.cv:g}: {found.attainment:.2%} met, {found.refused} refused,"
        f" p99 {found.p99_s * 1e3:.1f} ms, generator late by {found.late_s * 1e6:.0f} µs"
    )
    return found


def once(bench: Bench, server: Server, arrivals: Arrivals, tries: int) -> OpenLoop:
    """One run whose generator was in time, or the one of ``tries`` in which it was least late."""
    runs: list[OpenLoop] = []
    while len(runs) < tries and not (runs and not runs[-1].generator_was_late):
        runs.append(open_loop(server.address, server.request(), arrivals, bench.load_core))
    return min(runs, key=lambda run: run.lateness_s["p99"])


def highest_rate(bench: Bench, server: Server, load: Load, start: float, fine: float = FINE) -> float:
    """The highest rate of which 99 % are met, within ``fine``: up or down in wide steps, then between the two."""

    def holds(rate: float) -> bool:
        return measure(bench, server, rate, load).attainment >= ATTAINMENT

    low, high = start, start
    if holds(start):
        while holds(high := low * 1.4):
            low = high
    else:
        while not holds(low := high / 1.4):
            high = low
            if low < 20:
                return 0.0
    while high / low > fine:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@contextmanager
def running(bench: Bench, kind: type[Server], model: str) -> Iterator[Server]:
    with bench.running([kind], model) as [server]:
        # Everything has run once: memory is there, curves are learned. inferd measures itself while it is idle.
        time.sleep(SETTLE_S)
        for rate, cv in WARM:
            open_loop(server.address, server.request(), Arrivals(rate, 3.0, 0, cv), bench.load_core)
        yield server


def variants(*, quick: bool) -> dict[str, list[type[Server]]]:
    """The settings that are tried of each peer."""
    rows, waits = ((64,), (1,)) if quick else ((32, 64, 128, 256), (1, 2, 5))
    delays, queues = ((0,), (0,)) if quick else ((0, 2000), (0, 128))
    mosec = [
        type("Mosec", (MosecRaw,), {"name": f"mosec {most} rows {wait} ms", "rows_max": most, "wait_ms": wait})
        for most, wait in product(rows, waits)
    ]
    triton = [
        type(
            "Triton",
            (TritonBinary,),
            {
                "name": f"triton {most} rows {delay} us queue {queue or 'any'}",
                "rows_max": most,
                "delay_us": delay,
                "queue_max": queue,
            },
        )
        for most, delay, queue in product(rows, delays, queues)
    ]
    return {"mosec": mosec, "triton": triton}


def tune(bench: Bench, kinds: list[type[Server]], model: str, load: Load, rate: float) -> type[Server]:
    """Whichever holds the highest rate, of those that meet most at a rate which hardly any of them holds."""
    short = Load(load.cv, load.seconds, load.seeds[:1])

    def score(kind: type[Server]) -> int:
        with running(bench, kind, model) as server:
            return measure(bench, server, rate, short).met

    def holds(kind: type[Server]) -> float:
        with running(bench, kind, model) as server:
            return highest_rate(bench, server, short, rate / 1.2, COARSE)

    met = {kind: score(kind) for kind in kinds}
    finalists = sorted(kinds, key=lambda kind: -met[kind])[:FINALISTS]
    held = {kind: holds(kind) for kind in finalists}
    return max(finalists, key=lambda kind: held[kind])


def told_by(server: InferdPromise) -> str:
    """What the running server says of itself, as JSON."""
    command = [str(server.environment.inferd_python), "-m", "inferd", "explain", "--json"]
    command += ["--url", metrics_address(server)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def foretell(server: InferdPromise, arrivals: Arrivals) -> dict[str, Any]:
    """What the simulator says of these very arrivals, from what the running server says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        profile, trace, report = (Path(folder) / name for name in ("profile.json", "arrivals.csv", "report.json"))
        profile.write_text(told_by(server))
        trace.write_text("time_s\n" + "".join(f"{offset}\n" for offset in arrivals.offsets()))
        command = [str(server.environment.inferd_python), "-m", "inferd", "simulate", str(server.model), *server.flags]
        command += ["--trace", str(trace), "--seed", str(arrivals.seed), "--profile", str(profile)]
        subprocess.run([*command, "--json", str(report)], check=True, capture_output=True)
        told: dict[str, Any] = json.loads(report.read_text())
        return {**told["targets"][0], "rows_mean": told["models"][0]["rows_mean"]}


def bound(server: InferdPromise, load: Load, rate: float) -> dict[str, Any]:
    """What nobody could better with batches that take what the running server measured, by the most rows of one."""
    points = json.loads(told_by(server))["models"][0]["explain"]["curve"]
    curve: list[tuple[int, float]] = []
    for point in points:
        curve.append((point["rows"], max(point["mean_s"], curve[-1][1] if curve else 0.0)))
    question = {
        "curve": curve,
        "offsets": [list(Arrivals(rate, load.seconds, seed, load.cv).offsets()) for seed in load.seeds],
        "objective_s": OBJECTIVE_S,
        "attainment": ATTAINMENT,
        "batch_rows_max": BOUND_ROWS,
        "waits_s": [0.0, 0.001, 0.005],
    }
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / "examples" / "bound"
    ran = subprocess.run([str(program)], input=json.dumps(question), check=True, stdout=subprocess.PIPE, text=True)
    rates: dict[str, Any] = json.loads(ran.stdout)
    return {"curve": curve, "rates": rates}


def metrics_address(server: InferdPromise) -> str:
    lines = server.process.log.read_text(errors="replace")
    at = lines.index("http://127.0.0.1", lines.index("metrics") if "metrics" in lines else 0)
    return lines[at:].split("/metrics")[0].split()[0]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few settings, short loads: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL", help=f"of {MODELS}")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each load lasts")
    parser.add_argument("--models", type=Path, default=run.RESULTS / "models")
    parser.add_argument("--results", type=Path, default=run.RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--inferd-python", type=Path, default=ROOT / ".venv" / "bin" / "python")
    options = parser.parse_args()
    env = environment.prepare(options.inferd_python)
    run.make_models(env, options.models)
    pin_harness(1)
    options.results.mkdir(parents=True, exist_ok=True)
    for model in options.only:
        with tempfile.TemporaryDirectory(prefix="inferd-promise-") as folder:
            bench = Bench(env, options.models, Path(folder), 0, 1, 1, options.seconds, options.quick)
            found = measure_model(bench, model, quick=options.quick)
        (options.results / f"promise-{model}.json").write_text(json.dumps(found, indent=1))
    seen = {model: options.results / f"promise-{model}.json" for model in MODELS}
    found = {model: json.loads(file.read_text()) for model, file in seen.items() if file.exists()}
    print(promise_page.write(found, options.docs))
    return 0


def measure_model(bench: Bench, model: str, *, quick: bool) -> dict[str, Any]:
    """Everything about one model, as JSON."""
    load = Load(BURSTS_CV, bench.seconds, (1,) if quick else (1, 2))
    curves: dict[str, list[Seen]] = {}
    with running(bench, InferdPromise, model) as server:
        best = {"inferd": highest_rate(bench, server, load, 1500.0)}
        limits = bound(server, load, best["inferd"])
    chosen: dict[str, type[Server]] = {"inferd": InferdPromise}
    for peer, kinds in variants(quick=quick).items():
        chosen[peer] = tune(bench, kinds, model, load, best["inferd"] / 1.2)
        with running(bench, chosen[peer], model) as server:
            best[peer] = highest_rate(bench, server, load, best["inferd"] / 1.5)
    for name, kind in chosen.items():
        with running(bench, kind, model) as server:
            rates = {best["inferd"] * share for share in SHARES} | {best[name] * 2}
            curves[name] = [
                measure(bench, server, rate, load, may_be_late=rate > best["inferd"]) for rate in sorted(rates)
            ]
    return {
        "model": model,
        "machine": environment.machine(),
        "objective_s": OBJECTIVE_S,
        "load": asdict(load),
        "settings": {name: kind.name for name, kind in chosen.items()},
        "best": best,
        "bound": limits,
        "curves": {
            name: [{**asdict(seen), "attainment": seen.attainment} for seen in seen_of]
            for name, seen_of in curves.items()
        },
        "compared": compare(bench, model, best["inferd"], quick=quick),
    }


def compare(bench: Bench, model: str, bursty_rate: float, *, quick: bool) -> list[dict[str, Any]]:
    """Simulator beside reality at three loads, the median of several runs each."""
    rows = []
    seconds, runs = bench.seconds, 1 if quick else 5
    with running(bench, InferdPromise, model) as server:
        capacity = bench.http(server, 64)()["rate"]
        for label, cv, rate in (
            ("Poisson, 40 % of capacity", 1.0, 0.4 * capacity),
            ("Poisson, 75 % of capacity", 1.0, 0.75 * capacity),
            ("Bursts, at the highest rate held", BURSTS_CV, bursty_rate),
        ):
            real, told = [], []
            for seed in range(1, runs + 1):
                real.append(measure(bench, server, rate, Load(cv, seconds, (seed,))))
                told.append(foretell(server, Arrivals(rate, seconds, seed, cv)))
            median = statistics.median
            rows.append(
                {
                    "label": label,
                    "rate": rate,
                    "attainment": median(one.attainment for one in real),
                    "p50_s": median(one.p50_s for one in real),
                    "p99_s": median(one.p99_s for one in real),
                    "foretold_attainment": median(one["attainment"] for one in told),
                    "foretold_p50_s": median(one["latency"]["p50_s"] for one in told),
                    "foretold_p99_s": median(one["latency"]["p99_s"] for one in told),
                    "foretold_rows": median(one["rows_mean"] for one in told),
                    "why": json.loads(told_by(server))["models"][0]["explain"],
                }
            )
            say(f"  { ({key: value for key, value in rows[-1].items() if key != 'why'}) }")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
