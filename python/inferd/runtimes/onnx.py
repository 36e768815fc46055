"""ONNX models: how to start their native worker.

Reads the model's settings, hands on a command and load settings. The worker is the Rust crate ``onnx``. Imports neither
``onnxruntime`` nor ``onnx``: it only locates the library. Knows nothing of graphs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.errors import NotFound
from inferd.runtimes.base import Launch, Takes

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "claims", "compose", "library"]

PLATFORM = "onnx_onnxruntime"
TAKES = Takes(
    title="ONNX",
    types="The file's own, every type of the protocol.",
    categories="Up to the graph: texts and integers.",
    missing="NaN reaches the graph as it is. A text can't be missing.",
    names="Those of the graph.",
    outputs="Every tensor; a map of a fixed set of classes (`ZipMap`) is a tensor whose classes are its"
    " labels. Omitted ones are named in `left_out`.",
)

# Loads the extension module directly: `site` and the package's own imports would take longer than the model.
# The gateway starts this process with SIGHUP, SIGINT and SIGTERM blocked: a terminal and systemd send them to every
# process (see :mod:`inferd.worker.signals`). A worker exits when its channel closes.
# For kept files the server appends their records: if they are unchanged, the worker enters their folder; else it runs
# :mod:`inferd.runtimes.kept`, which is only read then.
_WORKER = """\
import sys, _signal
from importlib.machinery import ExtensionFileLoader, ModuleSpec
ending = _signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM
for number in ending:
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, lambda *_: None)
        _signal.siginterrupt(number, False)
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, ending)
loader = ExtensionFileLoader("_native", sys.argv[1])
native = loader.create_module(ModuleSpec("_native", loader, origin=sys.argv[1]))
loader.exec_module(native)
if len(sys.argv) > 3:
    import marshal, posix
    kept = marshal.loads(bytes.fromhex(sys.argv[2]))
    try:
        found = [posix.stat(file["path"]) for file in kept["files"]]
        same = [[s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns] for s in found] == [f["identity"] for f in kept["files"]]
    except OSError:
        same = False
    if same:
        posix.chdir(kept["folder"])
    else:
        code = {"__name__": "kept"}
        with open(kept["code"], "rb") as source:
            exec(compile(source.read(), kept["code"], "exec"), code)
        try:
            code["entered"](kept)
        except code["Lost"] as lost:
            native.WorkerChannel(int(sys.argv[-1])).failed(str(lost), "")
            sys.exit(1)
sys.exit(native.run_onnx_worker(int(sys.argv[-1])))
"""


def claims(path: Path) -> bool:
    """Claims ``.onnx`` files."""
    return path.is_file() and path.suffix == ".onnx"


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the ONNX model ``file``."""
    runtime = library(cuda=spec.device != "cpu")
    return Launch(
        platform=PLATFORM,
        how="exec",
        command=[sys.executable, "-I", "-S", "-c", _WORKER, str(_native())],
        load={
            "path": str(file),
            "device": spec.device,
            "threads": threads,
            "library": str(runtime),
            "initializers": sorted({*(one.name for one in spec.inputs or ()), *spec.optional}),
            "batching": spec.batching,
            "batch_rows_max": spec.batch_rows_max,
            "tolerance": {
                "absolute": spec.batch_tolerance_absolute,
                "relative": spec.batch_tolerance_relative,
            },
        },
    )


def library(*, cuda: bool) -> Path:
    """Return the shared library in this environment's ``onnxruntime`` package.

    Args:
        cuda: whether it must support CUDA.

    Raises:
        NotFound: it is not installed, or has no CUDA support.
    """
    found = find_spec("onnxruntime")
    folders = list(found.submodule_search_locations or []) if found else []
    libraries = [file for folder in folders for file in Path(folder, "capi").glob("libonnxruntime.so*")]
    if not libraries:
        raise NotFound("ONNX Runtime is not installed\nhelp: pip install onnxruntime")
    if cuda and not libraries[0].with_name("libonnxruntime_providers_cuda.so").exists():
        raise NotFound(
            "the installed ONNX Runtime has no CUDA support\n"
            "help: pip uninstall onnxruntime, pip install onnxruntime-gpu, or set device: cpu"
        )
    return min(libraries)


def _native() -> Path:
    found = find_spec("inferd._native")
    if found is None or found.origin is None:
        raise NotFound("the native module of inferd is missing\nhelp: reinstall inferd, or run make in its sources")
    return Path(found.origin)
