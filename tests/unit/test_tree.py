"""What tests leave in the tree fails them, all of them together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture
def tree(tmp_path):
    """A checkout with the fixtures of this one, and a way to run a test in it."""
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / ".gitignore").write_text("__pycache__\n.pytest_cache\nignored\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)

    def run(line):
        (tmp_path / "test_it.py").write_text(f"from pathlib import Path\n\ndef test_it():\n    {line}\n")
        command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_files_that_tests_leave_in_the_tree_fail_them_and_are_named(tree):
    done = tree("Path('catboost_info').mkdir(); Path('catboost_info/learn.tsv').write_text('')")
    assert done.returncode == 1
    assert "files were left in the tree: catboost_info/learn.tsv" in done.stdout
    # What was there before is nobody's fault.
    assert tree("pass").returncode == 0


def test_files_that_are_ignored_or_elsewhere_are_not_left_in_the_tree(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    assert tree(f"Path('ignored').write_text(''); Path({str(elsewhere)!r}).write_text('')").returncode == 0
