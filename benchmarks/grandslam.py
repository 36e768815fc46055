"""The workloads of GrandSLAm in the simulator, under every policy: ``python benchmarks/grandslam.py``.

Writes ``docs/grandslam.md`` and ``docs/grandslam.png``. Chains, objectives and counts are those of the authors'
simulator, times are lines through points of its stored output: development data, not the paper's figures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from inferd.control.dataplane import simulate

DOCS = Path(__file__).resolve().parents[1] / "docs"
ATTAINMENT = 0.99
BATCH_MAX = 128

# Milliseconds of a batch: fixed, and for each row. II and HH are assumed.
LINES = {
    "IMC": (37.0, 44.84),
    "AP": (13.2, 4.72),
    "NLU": (0.07, 0.097),
    "QA": (0.0, 14.2),
    "FACED": (11.3, 8.24),
    "FACER": (25.9, 1.36),
    "II": (2.0, 1.0),
    "HH": (5.0, 2.0),
}


class Chain(NamedTuple):
    services: str
    objective_ms: float
    count: int


class Workload(NamedTuple):
    chains: tuple[Chain, ...]
    # The batches over which a stage's share is averaged, as published.
    batches: range
    # Requests a second over the whole mix: one by one, and what large batches bound.
    alone: float
    bound: float


WORKLOADS = {
    "WL1": Workload(
        (
            Chain("IMC NLU QA", 2500, 43),
            Chain("FACED FACER", 1200, 40),
            Chain("AP NLU QA", 1900, 35),
            Chain("AP FACED FACER", 1300, 74),
        ),
        range(10, 32),
        54.6,
        99.6,
    ),
    "WL2": Workload(
        (Chain("IMC NLU QA", 2500, 20), Chain("AP NLU QA II", 2000, 30), Chain("QA II", 2000, 35)),
        range(10, 32),
        51.9,
        70.4,
    ),
    "WL3": Workload(
        (Chain("IMC NLU HH", 2700, 40), Chain("AP NLU HH II", 2000, 60), Chain("HH II", 2000, 30)),
        range(30, 45),
        39.7,
        72.5,
    ),
    "WL4": Workload((Chain("AP FACER", 600, 100),), range(10, 32), 36.7, 211.9),
}
POLICIES = (
    "equal_division",
    "static_weighted",
    "timetrader_fixed_1",
    "timetrader_fixed_10",
    "timetrader_fixed_30",
    "timetrader_fixed_50",
    "timetrader_dynamic",
    "grandslam",
    "slack",
)
OURS = "slack"

Process = Callable[[float], dict[str, Any]]
ARRIVALS: dict[str, Process] = {
    "Poisson": lambda rate: {"poisson": {"rate": rate}},
    "gamma, CV 4": lambda rate: {"gamma": {"rate": rate, "cv": 4.0}},
}


def time_s(service: str, rows: int) -> float:
    fixed, each = LINES[service]
    return (fixed + each * rows) / 1e3


def scenario(workload: Workload, policy: str, process: Callable[[Chain], dict[str, Any]]) -> dict[str, Any]:
    services = sorted({service for chain in workload.chains for service in chain.services.split()})

    def pipeline(chain: Chain) -> dict[str, Any]:
        stages = chain.services.split()
        usual = [sum(time_s(stage, rows) for rows in workload.batches) / len(workload.batches) for stage in stages]
        steps = [
            {"name": stage, "models": [[stage, 1.0]], "after": [position - 1] if position else []}
            for position, stage in enumerate(stages)
        ]
        objective = {"latency_s": chain.objective_ms / 1e3}
        return {"name": chain.services, "objective": objective, "steps": steps, "weights": usual}

    def model(service: str) -> dict[str, Any]:
        curve = [(rows, time_s(service, rows)) for rows in (1, BATCH_MAX)]
        return {"name": service, "curve": curve, "batch_rows_max": BATCH_MAX, "queue_rows_max": 10_000_000}

    return {
        "models": [model(service) for service in services],
        "pipelines": [pipeline(chain) for chain in workload.chains],
        "arrivals": [{"target": chain.services, "process": process(chain)} for chain in workload.chains],
        "policy": policy,
        "duration_s": 1.0,
    }


def at_once(workload: Workload, policy: str) -> tuple[int, int]:
    """Objectives met, of all, if every request is there at t = 0."""
    report = simulate(scenario(workload, policy, lambda chain: {"at_once": {"count": chain.count}}))
    return sum(target["met"] for target in report["targets"]), report["requests"]


class OpenLoop(NamedTuple):
    """Open-loop load on one workload under one policy."""

    workload: Workload
    policy: str
    process: Process
    requests: int
    seeds: int

    def attainment(self, share: float) -> float:
        """The part of all requests that is answered in time at ``share`` of the bound."""
        rate = share * self.workload.bound
        total = sum(chain.count for chain in self.workload.chains)
        load = scenario(self.workload, self.policy, lambda chain: self.process(rate * chain.count / total))
        met = came = 0
        for seed in range(self.seeds):
            report = simulate({**load, "duration_s": self.requests / rate, "seed": seed})
            met += sum(target["met"] for target in report["targets"])
            came += report["requests"]
        return met / came

    def sustained(self) -> float:
        """The highest share of the bound at which attainment holds, to half a hundredth."""
        low, high = 0.0, 1.2
        while high - low > 0.005:
            middle = (low + high) / 2
            if self.attainment(middle) >= ATTAINMENT:
                low = middle
            else:
                high = middle
        return low


def measure(requests: int, seeds: int) -> dict[str, Any]:
    """Every figure of the page."""
    loads = [round(0.1 + 0.05 * step, 2) for step in range(23)]
    keys = [(arrivals, name, policy) for arrivals in ARRIVALS for name in WORKLOADS for policy in POLICIES]
    runs = [OpenLoop(WORKLOADS[name], policy, ARRIVALS[arrivals], requests, seeds) for arrivals, name, policy in keys]
    # The simulator runs without the GIL.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sustained = dict(zip(keys, pool.map(OpenLoop.sustained, runs), strict=True))
        curves = dict(zip(keys, pool.map(lambda run: [run.attainment(load) for load in loads], runs), strict=True))
    once = {(name, policy): at_once(WORKLOADS[name], policy) for name in WORKLOADS for policy in POLICIES}
    return {"at_once": once, "sustained": sustained, "loads": loads, "curves": curves}


def draw(figures: dict[str, Any], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    axes = figure.subplots(len(ARRIVALS), len(WORKLOADS), sharex=True, sharey=True)
    for row, arrivals in zip(axes, ARRIVALS, strict=True):
        for cell, name in zip(row, WORKLOADS, strict=True):
            for number, policy in enumerate(POLICIES):
                style = {"color": "black", "linewidth": 2.5} if policy == OURS else {"color": f"C{number}"}
                label = f"{policy} (ours)" if policy == OURS else policy
                cell.plot(figures["loads"], figures["curves"][arrivals, name, policy], label=label, **style)
            cell.axhline(ATTAINMENT, color="grey", linestyle=":", linewidth=1)
            cell.set_title(f"{name}, {arrivals}", fontsize="medium")
            cell.grid(alpha=0.3)
    for cell in axes[-1]:
        cell.set_xlabel("load as a share of the bound")
    for row in axes:
        row[0].set_ylabel("share answered in time")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=110)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def best(values: dict[str, float], policy: str, text: str) -> str:
    return f"**{text}**" if values[policy] == max(values.values()) else text


def other_counts() -> str:
    """Objectives met at once, ours beside the best of the others, at counts that the policy was not made for."""
    rows = []
    for factor in (0.5, 0.8, 1.2, 1.5, 2.0):
        cells = []
        for workload in WORKLOADS.values():
            chains = tuple(chain._replace(count=round(chain.count * factor)) for chain in workload.chains)
            scaled = workload._replace(chains=chains)
            ours, of = at_once(scaled, OURS)
            others = max(at_once(scaled, policy)[0] for policy in POLICIES if policy != OURS)
            cells.append(f"{ours} / {others} of {of}")
        rows.append([f"× {factor:g}", *cells])
    return OTHER_COUNTS + table(["`slack` / best other", *WORKLOADS], rows) + "\n"


def page(figures: dict[str, Any], requests: int, seeds: int) -> str:
    once, sustained = figures["at_once"], figures["sustained"]
    rows = []
    for policy in POLICIES:
        cells = []
        for name in WORKLOADS:
            met = {other: float(once[name, other][0]) for other in POLICIES}
            cells.append(best(met, policy, f"{once[name, policy][0]} of {once[name, policy][1]}"))
        rows.append([f"`{policy}`", *cells])
    parts = [HEAD, table(["all at t = 0", *WORKLOADS], rows), ""]
    for arrivals in ARRIVALS:
        rows = []
        for policy in POLICIES:
            cells = []
            for name, workload in WORKLOADS.items():
                shares = {other: sustained[arrivals, name, other] for other in POLICIES}
                rate = shares[policy] * workload.bound
                cells.append(best(shares, policy, f"{rate:.1f} ({shares[policy]:.2f})"))
            rows.append([f"`{policy}`", *cells])
        bounds = [f"{workload.bound}" for workload in WORKLOADS.values()]
        parts += [table([arrivals, *WORKLOADS], [*rows, ["*bound*", *bounds]]), ""]
    gain = sustained["Poisson", "WL4", OURS] / sustained["Poisson", "WL4", "equal_division"]
    least = min(sustained["Poisson", name, OURS] for name in WORKLOADS)
    return (
        "\n".join(parts)
        + TAIL.format(least=f"{least:.2f}", gain=f"{gain:.1f}", requests=f"{requests:,}", seeds=seeds)
        + other_counts()
    )


HEAD = """# The GrandSLAm workloads under every policy

