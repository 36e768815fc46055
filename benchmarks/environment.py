"""Sees to the tools and the peers that the benchmarks need.

Reads what is installed, makes `.venv-bench` where it is missing, hands on paths. Knows no server.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-bench"
PEERS = [
    "bentoml",
    "litserve",
    "mosec",
    "nvidia-pytriton",
    "fastapi",
    "uvicorn[standard]",
    "onnxruntime",
    "onnx",
    "tokenizers",
    "tritonclient[all]",
    "numpy",
]
# Program → the Debian package that has it.
TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "taskset": "util-linux"}


class MissingTools(RuntimeError):
    """Programs are missing; the message names the line that installs them."""


@dataclass(frozen=True)
class Environment:
    """Where things are."""

    python: Path
    """The interpreter of the peers."""
    inferd_python: Path
    """The interpreter that has inferd."""
    nginx: str


def find_program(name: str) -> str | None:
    """Debian keeps nginx in a folder that a user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def check_tools() -> None:
    """Raises MissingTools unless every program is there."""
    missing = [package for program, package in TOOLS.items() if find_program(program) is None]
    if missing:
        raise MissingTools(f"programs are missing\nhelp: sudo apt-get install -y {' '.join(missing)}")


def prepare(inferd_python: Path) -> Environment:
    """Makes the peers' virtual environment unless it is complete already."""
    check_tools()
    python = VENV / "bin" / "python"
    stamp = VENV / "peers.txt"
    wanted = "\n".join(PEERS)
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing the peers into {VENV.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS], check=True)
        stamp.write_text(wanted)
    nginx = find_program("nginx")
    assert nginx is not None, "check_tools has seen it"
    return Environment(python=python, inferd_python=inferd_python, nginx=nginx)


def versions(environment: Environment) -> dict[str, str]:
    """What was compared, by name."""
    names = ["mosec", "nvidia-pytriton", "fastapi", "uvicorn", "onnxruntime", "tritonclient"]
    script = f"import importlib.metadata as m; print(*[m.version(n) for n in {names!r}])"
    found = subprocess.run([str(environment.python), "-c", script], check=True, capture_output=True, text=True).stdout
    nginx = subprocess.run([environment.nginx, "-v"], check=True, capture_output=True, text=True).stderr
    triton = "the server binary inside nvidia-pytriton, Python backend"
    table = dict(zip(names, found.split(), strict=True))
    return {**table, "triton": triton, "nginx": nginx.strip().rpartition("/")[2], "python": platform.python_version()}


def machine() -> dict[str, str]:
    """The machine in words."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory.split()[1]) / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
    }
