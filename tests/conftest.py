"""Fixtures for every test: nothing may be left behind, neither by a test nor in the tree by all of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long what has been told to end may take. A limit, not a wait: what is gone is seen at once.
_GONE_WITHIN_S = 5.0


_UNTRACKED = pytest.StashKey["frozenset[str]"]()


def _untracked(root: Path) -> frozenset[str]:
    """Files in the tree that git neither has nor ignores; none where it is no checkout."""
    command = ["git", "-C", str(root), "ls-files", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(os.fsdecode(name) for name in listed.split(b"\0") if name)


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_UNTRACKED] = _untracked(session.config.rootpath)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    new = sorted(_untracked(session.config.rootpath) - session.config.stash[_UNTRACKED])
    if new:
        session.config.get_terminal_writer().line(
            f"\nfiles were left in the tree: {', '.join(new[:10])}{' …' if len(new) > 10 else ''}\n"
            "help: write them below tmp_path; CatBoost writes catboost_info unless allow_writing_files=False",
            red=True,
        )
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


class _Held(NamedTuple):
    """What this process holds of the system."""

    processes: frozenset[psutil.Process]
    listening: frozenset[str]
    shared_memory: frozenset[str]


def _held() -> _Held:
    me = psutil.Process()
    listening = (socket for socket in me.net_connections("inet") if socket.status == psutil.CONN_LISTEN)
    return _Held(
        frozenset(me.children(recursive=True)),
        frozenset(f"{socket.laddr.ip}:{socket.laddr.port}" for socket in listening),
        frozenset(name for name in map(_target, Path("/proc/self/fd").iterdir()) if name.startswith("/memfd:")),
    )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After a test there is no process, no listening socket and no shared memory that was not there before."""
    before = _held()
    yield
    psutil.wait_procs(_held().processes - before.processes, timeout=_GONE_WITHIN_S)
    after = _held()
    assert not after.processes - before.processes, "processes were left"
    assert not after.listening - before.listening, "listening sockets were left"
    assert not after.shared_memory - before.shared_memory, "shared memory was left"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "inferd"
