"""``inferd new``: what it writes works at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from outside.process import Inferd

if TYPE_CHECKING:
    from pathlib import Path


def new(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferd", "new", name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_new_project_is_served_and_its_test_passes(tmp_path: Path) -> None:
    made = new("my-model", tmp_path)
    assert made.returncode == 0, made.stderr
    assert "inferd serve inferd.yaml" in made.stdout
    project = tmp_path / "my-model"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=project, capture_output=True, text=True, check=False
    )
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr
    with Inferd(tmp_path / "run", project / "inferd.yaml") as server:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a good day"]}
        answer = httpx.post(f"{server.url}/v2/models/my-model/infer", json={"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == [1.0]


@pytest.mark.parametrize(("name", "words"), [("9lives", "can't be a model's name"), ("there", "is there already")])
def test_a_name_that_will_not_do_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    refused = new(name, tmp_path)
    assert refused.returncode != 0
    assert words in refused.stderr
