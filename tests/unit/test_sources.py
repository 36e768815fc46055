"""One model's fault is that model's, wherever it is found; what is sound is wanted all the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.control.resolve import resolve
from inferd.control.resources import Machine
from inferd.control.sources import repository
from inferd.control.sources.files import FileSource
from inferd.control.sources.source import Reading, read_sources
from inferd.errors import SpecError

if TYPE_CHECKING:
    from inferd.control.desired import DesiredState

MACHINE = Machine((0, 1), None, {"PATH": "/bin"}, Path("/nonexistent"))
CLASS = "class M(Model):\n    def predict(self, x): ...\n"


def wanted(*paths: Path, **model: object) -> DesiredState:
    return resolve(read_sources([FileSource(paths, {}, model)], MACHINE), MACHINE)


def names(desired: DesiredState) -> list[str]:
    return [model.name for model in desired.models]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(CLASS)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("model.yaml", "replicas: -1", "replicas"),
        ("model.yaml", "{", "did not find expected node content"),
        ("model.yaml", "hedge_budget: 0.1\nretry_on_worker_loss: false", "help: leave one of the two out"),
        ("model.yaml", "versions: [7]", "versions [7] are asked for"),
        ("model.yaml", "labels: {y: absent.txt}", "absent.txt' can't be read"),
        ("model.yaml", "runtime: torch", "'model.py' is a pickle"),
        ("config.pbtxt", "no_such_field: 1", "no_such_field"),
        ("1/model.onnx", "", "both model.onnx and model.py are there"),
    ],
)
def test_a_fault_in_the_files_of_one_model_leaves_the_others(models: Path, file: str, text: str, words: str) -> None:
    (models / "b" / file).write_text(text)
    desired = wanted(models)
    assert names(desired) == ["a", "c"]
    assert all(fault.models == ("b",) for fault in desired.faults)
    with pytest.raises(SpecError) as raised:
        desired.require_sound()
    assert words in str(raised.value)


def test_an_entry_of_inferd_yaml_is_wrong_by_itself(models: Path) -> None:
    (models / "inferd.yaml").write_text("models:\n  - {path: a, replicas: no}\n  - {path: b}\n  - {path: absent}\n")
    desired = wanted(models / "inferd.yaml")
    assert names(desired) == ["b"]
    assert [fault.models for fault in desired.faults] == [("a",), ("absent",)]


def test_the_stages_of_a_model_with_a_fault_are_not_wanted(models: Path) -> None:
    (models / "b" / "1" / "model.py").write_text(f"{CLASS}    def preprocess(self, x): ...\n")
    assert names(wanted(models)) == ["a", "b.preprocess", "b.predict", "c"]
    (models / "b" / "model.yaml").write_text("unknown: 1")
    desired = wanted(models)
    assert names(desired) == ["a", "c"]
    assert desired.pipelines == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_read_is_one_models_fault(models: Path) -> None:
    (models / "b").chmod(0)
    try:
        desired = wanted(models)
    finally:
        (models / "b").chmod(0o755)
    assert names(desired) == ["a", "c"]


@pytest.mark.parametrize(
    ("error", "words"), [(OSError(5, "I/O", "f"), "'f' can't be read"), (KeyError("x"), "KeyError")]
)
def test_an_exception_of_any_kind_is_one_models_fault(models: Path, monkeypatch, error: Exception, words: str) -> None:
    read = repository.load_model_file

    def fail(file: Path, faults: list[str]) -> dict:
        if file.parent.name == "b":
            raise error
        return read(file, faults)

    for name in ("a", "b"):
        (models / name / "model.yaml").write_text("replicas: 2")
    monkeypatch.setattr(repository, "load_model_file", fail)
    desired = wanted(models)
    assert names(desired) == ["a", "c"]
    assert [(fault.models, words in fault.message) for fault in desired.faults] == [(("b",), True)]


def test_a_pipeline_with_a_fault_takes_no_model_with_it(models: Path) -> None:
    steps = "steps: [{name: s, model: absent, inputs: {x: x}}]\n    outputs: {y: s.y}"
    (models / "inferd.yaml").write_text(f"models: [a, b]\npipelines:\n  - name: p\n    {steps}\n")
    desired = wanted(models / "inferd.yaml")
    assert names(desired) == ["a", "b"]
    assert desired.pipelines == []
    assert "there is no model 'absent'" in desired.faults[0].message


def test_a_source_that_can_not_be_read_leaves_the_others(models: Path) -> None:
    class Broken:
        name = "broken"

        def read(self, _: Machine) -> Reading:
            raise RuntimeError("no way")

    files = FileSource((models / "a",), {"port": 7}, {})
    desired = resolve(read_sources([Broken(), files], MACHINE), MACHINE)
    assert names(desired) == ["a"]
    assert desired.server.port == 7
    assert [fault.message for fault in desired.faults] == ["broken: RuntimeError: no way"]


def test_resolving_opens_no_file(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "a" / "model.yaml").write_text("warmup: [{rows: 2}]\nlabels: {y: [a]}")
    reading = read_sources([FileSource((models,), {}, {})], MACHINE)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    with monkeypatch.context() as patched:
        for owner, name in ((Path, "open"), (Path, "stat"), (os, "stat"), (os, "open"), (os, "scandir")):
            patched.setattr(owner, name, fail)
        desired = resolve(reading, MACHINE)
    assert names(desired) == ["a", "b", "c"]
    assert desired.faults == []
