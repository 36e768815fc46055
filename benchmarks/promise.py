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
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
import promise_page
import run
from bench import Bench, pin_harness
from load import wrk
from openloop import Arrivals, open_loop
from peers import Mosec, MosecRaw, Triton, TritonBinary
from servers import Inferd, InferdBinary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openloop import OpenLoop
    from servers import Server

ROOT = Path(__file__).resolve().parent.parent
# What is asked, by the name of its section: the model, and whether in JSON or as bytes.
CASES = {"score": ("score", False), "score-json": ("score", True), "mlp": ("mlp", False)}
OBJECTIVE_S = 0.025
ATTAINMENT = 0.99
BURSTS_CV = 4.0
# Rates that everyone is asked for: in steps of an eighth where somebody falls behind, in larger ones besides. The last
# is what the load's core can send.
STEPS = (0, 4, 8, *range(12, 23), 24, 26)
RATES = tuple(1000.0 * 2 ** (step / 6) for step in STEPS)
# Whoever met less than this at two rates in a row is asked for no higher one in this round.
LOST = 0.5
# A run whose generator was late says nothing of the server: it is made again, so often.
TRIES = 2
# Between a server's start and its first load, for each alike.
SETTLE_S = 3.0
# Rates and bursts that each is loaded with before it is measured.
WARM = ((500.0, 1.0), (2000.0, 4.0), (4000.0, 4.0))
# Each has its own bursts.
ROUNDS = 5
# More of them at the rates around the highest that a server holds, so many to each side: what decides is known best.
ROUNDS_NEAR = 6
STEPS_NEAR = 2
# How often a server is given the rate at which it answers most in time, and right before or after it twice the rate
# that it holds: how fast the machine is differs more from minute to minute.
PAIRS = 7
# How long the loads last that are foretold too.
FORETOLD_S = 6.0
# Of each peer's settings, how many take part in the rounds: two where more than one may turn out to be the best.
FINALISTS = {"mosec": 2, "triton": 1}
# Rates and bursts at which settings are compared to find these: around those that the peer can just hold, and more than
# one of each, since one may fall into a slow moment.
TUNING = {
    "mosec": tuple(product((4000.0, 5657.0, 8000.0), (1, 2))),
    "triton": tuple(product((1587.0, 2520.0, 4000.0), (1, 2))),
}
BOUND_ROWS = (32, 64, 128, 256)


class InferdPromise(InferdBinary):
    """inferd that is told the objective."""

    name = "inferd"
    flags = ("--slo", "25ms")


class InferdPromiseJson(Inferd):
    """The same, spoken to in JSON."""

    name = "inferd"
    flags = ("--slo", "25ms")


class MosecJson(Mosec):
    """mosec with a library for JSON that is faster than its own choice."""

    library = "msgspec"


@dataclass(frozen=True)
class Seen:
    """What came of one load."""

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


def measure(bench: Bench, server: Server, arrivals: Arrivals) -> Seen:
    """What comes of one load: of some tries, the one in which the generator was least late."""
    runs: list[OpenLoop] = []
    while len(runs) < TRIES and not (runs and not runs[-1].generator_was_late):
        runs.append(open_loop(server.address, server.request(), arrivals, bench.load_core))
    run = min(runs, key=lambda run: run.lateness_s["p99"])
    found = Seen(
        arrivals.rate,
        run.sent,
        run.within(OBJECTIVE_S),
        run.refused,
        arrivals.seconds,
        run.quantile(0.5),
        run.quantile(0.99),
        run.lateness_s["p99"],
    )
    say(
        f"  {server.name}: {arrivals.rate:,.0f}/s CV {arrivals.cv:g}: {found.attainment:.2%} met,"
        f" {found.refused} refused, p99 {found.p99_s * 1e3:.1f} ms, generator late by {found.late_s * 1e6:.0f} µs"
    )
    return found