<!-- Written by benchmarks/grandslam.py; change that. -->

Shared microservices in chains with end-to-end [objectives](glossary.md#objective), as in *GrandSLAm: Guaranteeing SLAs
for Jobs in Microservices Execution Frameworks* (Kannan et al., EuroSys 2019), in
[inferd's simulator](how-to/plan-capacity.md). [`slack`](glossary.md#slack) is inferd's default policy; the others are
those of published systems. Chains, objectives and counts are those of the authors' simulator, execution times are lines
fitted to points of its stored output, II and HH are assumed, WL4 is added because batching matters in it. **These are
not the paper's figures.**

Objectives met when all requests arrive at the start:
"""

TAIL = """
![Attainment over load](grandslam.png)

The two open-loop tables show the highest rate, in requests a second over the whole mix and as a share of the bound, at
which 99 % of all requests are answered in time; arrivals are independent of responses, in proportion to the counts.
The *bound* is the capacity of the busiest service with unlimited batches; since 1 % may be refused or late, a load
slightly above it can be held. Under Poisson arrivals
`slack` sustains at least {least} of it in every workload; in WL4 that is {gain} times the rate of equal division
without batches. Best values are bold.

How the policies are implemented:

- The share of a stage is its mean time over batches of 10 to 31 (30 to 44 in WL3) divided by the sum over its chain, as
  published.
- All policies order queues by the step's deadline. The batch of `grandslam` and `timetrader_dynamic` is the largest
  that fits the time which the head got when it entered the stage: queueing behind earlier batches of the stage is not
  subtracted, as published. (If it is, both collapse to batches of one as soon as a head is late.)
- Published policies refuse and drop no request. `slack` refuses requests that are predicted to be late at admission,
  and runs last those that can no longer be in time; refused requests count as missed.
- Times are exact, one instance runs each service, batches hold at most 128. Each rate: {seeds} seeds of about
  {requests} requests.
"""

OTHER_COUNTS = """
## At other counts

The constants of `slack` were chosen while looking at these workloads. Objectives met when more or
fewer requests arrive at the start, next to the best of the other policies:

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40_000, help="of each open-loop run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=DOCS, help="where the page and the plot go")
    given = parser.parse_args()
    figures = measure(given.requests, given.seeds)
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "grandslam.md").write_text(page(figures, given.requests, given.seeds), encoding="utf-8")
    draw(figures, given.folder / "grandslam.png")
    print((given.folder / "grandslam.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
