"""The files of a model as the server first read them, for workers that start later.

Reads the records and open descriptors of :mod:`inferd.control.keep`, hands on the folder to load from: the user's own
if unchanged, else a *view* with the kept content. Runs in workers, including those that start without ``site`` and
import nothing of inferd, so it imports only modules that every interpreter has loaded at start. Knows nothing of
formats and frameworks.
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
    """Kept content is no longer available. The worker must not start: it would mix two versions of a model."""


def entered(kept: dict[str, Any]) -> str:
    """Change to the folder with the model as it was kept, and return it.

    Args:
        kept: ``server``: pid of the process that holds the files. ``folder``: the user's folder. ``name``: of that
            folder. ``inside``: relative folder of the model's file. ``views``: candidate paths for a view, in order.
            ``files``: for each ``name`` in ``folder`` its ``path``, ``identity`` (:func:`identity_of`), ``mode``, the
            server's ``descriptor``, and the ``offset`` in it if it is a copy, else None. ``live``: names and paths of
            files that are not kept since the model itself writes them. ``left_out``: names of files that exceed the
            limits. ``copies``: whether a view has copies instead of links.

    Raises:
        Lost: files changed, and their kept content is gone or a view can't be created.
    """
    changed = changes(kept)
    folder: str = kept["folder"]
    if changed:
        folder = _view(kept)
        names = ", ".join(repr(file["name"]) for file in changed[:5]) + (", …" if len(changed) > 5 else "")
        what = "have" if len(changed) > 1 else "has"
        sys.stderr.write(
            f"warning: {names} in {kept['folder']} {what} changed since the model was loaded; this worker serves the"
            " loaded version. Restart the server to serve the new one.\n"
        )
    os.chdir(os.path.join(folder, kept["inside"]))  # noqa: PTH118 (pathlib is not imported yet)
    return folder


def changes(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the files that differ from their kept content."""
    return [file for file in kept["files"] if not _is_same(kept, file)]


def located(load: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the settings ``load`` with the model's files in ``folder``, as returned by :func:`entered`."""
    file = folder if load["file"] == load["kept"]["folder"] else f"{os.getcwd()}/{os.path.basename(load['file'])}"  # noqa: PTH109, PTH119
    moved = {**load, "file": file}
    if "triton" in load:
        moved["triton"] = {**load["triton"], "folder": folder}
    return moved


def inodes(kept: dict[str, Any]) -> list[list[int]]:
    """Return device and inode of each file now; unaffected by writes of the model into its own files."""
    return [(identity_of(file["path"]) or [])[:2] for file in kept["files"]]


def is_unchanged(kept: dict[str, Any]) -> bool:
    """Whether every file has its kept identity."""
    return all(identity_of(file["path"]) == list(file["identity"]) for file in kept["files"])


def identity_of(path: str | int) -> list[int] | None:
    """Return device, inode, size and modification time (ns) of a file; None if it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def kept_sources(kept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the kept Python sources by every path that leads to them; empty if unreadable."""
    held = {file["descriptor"] for file in kept["files"]}
    if not all(os.access(f"/proc/{kept['server']}/fd/{one}", os.R_OK) for one in held):
        return {}
    return {path: file for file in kept["files"] for path in file["paths"] if path.endswith(".py")}


def content(kept: dict[str, Any], file: dict[str, Any]) -> bytes:
    """Return the kept content of ``file``.

    Raises:
        Lost: it was overwritten in place.
    """
    return b"".join(_chunks(kept, file))


def _is_same(kept: dict[str, Any], file: dict[str, Any]) -> bool:
    """Whether the file has its kept identity or content."""
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
                    f"'{file['path']}' was overwritten in place after the model was loaded; its loaded content is"
                    " gone\nhelp: replace files by renaming new ones over them, and restart the server to serve this"
                    " one"
                )
            opened.seek(file["offset"] or 0)
            while left:
                chunk = opened.read(min(left, _CHUNK))
                if not chunk:
                    raise Lost(f"'{file['path']}' was truncated after the model was loaded")
                left -= len(chunk)
                yield chunk
    except OSError as fault:
        raise Lost(f"kept content of '{file['path']}' can't be read: {fault}") from None


def _view(kept: dict[str, Any]) -> str:
    """Return a folder with the kept files, created once for all workers of the server."""
    if kept["left_out"]:
        raise Lost(
            f"files in {kept['folder']} changed after the model was loaded, and some exceed the limits for kept files:"
            f" {', '.join(map(repr, kept['left_out'][:5]))}\nhelp: restart the server to serve the new files"
        )
    if not kept["copies"]:
        for file in kept["files"]:
            # A view links to it: checked for each worker.
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
                # Another worker created it first.
                _remove(scratch)
                if not os.path.isdir(view):  # noqa: PTH112
                    raise
            return whole
        except OSError as fault:
            reasons.append(str(fault))
            _remove(scratch)
    raise Lost(
        f"files in {kept['folder']} changed after the model was loaded, and their kept content can't be written:"
        f" {'; '.join(reasons)}\nhelp: free space in TMPDIR, or restart the server to serve the new files"
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
