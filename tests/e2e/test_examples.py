"""Every numbered example, as its user would run it: from training to a request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9][0-9]_*.py"))
HEAVY = ("08_pytorch", "09_tensorflow")


@pytest.mark.parametrize(
    "example",
    [pytest.param(file, marks=[pytest.mark.heavy] if file.stem in HEAVY else [], id=file.stem) for file in EXAMPLES],
)
def test_an_example_does_what_it_says(example: Path, tmp_path: Path, cache: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_examples_are_numbered_without_a_gap() -> None:
    assert [int(file.name[:2]) for file in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
