"""A server whose home, cache or scratch folder is missing, read-only or full serves as any other."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from outside import models
from outside.process import Inferd
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = """
import inferd
from pathlib import Path

class M(inferd.Model):
    def load(self):
        # As libraries do: try, and go on without.
        try:
            Path("~/.config/library").expanduser().mkdir(parents=True, exist_ok=True)
            self.wrote = True
        except (OSError, RuntimeError):
            self.wrote = False

    def predict(self, x: list[float]) -> list[float]:
        return [2.0 * one + self.wrote for one in x]
"""
READ_ONLY = "mount -t tmpfs none {place} && mount -o remount,ro {place}"
FULL = "mount -t tmpfs -o size=4k,nr_inodes=1 none {place}"
CAN_MOUNT = subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], check=False).returncode == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    models.identity(folder / "same.onnx", "FP32", ["n"])
    (folder / "twice.py").write_text(MODEL)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    before = set(Path("/tmp").glob(".cache*"))
    yield tmp_path / "home"
    assert set(Path("/tmp").glob(".cache*")) == before, "a cache that anybody could have made"
    assert list((tmp_path / "scratch").glob("inferd-*")) == []


def ask(server: Inferd, model: str, value: float) -> float:
    datatype = "FP32" if model == "same" else "FP64"
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1], "data": [value]}]}
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=60)
    assert answer.status_code == 200, f"{answer.text}\n{server.log()}"
    return answer.json()["outputs"][0]["data"][0]


def serves(server: Inferd, *, wrote: bool) -> None:
    """Every answer is right, before and after the workers are killed; stopping keeps what was learned, or does not."""
    with server:
        for value in range(10):
            assert (ask(server, "same", value), ask(server, "twice", value)) == (value, 2 * value + wrote)
        before = set(server.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not before & set(server.workers()), "the end of the workers")
        assert (ask(server, "same", 3), ask(server, "twice", 3)) == (3, 6 + wrote)
    assert "Traceback" not in server.log()


def test_no_home_at_all(made: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the cache is a place that tests may write to: without it the user's own would be found.
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    with Inferd(tmp_path / "run", made / "same.onnx", "--threads", "1") as server:
        explained = f"{server.metrics_url.removesuffix('/metrics')}/explain"

        def learned() -> bool:
            assert ask(server, "same", 3) == 3
            return bool(httpx.get(explained, timeout=60).json()["models"][0]["profile"])

        # A server that ends at once has nothing to keep.
        wait_for(learned, "a profile of the model")
    assert [path.name for path in home.iterdir()] == ["inferd"]
    assert list((home / "inferd" / "profiles").iterdir()), "what was learned is kept"


def test_a_home_that_cannot_be(made: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Below a device nothing can be made, whoever asks.
    monkeypatch.setenv("HOME", "/dev/null/home")
    serves(Inferd(tmp_path / "run", made, "--threads", "1"), wrote=False)


def test_a_cache_that_cannot_be(made: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/cache")
    serves(Inferd(tmp_path / "run", made, "--threads", "1"), wrote=True)
    assert not (home / ".cache" / "inferd").exists()


@pytest.mark.skipif(not CAN_MOUNT, reason="mounting needs rights that this user lacks")
@pytest.mark.parametrize("mount", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_a_home_and_a_scratch_folder_without_room(
    made: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str
) -> None:
    monkeypatch.setenv("HOME", str(home))
    mounts = " && ".join(mount.format(place=place) for place in (home, tmp_path / "scratch"))
    server = Inferd(tmp_path / "run", made, "--threads", "1")
    serves(
        server.within("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh"),
        wrote=False,
    )
    assert list(home.iterdir()) == []
