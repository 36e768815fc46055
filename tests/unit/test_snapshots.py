"""What is kept of a model's files, within which bounds, and what a worker makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.control.config import desired_state
from inferd.control.loading import snapshots
from inferd.control.loading.snapshots import Snapshots
from inferd.control.resources import Machine
from inferd.runtimes.kept import Lost, entered, is_unchanged, located

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (
    "import inferd\nclass M(inferd.Model):\n    def predict(self, x: list[float]) -> list[float]:\n        return x\n"
)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Snapshots]:
    # Workers enter folders; this process goes back.
    monkeypatch.chdir(tmp_path)
    held = Snapshots([tmp_path / "scratch", tmp_path / "scratch2"])
    (tmp_path / "scratch").mkdir()
    yield held
    held.close()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.py").write_text(TEXT)
    return tmp_path / "m"


def load(keeper: Snapshots, file: Path, told: dict | None = None, **settings: object) -> dict:
    machine = Machine((0,), None, {}, file.parent / "cache")
    (model,) = desired_state([file], {}, dict(settings), machine).models
    return keeper.launch(model, {**model.settings, "load": {**model.settings["load"], **(told or {})}})["load"]


def names(kept: dict) -> set[str]:
    return {file["name"] for file in kept["files"]}


def test_a_class_is_kept_with_its_sources_and_what_they_name(keeper: Snapshots, folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "inner.py").write_text("WEIGHTS = 'named.bin'\n")
    for hidden in (".git", "__pycache__", "venv"):
        (folder / hidden).mkdir()
        (folder / hidden / "no.py").write_text("")
    (folder / "venv" / "pyvenv.cfg").write_text("")
    for name in ("named.bin", "told.bin", "other.bin"):
        (folder / name).write_bytes(bytes(snapshots.COPIED_FILE_MAX + 1))
    (folder / "small.txt").write_text("1")
    (folder / "served.log").write_text("1")
    os.mkfifo(folder / "pipe")
    kept = load(keeper, folder / "model.py", parameters={"file": "told.bin"})["kept"]
    assert names(kept) == {"model.py", "part/inner.py", "small.txt", "told.bin", "named.bin"}
    assert {name for name, _ in kept["live"]} == {"other.bin", "served.log"}
    assert {file["name"] for file in kept["files"] if file["offset"] is None} == {"told.bin", "named.bin"}
    assert is_unchanged(kept)


def test_a_worker_enters_the_users_folder_until_a_file_changes(keeper: Snapshots, folder: Path, capfd) -> None:
    (folder / "small.txt").write_text("old")
    told = load(keeper, folder / "model.py")
    assert entered(told["kept"]) == str(folder)
    assert Path.cwd() == folder
    (folder / "small.txt").unlink()
    (folder / "small.txt").write_text("new")
    (folder / "served.log").write_text("")
    assert not is_unchanged(told["kept"])
    view = entered(told["kept"])
    assert view != str(folder)
    assert Path(view).name == "m"
    assert Path("small.txt").read_text() == "old"
    assert Path(located(told, view)["file"]).read_text() == TEXT
    warning = capfd.readouterr().err
    assert f"warning: 'small.txt' in {folder} has changed since the model was loaded" in warning
    assert "serves the loaded version" in warning
    # Once for all workers.
    assert entered(told["kept"]) == view


def test_the_same_bytes_are_no_change(keeper: Snapshots, folder: Path, capfd) -> None:
    told = load(keeper, folder / "model.py")
    (folder / "model.py").unlink()
    (folder / "model.py").write_text(TEXT)
    os.utime(folder / "model.py", (1, 1))
    assert not is_unchanged(told["kept"])
    assert entered(told["kept"]) == str(folder)
    assert capfd.readouterr().err == ""


def test_bounds_of_files_bytes_and_descriptors_hold(
    keeper: Snapshots, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "FILES_MAX", 5)
    monkeypatch.setattr(snapshots, "OPEN_MAX", 2)
    monkeypatch.setattr(snapshots, "COPIED_FILE_MAX", 100)
    monkeypatch.setattr(snapshots, "COPIED_MAX", 250)
    (folder / "model.py").write_text("# f0 f1 f2\n")
    for number in range(3):
        (folder / f"f{number}").write_bytes(bytes(101))
    for number in range(9):
        (folder / f"s{number}").write_bytes(bytes(60))
    before = len(os.listdir("/proc/self/fd"))
    kept = load(keeper, folder / "model.py", runtime="python")["kept"]
    assert len(kept["files"]) <= 5
    assert sum(file["offset"] is None for file in kept["files"]) <= 2
    assert sum(file["identity"][2] for file in kept["files"] if file["offset"] is not None) <= 250
    # The memory file, and those held open.
    assert len(os.listdir("/proc/self/fd")) - before <= 3


def test_a_folder_that_is_a_model_is_kept_whole(keeper: Snapshots, folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    (whole / "onnx").mkdir(parents=True)
    (whole / "onnx" / "model.onnx").write_bytes(bytes(snapshots.COPIED_FILE_MAX + 1))
    (whole / "tokenizer.json").write_text("{}")
    told = load(keeper, folder / "model.py", {"file": str(whole), "runtime": "huggingface"})
    assert names(told["kept"]) == {"tokenizer.json", "onnx/model.onnx"}
    (whole / "tokenizer.json").unlink()
    (whole / "onnx" / "model.onnx").unlink()
    view = entered(told["kept"])
    assert located(told, view)["file"] == view == str(Path.cwd())
    assert Path("tokenizer.json").read_text() == "{}"
    assert Path("onnx/model.onnx").stat().st_size == snapshots.COPIED_FILE_MAX + 1


def test_a_folder_that_is_a_model_and_too_much_to_keep_is_refused_once_it_changed(
    keeper: Snapshots, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "FILES_MAX", 2)
    many = tmp_path / "many"
    many.mkdir()
    for number in range(4):
        (many / f"f{number}").write_text("1")
    kept = load(keeper, folder / "model.py", {"file": str(many), "runtime": "mlflow"})["kept"]
    assert entered(kept) == str(many)
    (many / "f0").unlink()
    with pytest.raises(Lost, match="exceed the limits for kept files: 'f2', 'f3'"):
        entered(kept)


def test_what_was_written_to_in_place_is_lost_if_it_was_too_large_to_be_copied(keeper: Snapshots, folder: Path) -> None:
    (folder / "model.py").write_text(TEXT + "# big.bin\n")
    (folder / "big.bin").write_bytes(bytes(snapshots.COPIED_FILE_MAX + 1))
    kept = load(keeper, folder / "model.py")["kept"]
    with (folder / "big.bin").open("r+b") as opened:
        opened.write(b"x")
    os.utime(folder / "big.bin", (1, 1))
    with pytest.raises(Lost, match=r"(?s)big.bin' was overwritten in place after .* renaming new ones over them"):
        entered(kept)


def test_a_place_without_room_is_passed_over(keeper: Snapshots, folder: Path, tmp_path: Path) -> None:
    kept = load(keeper, folder / "model.py")["kept"]
    (folder / "model.py").unlink()
    (tmp_path / "scratch").rmdir()
    # Under a file nothing can be made, whoever asks.
    (tmp_path / "scratch").write_text("")
    (tmp_path / "scratch2").mkdir()
    assert entered(kept).startswith(str(tmp_path / "scratch2"))
    (tmp_path / "scratch").unlink()
    (tmp_path / "scratch").mkdir()


def test_a_file_that_changes_while_it_is_kept_is_read_again(
    keeper: Snapshots, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "small.txt").write_text("0")
    read, count = snapshots._Store.files, iter(range(3))

    def change(store: object) -> list:
        found = read(store)
        if next(count, None) is not None:
            (folder / "small.txt").unlink()
            (folder / "small.txt").write_text("longer and longer")
        return found

    monkeypatch.setattr(snapshots._Store, "files", change)
    kept = load(keeper, folder / "model.py")["kept"]
    assert is_unchanged(kept)
    assert entered(kept) == str(folder)


def test_what_killed_servers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    namespace, pid, started = snapshots._process(os.getpid())
    token = "0" * 24
    mine, dead, reused, elsewhere, other = (
        tmp_path / f"inferd-{name}"
        for name in (
            f"{namespace}-{pid}-{started}-{token}",
            # Beyond the numbers that the system gives.
            f"{namespace}-4194305-{started}-{token}",
            f"{namespace}-{pid}-{started + 1}-{token}",
            f"{namespace + 1}-4194305-{started}-{token}",
            "of-the-user",
        )
    )
    for folder in (mine, dead, reused, elsewhere, other):
        (folder / "1").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    link = tmp_path / f"inferd-{namespace}-4194305-{started}-{'1' * 24}"
    link.symlink_to(tmp_path / "kept")
    Snapshots([tmp_path]).close()
    assert set(tmp_path.iterdir()) == {mine, elsewhere, other, link, tmp_path / "kept"}
