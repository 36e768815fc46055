"""What this process may use of the machine, and how replicas share it.

Reads affinity, cgroup quotas and the environment (nothing else in inferd does), hands on plain values.
Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import math
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "READ_AT_START",
    "Machine",
    "cpu_quota",
    "observe",
    "share_threads",
    "thread_variables",
    "worker_environment",
]

# What a worker always gets: where programs, libraries and scratch space are, how text is read, which GPUs
# it may see. No credentials are ever in these.
_HANDED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    # Where interpreters find modules: a model finds what a script finds that the same user runs.
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "TMPDIR",
    "TZ",
)
# Read by the libraries when they are loaded; setting them later has no effect.
_THREADS = (
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
READ_AT_START = ("HOME", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUSERBASE")
"""What an interpreter reads when it starts and never again: where its modules are."""

# Weights in pages of 2 MB, where the system lets programs ask for them: ADR 0022.
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


class Machine(NamedTuple):
    """What this process may use."""

    cpus: tuple[int, ...]
    """Cores it may run on."""
    quota: float | None
    """Cores' worth of time that its cgroup allows; None: as many as there are."""
    environment: Mapping[str, str]
    cache: Path
    """Where what can be measured again is kept."""

    @property
    def cores(self) -> int:
        """Cores that can be kept busy: the affinity, within the quota."""
        return len(self.cpus) if self.quota is None else max(1, min(len(self.cpus), math.ceil(self.quota)))

    @property
    def scratch(self) -> tuple[Path, ...]:
        """Where files may be for as long as this process lives, in this order."""
        # Not by `tempfile`: it fails where none can be written, and that is no reason not to serve.
        return Path(self.environment.get("TMPDIR") or "/tmp"), Path("/dev/shm")  # noqa: S108

    @property
    def gateway_threads(self) -> int:
        """One for every four cores: the rest is for models."""
        return max(1, self.cores // 4)


def observe() -> Machine:
    """The machine as it is now."""
    environment = dict(os.environ)
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    quota = cpu_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return Machine(cpus, quota, environment, Path(_cache_home(environment), "inferd"))


def _cache_home(environment: Mapping[str, str]) -> str:
    """The user's cache. Where there is no home, a place where nothing can be: never one that others may write to."""
    if environment.get("XDG_CACHE_HOME"):
        return environment["XDG_CACHE_HOME"]
    home = environment.get("HOME")
    if not home:
        # As a shell finds it. A container may run as somebody whom its list of users does not have.
        with contextlib.suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    return f"{home or os.devnull}/.cache"


def cpu_quota(memberships: Path, mount: Path) -> float | None:
    """Cores' worth of CPU time that the cgroups of this process allow.

    Args:
        memberships: ``/proc/self/cgroup``.
        mount: where cgroup filesystems are mounted.

    Returns:
        The least of all that apply, outer groups included; None where there is none.
    """
    quotas = []
    for line in _lines(memberships):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            quotas += [_quota_v2(folder) for folder in _upwards(mount, group)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for name in (controllers, "cpu") for folder in _upwards(mount / name, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def share_threads(cores: int, replicas: int) -> int:
    """Threads of each of ``replicas`` that share ``cores``.

    What a model is planned with. The data plane works the same out again for the number of replicas that there are when
    one starts (``MachineShare`` in ``crates/types``).
    """
    return max(1, cores // replicas)


def thread_variables(named: Mapping[str, str | None]) -> list[str]:
    """Variables of a worker's environment that hold the number of its threads.

    Args:
        named: the setting ``env``, which overrides them.
    """
    return [name for name in _THREADS if name not in named]


def worker_environment(own: Mapping[str, str], named: Mapping[str, str | None], threads: int) -> dict[str, str]:
    """A worker's whole environment.

    Args:
        own: that of this process.
        named: the setting ``env``: values, or None to hand on what this process has.
        threads: for the libraries that size their pools by the environment.
    """
    environment = {name: own[name] for name in _HANDED_ON if name in own}
    environment.update(dict.fromkeys(_THREADS, str(threads)))
    environment["GLIBC_TUNABLES"] = _HUGE_PAGES
    for name, value in named.items():
        if value is not None:
            environment[name] = value
        elif name in own:
            environment[name] = own[name]
    return environment


def _upwards(mount: Path, group: str) -> list[Path]:
    folder = mount / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _quota_v2(folder: Path) -> float | None:
    for line in _lines(folder / "cpu.max"):
        quota, period = line.split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _lines(folder / "cpu.cfs_quota_us"), _lines(folder / "cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
