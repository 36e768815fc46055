"""Whose code runs when a model is loaded: nobody's, unless the operator vouched for this very file.

Reads model files, hands on their bytes or a refusal. Knows nothing of what is in them.

Pickle, joblib and what is built on them run whatever their author wrote while they are read (Python's own manual:
"it is possible to construct malicious pickle data which will execute arbitrary code during unpickling"). A digest in
the settings is the operator's word for one file; it is checked again on the very bytes that are loaded.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from inferd.errors import Forbidden

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["digest", "refuse_untrusted", "trusted_bytes"]

_CHUNK = 1 << 20


def digest(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of the names and digests of all its files, in order."""
    if path.is_dir():
        whole = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
        return whole.hexdigest()
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def refuse_untrusted(path: Path, trusted_sha256: str | None, what: str, safe_way: str) -> None:
    """Go on only with a file, or folder, that the operator vouched for.

    Args:
        path: what would be loaded.
        trusted_sha256: the setting of that name.
        what: why loading it is not safe, after "'name' ".
        safe_way: what to do instead, after "help: ".

    Raises:
        Forbidden: it names the safe way, and the setting that trusts the file as it is now.
    """
    found = digest(path)
    if trusted_sha256 == found:
        return
    if trusted_sha256 is not None:
        raise Forbidden(
            f"'{path.name}' is not what trusted_sha256 vouches for: its SHA-256 is {found}\n"
            "help: find out who changed it before you trust it again"
        )
    raise Forbidden(
        f"'{path.name}' {what}: loading it runs whatever code its author put there\n"
        f"help: {safe_way}; or, if you know where it comes from, set trusted_sha256: {found}"
    )


def trusted_bytes(file: Path, trusted_sha256: str | None) -> bytes:
    """The content of a file, if it is what the operator vouched for.

    Raises:
        Forbidden: it is not.
    """
    data = file.read_bytes()
    if trusted_sha256 is None or hashlib.sha256(data).hexdigest() != trusted_sha256:
        raise Forbidden(f"'{file.name}' changed after it was checked\nhelp: start again once nobody writes to it")
    return data