def warm(bench: Bench, server: Server, loads: tuple[tuple[float, float], ...] = WARM) -> None:
    """Everything has run once then: memory is there, curves are learned. inferd measures itself while it is idle."""
    time.sleep(SETTLE_S)
    for rate, cv in loads:
        open_loop(server.address, server.request(), Arrivals(rate, 3.0, 0, cv), bench.load_core)


@contextmanager
def running(bench: Bench, kinds: list[type[Server]], model: str) -> Iterator[list[Server]]:
    with bench.running(kinds, model) as servers:
        for server in servers:
            warm(bench, server)
        yield servers


def rounds(bench: Bench, servers: list[Server], count: int) -> dict[str, list[list[Seen]]]:
    """What each server makes of rising rates, by its name: for each rate one sight a round."""
    seen: dict[str, list[list[Seen]]] = {server.name: [[] for _ in RATES] for server in servers}
    for seed in range(1, count + 1):
        say(f"  round {seed} of {count}")
        lost = dict.fromkeys(seen, 0)
        for step, rate in enumerate(RATES):
            for server in servers:
                if lost[server.name] < 2:
                    one = measure(bench, server, Arrivals(rate, bench.seconds, seed, BURSTS_CV))
                    seen[server.name][step].append(one)
                    lost[server.name] = lost[server.name] + 1 if one.attainment < LOST else 0
    return seen


def near(bench: Bench, servers: list[Server], seen: dict[str, list[list[Seen]]], count: int) -> None:
    """Adds ``count`` more sights at the rates around those that each server holds."""
    edges = {}
    for server in servers:
        middle = RATES.index(held(curve(seen[server.name])) or RATES[0])
        tried = sum(1 for one in seen[server.name] if one)
        edges[server.name] = range(max(middle - STEPS_NEAR, 0), min(middle + STEPS_NEAR + 1, tried))
    for seed in range(ROUNDS + 1, ROUNDS + count + 1):
        say(f"  near what each holds: {seed - ROUNDS} of {count}")
        for place in range(2 * STEPS_NEAR + 1):
            for server in servers:
                if place < len(edges[server.name]):
                    step = edges[server.name][place]
                    arrivals = Arrivals(RATES[step], bench.seconds, seed, BURSTS_CV)
                    seen[server.name][step].append(measure(bench, server, arrivals))


def twice(bench: Bench, servers: list[Server], curves: dict[str, list[dict[str, Any]]], count: int) -> dict[str, Any]:
    """What each answers in time at twice the rate that it holds, beside the most that it answers, pair by pair."""
    found: dict[str, Any] = {}
    for pair in range(count):
        say(f"  at twice what each holds: {pair + 1} of {count}")
        for server in servers:
            peak = max(curves[server.name], key=lambda point: point["goodput"])["rate"]
            double = 2 * (held(curves[server.name]) or RATES[0])
            one = found.setdefault(server.name, {"peak_rate": peak, "rate": double, "peak": [], "goodput": []})
            loads = [(peak, one["peak"]), (double, one["goodput"])]
            for rate, kept in loads if pair % 2 == 0 else reversed(loads):
                sight = measure(bench, server, Arrivals(rate, bench.seconds, 101 + pair, BURSTS_CV))
                kept.append(sight.met / sight.seconds)
    return found


def curve(by_rate: list[list[Seen]]) -> list[dict[str, Any]]:
    """The sights of one server, summed up rate by rate."""
    return [summary(one) for one in by_rate if one]


def summary(seen: list[Seen]) -> dict[str, Any]:
    """Several sights of one server at one rate: the median of each."""
    median = statistics.median
    return {
        "rate": seen[0].rate,
        "attainment": median(one.attainment for one in seen),
        "rounds": [one.attainment for one in seen],
        "goodput": median(one.met / one.seconds for one in seen),
        "refused": median(one.refused / one.sent for one in seen),
        "p50_s": median(one.p50_s for one in seen),
        "p99_s": median(one.p99_s for one in seen),
        "late_s": median(one.late_s for one in seen),
    }


