"""The files of a model as they were when the server first read them, for workers that start later.

Reads what :mod:`inferd.control.loading.snapshots` wrote down and holds open, hands on the folder to load from: the
user's own while nothing in it changed, else a *view* of what it was, made of the kept bytes. Runs in workers; also in
those that start without ``site`` and import nothing of inferd, so that it imports only what every interpreter has
started with.
Knows nothing of formats and frameworks.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Lost", "changes", "content", "entered", "inodes", "is_unchanged", "kept_sources", "located"]

_CHUNK = 1 << 20


class Lost(Exception):
    """What was loaded can't be had any more: a worker that went on would mix two versions of a model."""


def entered(kept: dict[str, Any]) -> str:
    """The folder that holds the model as it was when it was kept, made the current one.

    Args:
        kept: ``server``: the pid of the process that holds the files. ``folder``: where the user has them. ``name`` of
            that folder. ``inside``: the folder of the model's file in it. ``views``: where a view may be made, in this
            order. ``files``: of each ``name`` in ``folder``, ``path``, ``identity`` (:func:`identity_of`), ``mode``,
            ``descriptor`` of the server, ``offset`` in it where it is a copy, else None. ``live``: names and paths of
            what is not looked after: what the model itself writes. ``left_out``: names of what should have been kept,
            and is too much. ``copies``: whether a view has no links.

    Raises:
        Lost: the files changed, and what they were is gone or can't be laid out.
    """
    changed = changes(kept)
    folder: str = kept["folder"]
    if changed:
        folder = _view(kept)
        names = ", ".join(repr(file["name"]) for file in changed[:5]) + (", …" if len(changed) > 5 else "")
        what = "have" if len(changed) > 1 else "has"
        sys.stderr.write(
            f"warning: {names} in {kept['folder']} {what} changed since the model was loaded; this worker serves what"
            " was loaded then. Start the server again to serve what is there now.\n"
        )
    os.chdir(os.path.join(folder, kept["inside"]))  # noqa: PTH118 (pathlib is not imported yet)
    return folder


def changes(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that are no longer as they were kept."""
    return [file for file in kept["files"] if not _is_same(kept, file)]


def located(load: dict[str, Any], folder: str) -> dict[str, Any]:
    """The settings ``load`` of a model with its files in ``folder``, which :func:`entered` gave."""
    file = folder if load["file"] == load["kept"]["folder"] else f"{os.getcwd()}/{os.path.basename(load['file'])}"  # noqa: PTH109, PTH119
    moved = {**load, "file": file}
    if "triton" in load:
        moved["triton"] = {**load["triton"], "folder": folder}
    return moved


def inodes(kept: dict[str, Any]) -> list[list[int]]:
    """Which file each name leads to now; what a model writes into its own files changes nothing of it."""
    return [(identity_of(file["path"]) or [])[:2] for file in kept["files"]]


def is_unchanged(kept: dict[str, Any]) -> bool:
    """Whether every file is still the one that was kept, by its identity."""
    return all(identity_of(file["path"]) == list(file["identity"]) for file in kept["files"])


def identity_of(path: str | int) -> list[int] | None:
    """What tells one file, and one version of it, from the next; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def kept_sources(kept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources of Python among the files, by every path that leads to them; none where they can't be read."""
    held = {file["descriptor"] for file in kept["files"]}
    if not all(os.access(f"/proc/{kept['server']}/fd/{one}", os.R_OK) for one in held):
        return {}
    return {path: file for file in kept["files"] for path in file["paths"] if path.endswith(".py")}


def content(kept: dict[str, Any], file: dict[str, Any]) -> bytes:
    """What ``file`` held when it was kept.

    Raises:
        Lost: it was written to in place.
    """
    return b"".join(_chunks(kept, file))


def _is_same(kept: dict[str, Any], file: dict[str, Any]) -> bool:
    """Whether the file is as it was kept: by its identity, else by its content."""
    found = identity_of(file["path"])
    if found == list(file["identity"]):
        return True
    if found is None or found[2] != file["identity"][2]:
        return False
    try:
        with open(file["path"], "rb") as new:  # noqa: PTH123
            return all(new.read(len(chunk)) == chunk for chunk in _chunks(kept, file))
    except (OSError, Lost):
        return False


def _chunks(kept: dict[str, Any], file: dict[str, Any]) -> Iterator[bytes]:
    held = f"/proc/{kept['server']}/fd/{file['descriptor']}"
    left = file["identity"][2]
    try:
        with open(held, "rb") as opened:  # noqa: PTH123
            if file["offset"] is None and identity_of(opened.fileno()) != list(file["identity"]):
                raise Lost(
                    f"'{file['path']}' was written to after the model was loaded, and what it held is gone\n"
                    "help: replace files by renaming others over them, and start the server again to serve this one"
                )
            opened.seek(file["offset"] or 0)
            while left:
                chunk = opened.read(min(left, _CHUNK))
                if not chunk:
                    raise Lost(f"'{file['path']}' became shorter after the model was loaded")
                left -= len(chunk)
                yield chunk
    except OSError as fault:
        raise Lost(f"what '{file['path']}' held can't be read any more: {fault}") from None


def _view(kept: dict[str, Any]) -> str:
    """A folder with the kept files, made once for all workers of the server that need it."""
    if kept["left_out"]:
        raise Lost(
            f"the files in {kept['folder']} changed after the model was loaded, and some are too many or too large to"
            f" be kept: {', '.join(map(repr, kept['left_out'][:5]))}\nhelp: start the server again to serve these"
        )
    if not kept["copies"]:
        for file in kept["files"]:
            # Links of a view lead to it: it is looked at for each worker.
            next(_chunks(kept, file), b"")
    reasons = []
    for view in kept["views"]:
        whole = f"{view}/{kept['name']}"
        if os.path.isdir(view):  # noqa: PTH112
            return whole
        try:
            scratch = f"{view}.{os.getpid()}"
            _lay_out(kept, f"{scratch}/{kept['name']}")
            try:
                os.rename(scratch, view)  # noqa: PTH104
            except OSError:
                # Another worker was faster.
                _remove(scratch)
                if not os.path.isdir(view):  # noqa: PTH112
                    raise
            return whole
        except OSError as fault:
            reasons.append(str(fault))
            _remove(scratch)
    raise Lost(
        f"the files in {kept['folder']} changed after the model was loaded, and what they held can't be laid out again:"
        f" {'; '.join(reasons)}\nhelp: make room in TMPDIR, or start the server again to serve what is there now"
    )


def _lay_out(kept: dict[str, Any], folder: str) -> None:
    os.makedirs(os.path.join(folder, kept["inside"]), 0o700)  # noqa: PTH103, PTH118
    for file in kept["files"]:
        target = f"{folder}/{file['name']}"
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)  # noqa: PTH103, PTH120
        if file["offset"] is None and not kept["copies"]:
            os.symlink(f"/proc/{kept['server']}/fd/{file['descriptor']}", target)  # noqa: PTH211
            continue
        with open(target, "xb", opener=lambda path, flags: os.open(path, flags, file["mode"])) as copy:  # noqa: B023
            copy.writelines(_chunks(kept, file))
    for name, path in kept["live"]:
        target = f"{folder}/{name}"
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)  # noqa: PTH103, PTH120
        os.symlink(path, target)  # noqa: PTH211


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
