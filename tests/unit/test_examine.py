"""What is said of models in Python that nobody has run: only what is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.runtimes.examine import problem_of
from inferd.runtimes.python import load

if TYPE_CHECKING:
    from pathlib import Path

MODEL = (
    "import inferd\nclass M(inferd.Model):\n    def predict(self, x: list[float]) -> list[float]:\n        return x\n"
)
ARRAYS = "class A:\n    inputs = outputs = [('x', 'FP32', (-1, 1))]\n    def load(self): ...\n    def predict(self, batch): return batch\n"


def settings(file: Path, class_: str | None = None) -> dict:
    return {
        "file": str(file),
        "class": class_,
        "stage": None,
        "parameters": {},
        "signature": {"inputs": None, "outputs": None},
        "batching": "auto",
    }


@pytest.mark.parametrize(
    ("text", "class_"),
    [
        ("", None),
        ("class M\n", None),
        ("return 1\n", None),
        ("x = '\0'\n", None),
        ("import nosuchmodule\n" + MODEL, None),
        ("from nosuchmodule.part import x\n" + MODEL, None),
        ("import helper.absent\n" + MODEL, None),
        ("import broken\n" + MODEL, None),
        (MODEL.replace("def predict", "def predcit"), None),
        (MODEL + ARRAYS, None),
        (MODEL, "Other"),
        ("class TritonPythonModel:\n    def exceute(self, requests): ...\n", None),
    ],
)
def test_what_is_certainly_wrong_is_said_in_the_words_of_the_worker(tmp_path, monkeypatch, text, class_):
    # The worker's words are those of the exception that loading raises.
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "__init__.py").write_text("")
    (tmp_path / "broken.py").write_text("def (:\n")
    file = tmp_path / "m.py"
    file.write_text(text)
    found = problem_of(settings(file, class_))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with pytest.raises(Exception) as raised:  # noqa: PT011
        load(settings(file, class_))
    said = str(raised.value)
    assert found is not None
    assert found == said or found == f"loading raised {type(raised.value).__name__}: {said}"


@pytest.mark.parametrize(
    ("text", "class_"),
    [
        (MODEL, None),
        (MODEL, "M"),
        (ARRAYS, None),
        ("from beside import *\n", None),
        ("from beside import Base\nclass M(Base): ...\n", None),
        ("from beside import Base as M\n", "M"),
        ("import abc\nclass M(metaclass=abc.ABCMeta): ...\n", None),
        ("def make(): ...\nM = make()\n", None),
        ("try:\n    import nosuchmodule\nexcept ImportError:\n    nosuchmodule = None\n" + MODEL, None),
        ("import typing\nif typing.TYPE_CHECKING:\n    import nosuchmodule\n" + MODEL, None),
        ("if True:\n    class M: ...\n", None),
        ("import os.path, numpy.linalg, beside, package.inner\n" + MODEL, None),
        ("globals()['M'] = 1\n", None),
        ("def load(self): ...\n" + "class A:\n    load = load\n    predict: object = load\n", None),
        ("import triton_python_backend_utils\nclass TritonPythonModel:\n    def execute(self, requests): ...\n", None),
    ],
)
def test_nothing_is_said_of_what_only_a_run_can_tell(tmp_path, text, class_):
    (tmp_path / "beside.py").write_text(MODEL + "Base = M\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("")
    file = tmp_path / "m.py"
    file.write_text(text)
    assert problem_of(settings(file, class_)) is None


def test_nothing_of_the_model_runs(tmp_path):
    (tmp_path / "helper.py").write_text("open('ran', 'w')\n")
    (tmp_path / "m.py").write_text(f"import helper\nopen({str(tmp_path / 'ran')!r}, 'w')\n" + MODEL)
    assert problem_of(settings(tmp_path / "m.py")) is None
    assert not (tmp_path / "ran").exists()
