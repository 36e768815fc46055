"""Refuse model files that execute code on load, unless the operator trusts that very file.

Reads model files, hands on their bytes or a refusal. Knows nothing of their content.

Pickle, joblib and formats built on them execute code of their author on load (Python's documentation: "it is possible
to construct malicious pickle data which will execute arbitrary code during unpickling"). The setting ``trusted_sha256``
trusts one file by its digest, which is checked again on the bytes that are loaded.
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
    """Return the SHA-256 of a file, or, of a folder, that of the sorted names and digests of its files."""
    if path.is_dir():
        whole = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
        return whole.hexdigest()
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def refuse_untrusted(path: Path, trusted_sha256: str | None, what: str, safe_way: str) -> None:
    """Refuse a file or folder whose digest is not the trusted one.

    Args:
        path: the file or folder to load.
        trusted_sha256: the setting.
        what: why loading it is unsafe, after "'name' ".
        safe_way: the alternative, after "help: ".

    Raises:
        Forbidden: with the alternative, and the digest to trust.
    """
    found = digest(path)
    if trusted_sha256 == found:
        return
    if trusted_sha256 is not None:
        raise Forbidden(
            f"'{path.name}' does not match trusted_sha256: its SHA-256 is {found}\n"
            "help: find out who changed it before you trust it again"
        )
    raise Forbidden(
        f"'{path.name}' {what}: loading it executes any code that its author put there\n"
        f"help: {safe_way}; or, if you trust its origin, set trusted_sha256: {found}"
    )


def trusted_bytes(file: Path, trusted_sha256: str | None) -> bytes:
    """Return the content of a file if it matches the trusted digest.

    Raises:
        Forbidden: it does not.
    """
    data = file.read_bytes()
    if trusted_sha256 is None or hashlib.sha256(data).hexdigest() != trusted_sha256:
        raise Forbidden(f"'{file.name}' changed during the check\nhelp: start again once no process writes to it")
    return data
