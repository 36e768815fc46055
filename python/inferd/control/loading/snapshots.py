"""Holds the files of models as they were when they were loaded, so that every worker loads the same bytes.

Reads the files of a resolved model, hands on the launch that lets workers find them again: while nothing changed they
load from where the user has them, else from what is held here. Small files are copied into memory, large ones are held
open: neither needs room on a disk, and all of it goes with this process. ADR 0030 says why.
Knows nothing of how workers use it: :mod:`inferd.runtimes.kept` does.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import re
import resource
import secrets
import shutil
import stat
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.control.names import name_of
from inferd.runtimes import kept as worker_side
from inferd.runtimes.kept import identity_of, is_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inferd.control.desired import ResolvedModel

__all__ = ["Snapshots"]

COPIED_FILE_MAX = 1 << 20
"""Largest file that is copied, in bytes; larger ones are held open."""
COPIED_MAX = 16 << 20
"""Most bytes of copies for a model."""
FILES_MAX = 512
"""Most files of a model that are kept. Sources of Python come first; what is beyond is not looked after."""
OPEN_MAX = 64
"""Most files of a model that are held open."""
_VISITED_MAX = 4096
"""Most entries of folders that are looked at: a model may stand in somebody's home."""
_DEPTH_MAX = 8
_TRIES = 5
_ARGUMENT_MAX = 120 << 10
"""Longest argument of a command, less than the 128 KiB of Linux."""
_IN_MEMORY_MAX = 64 << 20
"""Most bytes that are laid out in /dev/shm where there is no room in TMPDIR: it is memory."""

_PREFIX = "inferd-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-(\d+)-(\d+)-[0-9a-f]{{24}}")
# Files that a model writes into its folder are not snapshotted: it goes on writing the originals.
_WRITTEN = re.compile(r".*(\.(log|out|err|pid|lock|tmp|swp|db|sqlite3?|pyc)|-(wal|shm|journal)|~)", re.IGNORECASE)
_NO_MODULES = ("__pycache__", "node_modules", "site-packages")
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
_LOOKED_INTO_MAX = 64 << 20


