"""Models that are served from ONNX because that gives the same answers faster.

Reads a resolved model, hands on the launch that serves it best and a sentence that says why. What was found is kept
under the user's cache, by everything that decides it: a model is converted once on a machine. Nothing depends on the
cache: where it can't be read or written, a model is converted at each start, for this server alone.
Knows nothing of how models are converted and compared: :mod:`inferd.runtimes.faster` does, in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import inferd.runtimes
from inferd.errors import InferdError
from inferd.runtimes import onnx
from inferd.runtimes.base import PYTHON_FLAGS
from inferd.runtimes.faster import CONVERTIBLE, Verdict
from inferd.runtimes.trust import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    from inferd.control.desired import ResolvedModel

__all__ = ["Conversions", "served_by_library"]

_PACKAGES = ("onnx", "onnxruntime", "numpy", "inferd")
"""Packages that decide besides those of a runtime."""


class Conversions:
    """The conversions of one server.

    Args:
        cache: inferd's own folder in the user's cache.
        convert: what came of a model, whose ``model.onnx`` it puts into a folder, and whether the same would come of it
            again.
    """

    def __init__(
        self, cache: Path, convert: Callable[[ResolvedModel, Path], tuple[Verdict, bool]] | None = None
    ) -> None:
        self._kept = cache / "faster"
        self._convert = convert or _converted
        self._own: list[TemporaryDirectory[str]] = []
        self._adding = threading.Lock()

    def launch(self, model: ResolvedModel) -> dict[str, Any]:
        """``ModelSettings`` of the data plane, with the faster launch where there is one.

        A failure is recorded in them as a fact, and the library serves.
        """
        load, spec = model.settings["load"], model.spec
        if load.get("runtime") not in CONVERTIBLE or spec.python is not None:
            return model.settings
        if not spec.faster:
            return served_by_library(model.settings, "faster is off in its settings")
        if spec.device != "cpu":
            return served_by_library(model.settings, f"it is compared on the CPU, and device is {spec.device}")
        try:
            found = self._found(model)
            if found.verdict.chosen == "library":
                return served_by_library(model.settings, found.verdict.why)
            launch = onnx.compose(found.folder / "model.onnx", spec, found.verdict.threads)
        except Exception as fault:  # noqa: BLE001 (a model is never lost for what would have made it faster)
            message = str(fault) if isinstance(fault, InferdError) else f"{type(fault).__name__}: {fault}"
            return served_by_library(model.settings, f"its conversion to ONNX failed ({' '.join(message.split())})")
        extra: dict[str, Any] = {"schemas": list(found.verdict.schemas), "facts": {"faster": found.verdict.why}}
        # Rows alone were compared with rows in company. The worker's own probe knows no rows that tell them apart.
        extra["compared"] = True
        if found.verdict.ignored_columns:
            extra["ignored_columns"] = list(found.verdict.ignored_columns)
        load = launch.load | extra
        return {**model.settings, "launch": {launch.how: {"command": launch.command}}, "load": load}

    def close(self) -> None:
        """Remove what was converted for this server alone. No worker may be started afterwards."""
        with self._adding:
            while self._own:
                with contextlib.suppress(OSError):
                    self._own.pop().cleanup()

    def _found(self, model: ResolvedModel) -> _Found:
        folder = self._kept / _key(model)
        verdict = _read(folder)
        if verdict is not None:
            return _Found(verdict, folder)
        import tempfile

        # Python removes it when this server ends, however that comes about.
        own = tempfile.TemporaryDirectory(prefix="inferd-", ignore_cleanup_errors=True)
        place = Path(own.name)
        try:
            verdict, final = self._convert(model, place)
            if final and _keep(place, folder, verdict):
                place = folder
            return _Found(verdict, place)
        finally:
            if place == Path(own.name) and (place / "model.onnx").is_file():
                with self._adding:
                    self._own.append(own)
            else:
                own.cleanup()


class _Found(NamedTuple):
    verdict: Verdict
    folder: Path


def served_by_library(settings: dict[str, Any], why: str) -> dict[str, Any]:
    """The settings of a model with the fact that its library serves it."""
    return {**settings, "load": {**settings["load"], "facts": {"faster": f"no: {why}"}}}


# -- the conversion -------------------------------------------------------------------------------------------------


def _converted(model: ResolvedModel, folder: Path) -> tuple[Verdict, bool]:
    """Convert and compare in a process of its own."""
    request = {"load": model.settings["load"], "folder": str(folder), "tolerance": model.spec.faster_tolerance}
    try:
        ended = subprocess.run(
            [sys.executable, *PYTHON_FLAGS, "-m", "inferd.runtimes.faster"],
            input=json.dumps(request),
            env=model.settings["env"],
            capture_output=True,
            text=True,
            timeout=model.spec.load_max_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        # Another time it may be quicker. Each start would wait as long to find out.
        return Verdict(
            "library", f"its conversion to ONNX took longer than load_max ({model.spec.load_max_s:g} s)"
        ), True
    if not ended.returncode:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(ended.stdout, type=Verdict), True
    output = ended.stderr.strip().rpartition("\n")[2][:200]
    return Verdict("library", f"its conversion to ONNX ended with status {ended.returncode} ({output})"), False


# -- what is kept ---------------------------------------------------------------------------------------------------


def _key(model: ResolvedModel) -> str:
    """Names everything that decides about a model."""
    load = {name: value for name, value in model.settings["load"].items() if name != "file"}
    packages = {name: _version(name) for name in (*CONVERTIBLE[load["runtime"]], *_PACKAGES)}
    machine = [platform.machine(), platform.python_version(), _processor()]
    spec = model.spec
    decisive = [
        digest(model.file),
        load,
        packages,
        machine,
        _sources(),
        spec.faster_tolerance,
        spec.load_max_s,
        sorted(spec.env.items()),
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


@cache
def _sources() -> str:
    """A digest of the code that loads, converts and compares."""
    folder = Path(next(iter(inferd.runtimes.__path__)))
    files = [*sorted(folder.rglob("*.py")), folder.parent / "types.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _processor() -> str | None:
    """The processor, which decides what is faster, and in which order sums are added."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if line.startswith("model name")), None)
    return None


def _version(package: str) -> str | None:
    # Imported here: it takes a tenth of the time to start, and most servers convert nothing.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


class _Kept(msgspec.Struct, frozen=True):
    """What ``verdict.json`` holds."""

    verdict: Verdict
    model: str | None
    """SHA-256 of ``model.onnx``, where there is one."""


def _read(folder: Path) -> Verdict | None:
    """The verdict that is kept in ``folder``, if it is whole and so is its model."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, RecursionError):
        kept = msgspec.json.decode((folder / "verdict.json").read_bytes(), type=_Kept)
        if kept.verdict.chosen == "library" or kept.model == _digest(folder / "model.onnx"):
            return kept.verdict
    return None


def _keep(made: Path, folder: Path, verdict: Verdict) -> bool:
    """Move the content of ``made`` to where the next server finds it; whether it is there now."""
    import tempfile

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            copied = Path(scratch) / "whole"
            shutil.copytree(made, copied)
            model = _digest(copied / "model.onnx") if verdict.chosen == "onnx" else None
            (copied / "verdict.json").write_bytes(msgspec.json.encode(_Kept(verdict, model)))
            # Renamed into place: another server may read it now. If one was faster, its result stands.
            if folder.exists() and _read(folder) is None:
                shutil.rmtree(folder)
            with contextlib.suppress(OSError):
                copied.rename(folder)
    except (OSError, shutil.Error):
        return False
    return _read(folder) == verdict


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
