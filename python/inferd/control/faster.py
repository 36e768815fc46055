"""Models that are served from ONNX because that gives the same answers faster.

Reads a planned model, hands on the launch that serves it best and a sentence that says why. What was found is kept
under the user's cache, by everything that decides it: a model is converted once on a machine.
Knows nothing of how models are converted and compared: :mod:`inferd.runtimes.faster` does, in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.runtimes import onnx
from inferd.runtimes.faster import CONVERTIBLE, Verdict
from inferd.runtimes.trust import digest

if TYPE_CHECKING:
    from inferd.control.resolve import PlannedModel

__all__ = ["launch_faster"]


def launch_faster(model: PlannedModel, cache: Path) -> dict[str, Any]:
    """``ModelSettings`` of the data plane, with the faster launch where there is one.

    Args:
        model: as it was planned.
        cache: inferd's own folder in the user's cache.
    """
    load = model.settings["load"]
    kind = load.get("runtime")
    if kind not in CONVERTIBLE or model.spec.python is not None:
        return model.settings
    if not model.spec.faster:
        verdict = Verdict("library", "faster is off in its settings")
        return _with_fact(model.settings, verdict)
    folder = cache / "faster" / _key(model, kind)
    verdict = _kept(folder) or _tried(model, folder)
    if verdict.chosen == "library":
        return _with_fact(model.settings, verdict)
    launch = onnx.compose(folder / "model.onnx", model.spec, model.threads)
    faster = {**model.settings, "launch": {launch.how: {"command": launch.command}}, "load": launch.load}
    return _with_fact(faster, verdict)


def _with_fact(settings: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    text = verdict.why if verdict.chosen == "onnx" else f"no: {verdict.why}"
    return {**settings, "load": {**settings["load"], "facts": {"faster": text}}}


def _key(model: PlannedModel, kind: str) -> str:
    packages = {name: _version(name) for name in (*CONVERTIBLE[kind], "onnx", "onnxruntime", "inferd")}
    load = {name: value for name, value in model.settings["load"].items() if name != "file"}
    decisive = [digest(model.file), packages, load, model.spec.faster_tolerance]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _kept(folder: Path) -> Verdict | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        verdict = Verdict(**json.loads((folder / "verdict.json").read_text(encoding="utf-8")))
        if verdict.chosen == "library" or (folder / "model.onnx").is_file():
            return verdict
    return None


def _tried(model: PlannedModel, folder: Path) -> Verdict:
    """Convert and compare in a process of its own; keep what came of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        request = {
            "load": model.settings["load"],
            "folder": scratch,
            "tolerance": model.spec.faster_tolerance,
        }
        try:
            ended = subprocess.run(
                [sys.executable, "-I", "-m", "inferd.runtimes.faster"],
                input=json.dumps(request),
                env=model.settings["env"],
                capture_output=True,
                text=True,
                timeout=model.spec.load_max_s,
                check=True,
            )
            verdict = Verdict(**json.loads(ended.stdout))
        except subprocess.TimeoutExpired:
            return Verdict("library", "its conversion to ONNX took longer than load_max")
        except (subprocess.CalledProcessError, ValueError, TypeError):
            return Verdict("library", "its conversion to ONNX ended without an answer")
        (Path(scratch) / "verdict.json").write_text(json.dumps(verdict._asdict()), encoding="utf-8")
        # Renamed into place: another server may read it now. If one was faster, its result stands.
        with contextlib.suppress(OSError):
            shutil.copytree(scratch, f"{scratch}.done")
            Path(f"{scratch}.done").rename(folder)
        shutil.rmtree(f"{scratch}.done", ignore_errors=True)
    return verdict