class Snapshots:
    """The files that are held for the models of one server.

    Args:
        places: folders in which workers may lay files out again, in this order. Nothing is there until one must.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._descriptors: dict[tuple[str, int], list[int]] = {}
        self._kept: dict[tuple[str, int], dict[str, Any]] = {}
        self._count = 0
        # Nobody can guess it, and make the folder first. Who made it is in it, for servers to come.
        made_by = (0, os.getpid(), 0)
        with contextlib.suppress(OSError):
            made_by = _process(os.getpid())
        name = f"{_PREFIX}{'-'.join(map(str, made_by))}-{secrets.token_hex(12)}"
        self._places = [place / name for place in places]
        for place in places:
            _sweep(place)
        self._adding = threading.Lock()
        # The rest is for connections, arenas and pipes.
        self._descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4

    def launch(self, model: ResolvedModel, settings: dict[str, Any]) -> dict[str, Any]:
        """``ModelSettings`` of the data plane whose workers load what is there now, whenever they start.

        Args:
            model: whose files are kept.
            settings: how it is launched; where it is served from ONNX that is the converted file.
        """
        load = settings["load"]
        native = "path" in load
        file = Path(load["path"] if native else load["file"])
        about = load.get("triton")
        folder = Path(about["folder"]) if about else _folder_of(file, load)
        with self._adding:
            held = self._descriptors.setdefault((model.name, model.version), [])
        kept = self._keep(file, folder, load, held)
        argument = "" if kept is None else marshal.dumps({**kept, "code": worker_side.__file__}).hex()
        if kept is None or (native and len(argument) > _ARGUMENT_MAX):
            return settings
        self._kept[model.name, model.version] = kept
        # Each worker enters the folder that it finds: this one may be gone by then.
        settings = {**settings, "directory": None}
        if not native:
            return {**settings, "load": {**load, "kept": kept}}
        launch = settings["launch"]["exec"]
        return {
            **settings,
            "launch": {"exec": {**launch, "command": [*launch["command"], argument]}},
            # In the folder that the worker enters. With its folder: weights are looked for there.
            "load": {**load, "path": f"./{file.name}"},
        }

    def is_unchanged(self, model: ResolvedModel) -> bool:
        """Whether the model's files are still those that were kept."""
        kept = self._kept.get((model.name, model.version))
        return kept is None or is_unchanged(kept)

    def release(self, name: str, version: int) -> None:
        """Let go of a model's files. No worker of it may be started afterwards."""
        with self._adding:
            self._kept.pop((name, version), None)
            for descriptor in self._descriptors.pop((name, version), ()):
                os.close(descriptor)

    def close(self) -> None:
        """Let go of everything. No worker may be started afterwards."""
        for name, version in list(self._descriptors):
            self.release(name, version)
        with self._adding:
            for place in self._places:
                shutil.rmtree(place, ignore_errors=True)

    def _open(self) -> int:
        with self._adding:
            return sum(map(len, self._descriptors.values()))

    def _keep(self, file: Path, folder: Path, load: dict[str, Any], held: list[int]) -> dict[str, Any] | None:
        for _ in range(_TRIES):
            descriptors: list[int] = []
            try:
                kept = self._read(file, folder, load, descriptors)
            except OSError:
                # Whatever can't be read is for its worker to refuse.
                kept = None
            if kept is not None and is_unchanged(kept):
                break
            for descriptor in descriptors:
                os.close(descriptor)
            if kept is None:
                return None
        else:
            # Files that change all the time: a worker reads what it finds.
            return None
        with self._adding:
            held += descriptors
            self._count += 1
            views = [str(place / str(self._count)) for place in self._places]
        files = kept["files"]
        # ONNX Runtime refuses links to weights beside a model that lead out of its folder.
        copies = len(files) > 1 and any(file["name"].endswith(".onnx") for file in files)
        if sum(file["identity"][2] for file in files if copies or file["offset"] is not None) > _IN_MEMORY_MAX:
            views = views[:1]
        return {**kept, "views": views, "copies": copies, "server": os.getpid()}

    def _read(self, file: Path, folder: Path, load: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        store = _Store(descriptors, min(OPEN_MAX, self._descriptors_max - self._open()))
        is_class = load.get("runtime") == "python"
        words = json.dumps(load.get("parameters")).encode()
        live: list[tuple[str, str]] = []
        left_out: list[str] = []
        for name, path in _files(file, folder, load):
            if _WRITTEN.fullmatch(path.name):
                live.append((name, str(path)))
            elif is_class and path.suffix != ".py" and _is_large(path) and path.name.encode() not in words:
                # Nothing says that the class reads it: data, or another's.
                live.append((name, str(path)))
            elif not store.add(name, path):
                if is_class:
                    live.append((name, str(path)))
                else:
                    left_out.append(name)
            elif path.suffix == ".py":
                words += path.read_bytes()
        inside = "" if file == folder else str(file.parent.relative_to(folder))
        return {
            "folder": str(folder),
            "name": name_of(folder),
            "inside": inside,
            "files": store.files(),
            "live": live,
            "left_out": left_out,
        }


def _process(pid: int) -> tuple[int, int, int]:
    """A process among all that there ever were: its namespace, its number, when it started (clock ticks since boot)."""
    stat_line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return Path("/proc/self/ns/pid").stat().st_ino, pid, int(stat_line.rpartition(")")[2].split()[19])


def _sweep(place: Path) -> None:
    """Remove what servers laid out that were killed: of this user, and of this namespace, in which they can be seen."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            made = _NAME.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if made is None or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                namespace, pid, started = map(int, made.groups())
                if namespace == Path("/proc/self/ns/pid").stat().st_ino and not _lives(pid, started):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _lives(pid: int, started: int) -> bool:
    try:
        return _process(pid)[2] == started
    except OSError:
        return False


class _Store:
    """Files of one model: copies in one memory file, and what is too large for that held open."""

    def __init__(self, descriptors: list[int], open_max: int) -> None:
        self._descriptors = descriptors
        self._open_max = open_max
        self._copies = bytearray()
        self._files: list[dict[str, Any]] = []

    def add(self, name: str, path: Path) -> bool:
        """Keep the file; whether it is kept."""
        if len(self._files) >= FILES_MAX:
            return False
        try:
            # A pipe that somebody put there would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        seen = os.fstat(descriptor)
        identity = identity_of(descriptor)
        small = seen.st_size <= COPIED_FILE_MAX and len(self._copies) + seen.st_size <= COPIED_MAX
        offset = None
        if not stat.S_ISREG(seen.st_mode) or not (small or len(self._descriptors) < self._open_max):
            os.close(descriptor)
            return False
        if small:
            offset = len(self._copies)
            with open(descriptor, "rb") as opened:  # noqa: PTH123
                self._copies += opened.read(seen.st_size)
            if len(self._copies) != offset + seen.st_size:
                raise OSError(f"{path} changes while it is read")
        else:
            self._descriptors.append(descriptor)
        self._files.append(
            {
                "name": name,
                "path": str(path),
                # Modules are found by the name that they have, and by where it leads.
                "paths": [str(path), os.path.realpath(path)] if path.suffix == ".py" else [],
                "identity": identity,
                "mode": 0o600 | (seen.st_mode & 0o100),
                "descriptor": None if small else descriptor,
                "offset": offset,
            }
        )
        return True

    def files(self) -> list[dict[str, Any]]:
        memory = os.memfd_create("inferd-kept", os.MFD_CLOEXEC)
        self._descriptors.append(memory)
        view = memoryview(self._copies)
        while view:
            view = view[os.write(memory, view) :]
        return [{**file, "descriptor": memory} if file["offset"] is not None else file for file in self._files]


# -- which files belong to a model ----------------------------------------------------------------------------------


def _folder_of(file: Path, load: dict[str, Any]) -> Path:
    """What the names of a model's files are relative to."""
    if file.is_dir():
        return file
    if load.get("runtime") == "python" and file.parent.name.isdecimal():
        with contextlib.suppress(OSError):
            if b"TritonPythonModel" in file.read_bytes():
                # What versions share is in the folder above them.
                return file.parent.parent
    return file.parent


def _is_large(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_size > COPIED_FILE_MAX
    return False


def _files(file: Path, folder: Path, load: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Names in ``folder`` and paths of what belongs to the model, the most important first."""
    if file.is_dir():
        yield from _walk(file)
        return
    yield str(file.relative_to(folder)), file
    if load.get("runtime") == "python":
        yield from _files_of_class(file, folder)
        return
    # Sidecars: m.bin beside m.xml, m.onnx.data and m.onnx_data beside m.onnx.
    names = [child.name for child in sorted(folder.iterdir()) if child != file]
    sidecars = [name for name in names if name.startswith((f"{file.stem}.", f"{file.name}_"))]
    if names and file.suffix == ".onnx":
        sidecars += _external(file)
    for name in dict.fromkeys(sidecars):
        if (folder / name).is_file():
            yield name, folder / name


def _files_of_class(file: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """What a class in Python may import or open: sources first, since of others there may be any number."""
    version = file.parent if file.parent != folder else None
    inside = str(file.parent.relative_to(folder)) if version else ""
    # A link may lead to a folder with modules of its own: those come first when they are imported, so here too.
    real = file.resolve().parent
    apart = real != file.parent.resolve()
    modules = [
        (os.path.join(inside, name), path)  # noqa: PTH118
        for name, path in (_walk(real) if apart else ())
        if path.suffix == ".py"
    ]
    siblings = [
        (name, path)
        for name, path in _walk(folder)
        if not (name.partition("/")[0].isdecimal() and version and not path.is_relative_to(version))
    ]
    named = {str(file.relative_to(folder))}
    for name, path in [*modules, *sorted(siblings, key=lambda one: one[1].suffix != ".py")]:
        if name not in named:
            named.add(name)
            yield name, path


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Regular files in ``folder`` and below, by name, nearest first; nothing hidden, no environments of Python."""
    seen: set[tuple[int, int]] = set()
    visited = 0
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop(0)
        with contextlib.suppress(OSError):
            at = place.stat()
            # A link may lead back to where it is.
            if (at.st_dev, at.st_ino) in seen or (place / "pyvenv.cfg").exists():
                continue
            seen.add((at.st_dev, at.st_ino))
            for child in sorted(islice(place.iterdir(), _VISITED_MAX)):
                visited += 1
                if visited > _VISITED_MAX:
                    return
                if child.name.startswith(".") or child.name in _NO_MODULES:
                    continue
                if child.is_dir():
                    if prefix.count("/") < _DEPTH_MAX:
                        waiting.append((child, f"{prefix}{child.name}/"))
                elif child.is_file():
                    yield f"{prefix}{child.name}", child


def _external(file: Path) -> list[str]:
    """Names of the files that an ONNX model keeps weights in; a model that does so is small itself."""
    with contextlib.suppress(OSError):
        if file.stat().st_size <= _LOOKED_INTO_MAX:
            data = file.read_bytes()
            found = [data[one.end() : one.end() + one[1][0]] for one in _LOCATION.finditer(data)]
            names = [os.fsdecode(name) for name in dict.fromkeys(found)]
            return [name for name in names if not name.startswith("/") and ".." not in Path(name).parts]
    return []