def held(points: list[dict[str, Any]]) -> float:
    """The highest rate of which 99 % are met in the median of the rounds; 0 if there is none."""
    return max((point["rate"] for point in points if point["attainment"] >= ATTAINMENT), default=0.0)


def variants(*, in_json: bool, quick: bool) -> dict[str, list[type[Server]]]:
    """The settings that are tried of each peer."""
    rows, waits = ((64,), (1,)) if quick else ((64, 128, 256), (1, 3, 5))
    delays, queues = ((0,), (0,)) if quick else ((0, 2000), (0, 128))
    mosec_base, triton_base = (MosecJson, Triton) if in_json else (MosecRaw, TritonBinary)
    mosec = [
        type(
            "Mosec",
            (mosec_base,),
            {"name": f"mosec {most} rows {wait} ms", "rows_max": most, "wait_ms": wait},
        )
        for most, wait in product(rows, waits)
    ]
    triton = [
        type(
            "Triton",
            (triton_base,),
            {
                "name": f"triton {most} rows {delay} us queue {queue or 'any'}",
                "rows_max": most,
                "delay_us": delay,
                "queue_max": queue,
            },
        )
        for most, delay, queue in product(rows[-2:], delays, queues)
    ]
    return {"mosec": mosec, "triton": triton}


def tune(bench: Bench, peer: str, kinds: list[type[Server]], model: str) -> list[type[Server]]:
    """Those settings of ``peer`` that meet the largest shares of some loads, best first."""
    met = dict.fromkeys(kinds, 0.0)
    for kind in kinds:
        with bench.running([kind], model) as [server]:
            warm(bench, server, WARM[1:2])
            for rate, seed in TUNING[peer]:
                met[kind] += measure(bench, server, Arrivals(rate, bench.seconds, seed, BURSTS_CV)).attainment
    return sorted(kinds, key=lambda kind: -met[kind])[: FINALISTS[peer]]


