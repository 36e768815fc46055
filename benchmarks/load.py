"""Load on a server: wrk for HTTP, h2load for gRPC, each on the load core.

Reads a request and an address, hands on what the generator saw. Knows nothing of processes of servers.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from bodies import Request, write_lua


@dataclass(frozen=True)
class Load:
    """What one run of a load generator saw."""

    requests: int
    seconds: float
    errors: int
    p50_s: float | None = None
    p99_s: float | None = None

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    def good(self) -> Load:
        """The same load without the answers that were errors."""
        return replace(self, requests=self.requests - self.errors, errors=0)


class LoadFailed(RuntimeError):
    """The generator saw errors: its figures would compare refusals with answers."""


def wrk(
    address: str, request: Request, connections: int, seconds: float, core: int, *, may_refuse: bool = False
) -> Load:
    """`connections` closed loops for `seconds`. A server with an objective `may_refuse`, else refusals are errors."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "request.lua"
        write_lua(request, script)
        whole = max(1, round(seconds))
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s"]
        command += ["-s", str(script), f"http://{address}"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=whole + 60)
    found = re.search(r"RESULT (\{.*\})", ran.stdout)
    if ran.returncode != 0 or found is None:
        raise LoadFailed(f"wrk ended with {ran.returncode}: {ran.stdout[-500:]} {ran.stderr[-500:]}")
    load = Load(**json.loads(found[1]))
    return load.good() if may_refuse else checked(load, "wrk")


def h2load(address: str, body: bytes, requests: int, connections: int, streams: int, core: int) -> Load:
    """`requests` unary gRPC calls of `inference.GRPCInferenceService/ModelInfer`."""
    with tempfile.NamedTemporaryFile() as data:
        data.write(body)
        data.flush()
        command = ["taskset", "-c", str(core), "h2load", "-t1", f"-n{requests}", f"-c{connections}", f"-m{streams}"]
        command += ["-d", data.name, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        command += [f"http://{address}/inference.GRPCInferenceService/ModelInfer"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", ran.stdout)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", ran.stdout)
    if ran.returncode != 0 or finished is None or counts is None:
        raise LoadFailed(f"h2load ended with {ran.returncode}: {ran.stdout[-500:]} {ran.stderr[-500:]}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]
    good, *bad = (int(count) for count in counts.groups())
    return checked(Load(requests=good, seconds=float(finished[1]) * unit, errors=sum(bad)), "h2load")


def checked(load: Load, program: str) -> Load:
    """``load``; raises LoadFailed where errors were seen or nothing was answered."""
    if load.errors or load.requests == 0:
        raise LoadFailed(f"{program} saw {load.errors} errors among {load.requests} answers")
    return load
