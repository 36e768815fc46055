"""What a server inside this process leaves behind: it must be nothing."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

from outside.process import shared_memory
from outside.waiting import wait_for


class Leftovers:
    """Asserts, at the end of its block, that the process is as it was: children, descriptors, threads, shared memory."""

    def __enter__(self) -> Leftovers:
        self._before = self._seen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                wait_for(lambda: not self._new(), "the end of everything that was started", 10)
            except AssertionError:
                raise AssertionError(f"left behind: {self._new()}") from None

    def _new(self) -> dict[str, list[str]]:
        # What an exception's traceback still held goes with it.
        gc.collect()
        now = self._seen()
        new = {what: sorted(now[what] - self._before[what]) for what in now}
        return {what: names for what, names in new.items() if names}

    @staticmethod
    def _seen() -> dict[str, set[str]]:
        return {
            "children": set(_children()),
            "descriptors": set(_descriptors()),
            "threads": {path.name for path in Path("/proc/self/task").iterdir()},
            "shared memory": shared_memory(),
        }


def _children() -> list[str]:
    """The children of every thread; a thread that ends while it is looked at hands its own to another one."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "children").read_text().split()
    return found


def _descriptors() -> list[str]:
    """Sockets, memory files, pidfds and the like; regular files come and go with imports and caches."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if target.startswith(("socket:", "/memfd", "anon_inode:", "pipe:")):
            found.append(f"{path.name} {target}")
    return found