def foretell(server: Inferd, arrivals: Arrivals) -> dict[str, Any]:
    """What the simulator says of these very arrivals, from what the running server says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        profile, trace, report = (Path(folder) / name for name in ("profile.json", "arrivals.csv", "report.json"))
        profile.write_text(json.dumps(server.explain()))
        trace.write_text("time_s\n" + "".join(f"{offset}\n" for offset in arrivals.offsets()))
        command = [str(server.environment.inferd_python), "-m", "inferd", "simulate", str(server.model), *server.flags]
        command += ["--trace", str(trace), "--seed", str(arrivals.seed), "--profile", str(profile)]
        subprocess.run([*command, "--json", str(report)], check=True, capture_output=True)
        told: dict[str, Any] = json.loads(report.read_text())
        return {**told["targets"][0], "rows_mean": told["models"][0]["rows_mean"]}


def bound(server: Inferd, seconds: float, rate: float) -> dict[str, Any]:
    """What nobody could better with batches that take what the running server measured, by the most rows of one."""
    why = server.explain()["models"][0]["explain"]
    # As fast as the machine was on the whole, not as it is at this moment.
    usual = statistics.mean(why["recent_ratios"])
    times: list[tuple[int, float]] = []
    for point in why["curve"]:
        times.append((point["rows"], max(point["mean_s"] * usual, times[-1][1] if times else 0.0)))
    question = {
        "curve": times,
        "offsets": [list(Arrivals(rate, seconds, seed, BURSTS_CV).offsets()) for seed in (1, 2)],
        "objective_s": OBJECTIVE_S,
        "attainment": ATTAINMENT,
        "batch_rows_max": BOUND_ROWS,
        "waits_s": [0.0, 0.001, 0.005],
    }
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / "examples" / "bound"
    ran = subprocess.run([str(program)], input=json.dumps(question), check=True, stdout=subprocess.PIPE, text=True)
    rates: dict[str, Any] = json.loads(ran.stdout)
    return {"curve": times, "rates": rates}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few settings, short loads: to see that it runs")
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts")
    parser.add_argument("--models", type=Path, default=run.RESULTS / "models")
    parser.add_argument("--results", type=Path, default=run.RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--inferd-python", type=Path, default=ROOT / ".venv" / "bin" / "python")
    options = parser.parse_args()
    env = environment.prepare(options.inferd_python)
    run.make_models(env, options.models)
    pin_harness(1)
    options.results.mkdir(parents=True, exist_ok=True)
    for case in options.only:
        with tempfile.TemporaryDirectory(prefix="inferd-promise-") as folder:
            bench = Bench(env, options.models, Path(folder), 0, 1, 1, options.seconds, options.quick)
            found = measure_case(bench, case, quick=options.quick)
        (options.results / f"promise-{case}.json").write_text(json.dumps(found, indent=1))
    seen = {case: options.results / f"promise-{case}.json" for case in CASES}
    found = {case: json.loads(file.read_text()) for case, file in seen.items() if file.exists()}
    print(promise_page.write(found, options.docs))
    return 0


def measure_case(bench: Bench, case: str, *, quick: bool) -> dict[str, Any]:
    """Everything about one case, as JSON."""
    model, in_json = CASES[case]
    kinds: list[type[Server]] = [InferdPromiseJson if in_json else InferdPromise]
    peers = variants(in_json=in_json, quick=quick)
    for peer, settings in peers.items():
        kinds += tune(bench, peer, settings, model)
    with running(bench, kinds, model) as servers:
        seen = rounds(bench, servers, 1 if quick else ROUNDS)
        near(bench, servers, seen, 1 if quick else ROUNDS_NEAR)
        curves = {name: curve(by_rate) for name, by_rate in seen.items()}
        best = held(curves[servers[0].name]) or RATES[0]
        doubled = twice(bench, servers, curves, 2 if quick else PAIRS)
        limits = bound(servers[0], bench.seconds, best)
    with running(bench, kinds[:1], model) as [server]:
        compared = compare(bench, server, best, quick=quick)
    return {
        "case": case,
        "machine": environment.machine(),
        "objective_s": OBJECTIVE_S,
        "seconds": bench.seconds,
        "rounds": [1, 1] if quick else [ROUNDS, ROUNDS_NEAR],
        "tuned": {name: [len(settings), FINALISTS[name]] for name, settings in peers.items()},
        "curves": curves,
        "held": {name: held(points) for name, points in curves.items()},
        "twice": doubled,
        "bound": limits,
        "compared": compared,
    }


def compare(bench: Bench, server: Inferd, bursty_rate: float, *, quick: bool) -> list[dict[str, Any]]:
    """Simulator beside reality at three loads, the median of several runs each."""
    rows = []
    capacity = wrk(server.address, server.request(), 64, bench.seconds, bench.load_core, may_refuse=True).rate
    for label, cv, rate in (
        ("Poisson, 40 % of capacity", 1.0, 0.4 * capacity),
        ("Poisson, 75 % of capacity", 1.0, 0.75 * capacity),
        ("Bursts, at the highest rate held", BURSTS_CV, bursty_rate),
    ):
        real, told = [], []
        for seed in range(1, 2 if quick else ROUNDS + 1):
            arrivals = Arrivals(rate, FORETOLD_S, seed, cv)
            real.append(measure(bench, server, arrivals))
            told.append(foretell(server, arrivals))
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
                "p99_ratios": [one["latency"]["p99_s"] / ran.p99_s for ran, one in zip(real, told, strict=True)],
                "why": server.explain()["models"][0]["explain"],
            }
        )
        say(f"  { ({key: value for key, value in rows[-1].items() if key != 'why'}) }")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
