"""``inferd check`` finds what ``inferd serve`` would not load, and agrees with it on what is empty."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from outside import models

if TYPE_CHECKING:
    from pathlib import Path

MODEL = (
    "import inferd\nclass M(inferd.Model):\n    def predict(self, x: list[float]) -> list[float]:\n        return x\n"
)
PORTS = ("--port", "0", "--metrics-port", "0")


def inferd(*arguments: object) -> tuple[int, str, list[str]]:
    """Exit status, output, and what follows ``error:`` without tracebacks and what only operators read."""
    line = [sys.executable, "-m", "inferd", *map(str, arguments)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)
    start = done.stderr.find("error: ")
    lines = done.stderr[start:].partition("Traceback")[0].splitlines() if start >= 0 else []
    return done.returncode, done.stdout, [line for line in lines if line.startswith(("error: ", "help: ", "pipeline "))]


def make(folder: Path, what: str) -> Path:
    file = folder / {"garbage": "m.onnx", "no class": "m.py", "load": "m.py"}.get(what, "m.yaml")
    content: dict[str, bytes] = {
        "garbage": b"\x7fnothing",
        "no class": MODEL.replace("predict", "predcit").encode(),
        "load": MODEL.replace(
            "    def predict", "    def load(self):\n        raise OSError(5, 'no')\n    def predict"
        ).encode(),
        "empty": b"",
    }
    file.write_bytes(content[what])
    return file


@pytest.mark.parametrize(("what", "status"), [("garbage", 1), ("no class", 1), ("empty", 2)])
def test_both_depths_say_what_serve_says(tmp_path: Path, what: str, status: int) -> None:
    file = make(tmp_path, what)
    seen = [
        inferd(command, file, *more) for command, *more in (("check",), ("check", "--deep", *PORTS), ("serve", *PORTS))
    ]
    assert [one[0] for one in seen] == [status] * 3
    said = [one[2] for one in seen]
    assert said[0]
    assert said[0] == said[1] == said[2]


def test_an_empty_folder_is_refused_alike(tmp_path: Path) -> None:
    said = [inferd(command, tmp_path, *PORTS) for command in ("check", "serve")]
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert "no models in this folder" in said[0][2][0]


def test_what_only_a_run_shows_is_found_by_the_deep_check(tmp_path: Path) -> None:
    file = make(tmp_path, "load")
    status, table, _ = inferd("check", file)
    assert status == 0
    assert "parsed" in table
    deep, serve = inferd("check", file, "--deep", *PORTS), inferd("serve", file, *PORTS)
    assert deep[0] == serve[0] == 1
    assert deep[2] == serve[2]
    assert "loading raised OSError: [Errno 5] no" in deep[2][0]


def test_pipelines_are_checked_as_far_as_their_models_are_known(tmp_path: Path) -> None:
    models.identity(tmp_path / "a.onnx", "FP32", ["n"])
    (tmp_path / "m.py").write_text(MODEL)
    (tmp_path / "inferd.yaml").write_text(
        "models: [{path: a.onnx}, {path: m.py}]\npipelines:\n- name: p\n  steps:\n"
        "  - {name: one, model: a, inputs: {nosuch: x}}\n  - {name: two, model: m, inputs: {x: one.wrong}}\n"
        "  outputs: {y: two.output}\n"
    )
    status, _, said = inferd("check", tmp_path)
    assert status == 1
    assert said[0].startswith("error: pipeline 'p', step 'one': its model has no input 'nosuch'; it takes 'x'")
    deep = inferd("check", tmp_path, "--deep", *PORTS)
    assert deep[0] == 1
    assert set(said) <= set(deep[2])


def test_the_deep_check_runs_the_models_and_listens_to_nobody(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = MODEL.replace("return x", f"open({str(ran)!r}, 'w'); return x")
    (tmp_path / "m.py").write_text(text)
    status, table, _ = inferd("check", tmp_path / "m.py")
    assert (status, ran.exists()) == (0, False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        deep, serve = (
            inferd(*command, tmp_path / "m.py", "--port", port, "--metrics-port", "0")
            for command in (("check", "--deep"), ("serve",))
        )
    assert deep == serve
    assert deep[0] == 1
    assert not ran.exists()
    status, table, _ = inferd("check", "--deep", tmp_path / "m.py", *PORTS)
    assert (status, ran.exists()) == (0, True)
    assert "output: FP64" in table


def test_an_interpreter_that_cannot_run_models_is_found(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    for python in ("/nonexistent/python", "/bin/false"):
        check, serve = (
            inferd(command, tmp_path / "m.py", "--python", python, *PORTS) for command in ("check", "serve")
        )
        assert check == serve
        assert check[2][0] == "error: model 'm' version 1: no worker could be started for model 'm'"
        assert check[2][1] == "help: python: needs an interpreter that has inferd installed"
