"""What every scenario shares: where things are, how long to load, and interleaved repeats on quiet cores.

Reads arms (servers or loops with something to measure), hands on their samples. Knows no particular server.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bodies import Reference
from load import Load, LoadFailed, h2load, wrk
from processes import core_busy_seconds
from servers import HERE, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from environment import Environment

# More than this share of a core used by others, and a repeat is thrown away.
FOREIGN_MAX = 0.1
TRIES = 4
REFERENCE_ROWS = 4


@dataclass
class Samples:
    """What the repeats of one arm gave, by metric."""

    arm: str
    values: dict[str, list[float]] = field(default_factory=dict)
    noisy: int = 0
    """Repeats that other programs disturbed in every try, kept for want of better ones."""

    def add(self, sample: dict[str, float]) -> None:
        for metric, value in sample.items():
            self.values.setdefault(metric, []).append(value)

    def join(self, other: Samples) -> None:
        """Takes in the repeats of ``other``."""
        for metric, values in other.values.items():
            self.values.setdefault(metric, []).extend(values)
        self.noisy += other.noisy

    def median(self, metric: str) -> float:
        return statistics.median(self.values[metric])

    def paired(self, metric: str, other: Samples) -> float:
        """The median of the ratios to ``other``, repeat by repeat: what drifts between repeats is in neither."""
        pairs = zip(self.values[metric], other.values[metric], strict=True)
        return statistics.median(own / theirs for own, theirs in pairs)


@dataclass(frozen=True)
class Target:
    """A promise, and whether it was kept."""

    text: str
    measured: float
    limit: float
    at_least: bool
    unit: str = "×"

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass
class Result:
    """One scenario's outcome."""

    name: str
    title: str
    samples: list[Samples]
    targets: list[Target]
    notes: list[str] = field(default_factory=list)

    def of(self, arm: str) -> Samples:
        return next(samples for samples in self.samples if samples.arm == arm)


@dataclass
class Bench:
    """One run of the benchmarks."""

    environment: Environment
    models: Path
    folder: Path
    server_core: int
    load_core: int
    repeats: int
    seconds: float
    quick: bool
    references: dict[str, Reference] = field(default_factory=dict)

    def reference(self, model: str) -> Reference:
        """Rows and right answers for ``model``."""
        if model not in self.references:
            command = [str(self.environment.python), str(HERE / "programs" / "reference.py")]
            command += [str(self.models / f"{model}.onnx"), str(REFERENCE_ROWS)]
            ran = subprocess.run(command, check=False, capture_output=True, text=True)
            if ran.returncode != 0:
                raise RuntimeError(f"no reference for {model}:\n{ran.stderr[-2000:]}")
            self.references[model] = Reference.read(ran.stdout)
        return self.references[model]

    def server(self, kind: type[Server], model: str) -> Server:
        """A server of ``kind``, not started yet."""
        path = self.models / f"{model}.onnx"
        return kind(self.environment, path, self.reference(model), self.folder, self.server_core)

    @contextmanager
    def running(self, kinds: list[type[Server]], model: str) -> Iterator[list[Server]]:
        """Servers of every kind, started one after the other, ended whatever happens."""
        with ExitStack() as stack:
            servers = []
            for kind in kinds:
                server = self.server(kind, model)
                stack.callback(server.stop)
                server.start()
                servers.append(server)
            yield servers

    def interleave(self, arms: dict[str, Callable[[], dict[str, float]]], repeats: int | None = None) -> list[Samples]:
        """Measures every arm in turn, ``repeats`` times over. Drift of the machine then hits all arms alike."""
        samples = {arm: Samples(arm) for arm in arms}
        repeats = self.repeats if repeats is None else repeats
        for repeat in range(repeats):
            for arm, measure in arms.items():
                self.say(f"{arm} {repeat + 1}/{repeats}")
                sample, quiet = self.measure_quietly(measure)
                samples[arm].add(sample)
                samples[arm].noisy += not quiet
        return list(samples.values())

    def measure_quietly(self, measure: Callable[[], dict[str, float]]) -> tuple[dict[str, float], bool]:
        """Measures again while other programs take more than a tenth of a core, or make a server refuse."""
        best: tuple[float, dict[str, float]] | None = None
        failure: LoadFailed | None = None
        for _ in range(TRIES):
            busy, own = self.busy(), own_children_seconds()
            try:
                sample = measure()
            except LoadFailed as failed:
                failure = failed
                continue
            ours = own_children_seconds() - own + sample.get("server_cpu_s", 0.0)
            foreign = (self.busy() - busy - ours) / sample["seconds"]
            if best is None or foreign < best[0]:
                best = (foreign, sample)
            if foreign <= FOREIGN_MAX:
                return sample, True
        if best is None:
            raise failure or LoadFailed("nothing was measured")
        return best[1], False

    def busy(self) -> float:
        return core_busy_seconds(self.server_core) + core_busy_seconds(self.load_core)

    def http(self, server: Server, connections: int) -> Callable[[], dict[str, float]]:
        """Measures ``server`` under closed loops over HTTP/1.1."""

        def measure() -> dict[str, float]:
            before = server.cpu_seconds()
            seen = wrk(server.address, server.request(), connections, self.seconds, self.load_core)
            return sample_of(seen, server.cpu_seconds() - before)

        wrk(server.address, server.request(), connections, 1, self.load_core)
        return measure

    def grpc(self, server: Server, connections: int, streams: int) -> Callable[[], dict[str, float]]:
        """Measures ``server`` under unary gRPC calls. The count of calls is set by a first short run."""
        assert server.grpc_address is not None, f"{server.name} speaks no gRPC"
        address, body = server.grpc_address, server.grpc_body()
        trial = h2load(address, body, 4000, connections, streams, self.load_core)
        trial = h2load(address, body, max(4000, int(trial.rate)), connections, streams, self.load_core)
        requests = max(4000, int(trial.rate * self.seconds))

        def measure() -> dict[str, float]:
            before = server.cpu_seconds()
            seen = h2load(address, body, requests, connections, streams, self.load_core)
            return sample_of(seen, server.cpu_seconds() - before)

        return measure

    def raw(self, model: str, batch: int) -> Callable[[], dict[str, float]]:
        """Measures ONNX Runtime alone on the server core."""
        command = ["taskset", "-c", str(self.server_core), str(self.environment.python)]
        command += [str(HERE / "programs" / "raw_loop.py"), str(self.models / f"{model}.onnx"), str(batch)]

        def measure() -> dict[str, float]:
            ran = subprocess.run([*command, str(self.seconds)], check=False, capture_output=True, text=True)
            if ran.returncode != 0:
                raise LoadFailed(f"the raw loop ended with {ran.returncode}: {ran.stderr[-500:]}")
            return read_raw(ran.stdout, self.seconds)

        return measure

    def say(self, text: str) -> None:
        """Progress, on the terminal only."""
        print(f"  {text}", file=sys.stderr, flush=True)


def read_raw(text: str, seconds: float) -> dict[str, float]:
    seen = json.loads(text)
    return {
        "rate": seen["rows_per_s"],
        "cpu_us": seen["cpu_per_row_s"] * 1e6,
        "p50_ms": seen["p50_s"] * 1e3,
        "seconds": seconds,
    }


def sample_of(seen: Load, server_cpu_s: float) -> dict[str, float]:
    """The figures of one repeat."""
    sample = {
        "rate": seen.rate,
        "cpu_us": server_cpu_s / seen.requests * 1e6,
        "seconds": seen.seconds,
        "server_cpu_s": server_cpu_s,
    }
    if seen.p50_s is not None and seen.p99_s is not None:
        sample |= {"p50_ms": seen.p50_s * 1e3, "p99_ms": seen.p99_s * 1e3}
    return sample


def own_children_seconds() -> float:
    """CPU time of load generators that have ended, and of the harness itself."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def pin_harness(core: int) -> None:
    """The harness must not run where the server does."""
    os.sched_setaffinity(0, {core})
