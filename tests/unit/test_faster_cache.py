"""What is kept of conversions, and that nothing but time depends on it."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.control.desired import ResolvedModel
from inferd.control.loading import conversions as module
from inferd.control.loading.conversions import Conversions
from inferd.runtimes.faster import Verdict
from inferd.spec.settings import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = {"input": "x", "columns": ["a"], "missing": False, "largest": None}
ONNX = Verdict("onnx", "it is faster", 3, (SCHEMA,), ("b",))
LIBRARY = Verdict("library", "it is no faster")


class Converter:
    """Gives a verdict, and counts how often it is asked for one."""

    def __init__(self, verdict: Verdict = ONNX, *, final: bool = True, then: Callable[[], Any] = lambda: None) -> None:
        self.count = 0
        self._verdict, self._final, self._then = verdict, final, then

    def __call__(self, model: ResolvedModel, folder: Path) -> tuple[Verdict, bool]:
        self.count += 1
        if self._verdict.chosen == "onnx":
            (folder / "model.onnx").write_bytes(b"a graph " * 100)
        self._then()
        return self._verdict, self._final


def planned(folder: Path, load: dict[str, Any] | None = None, **spec: Any) -> ResolvedModel:
    file = folder / "model.txt"
    if not file.exists():
        file.write_text("trees")
    settings = {
        "launch": {"zygote": {"command": ["python"]}},
        "env": {},
        "load": {"runtime": "lightgbm", "file": str(file), "threads": 1, **(load or {})},
    }
    return ResolvedModel("m", 1, file, ModelSpec(batch_rows_max=8, **spec), 1, settings)


@pytest.fixture
def made() -> Iterator[list[Conversions]]:
    """Conversions, which are closed after the test; nothing of theirs is left then."""
    before = set(Path(tempfile.gettempdir()).glob("inferd-*"))
    conversions: list[Conversions] = []
    yield conversions
    for one in conversions:
        one.close()
    assert set(Path(tempfile.gettempdir()).glob("inferd-*")) <= before


@pytest.fixture
def launch(tmp_path: Path, made: list[Conversions]) -> Callable[..., dict[str, Any]]:
    def by(converter: Converter, *, cache: Path | None = None, model: ResolvedModel | None = None) -> dict[str, Any]:
        made.append(Conversions(cache or tmp_path / "cache", converter))
        return made[-1].launch(model or planned(tmp_path))

    return by


def served_from_onnx(settings: dict[str, Any]) -> bool:
    if "exec" not in settings["launch"]:
        return False
    assert Path(settings["load"]["path"]).read_bytes() == b"a graph " * 100
    assert settings["load"]["threads"] == 3
    assert settings["load"]["compared"] is True
    assert settings["load"]["schemas"] == [SCHEMA]
    assert settings["load"]["ignored_columns"] == ["b"]
    assert settings["load"]["facts"] == {"faster": "it is faster"}
    return True


def why_not(settings: dict[str, Any]) -> str:
    assert settings["launch"] == {"zygote": {"command": ["python"]}}
    told: str = settings["load"]["facts"]["faster"]
    assert told.startswith("no: ")
    return told


def kept(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache" / "faster").iterdir()
    return folder


def test_a_model_is_converted_once(launch, tmp_path):
    first, second = Converter(), Converter()
    assert served_from_onnx(launch(first))
    settings = launch(second)
    assert served_from_onnx(settings)
    assert (first.count, second.count) == (1, 0)
    assert Path(settings["load"]["path"]) == kept(tmp_path) / "model.onnx"


def test_batching_that_is_switched_off_stays_off(launch, tmp_path):
    assert launch(Converter(), model=planned(tmp_path, batching="off"))["load"]["batching"] == "off"


def test_that_a_library_serves_is_kept_too(launch):
    first, second = Converter(LIBRARY), Converter(LIBRARY)
    assert why_not(launch(first)) == why_not(launch(second)) == "no: it is no faster"
    assert (first.count, second.count) == (1, 0)


def test_what_may_come_out_otherwise_another_time_is_not_kept(launch):
    first, second = Converter(LIBRARY, final=False), Converter()
    assert why_not(launch(first))
    assert served_from_onnx(launch(second))


@pytest.mark.parametrize(
    "change",
    [
        {"load": {"threads": 2}},
        {"load": {"batch_rows_max": 64}},
        {"load": {"signature": {"inputs": []}}},
        {"faster_tolerance": 1e-3},
        {"env": {"OMP_NUM_THREADS": "2"}},
    ],
)
def test_another_setting_is_another_conversion(launch, tmp_path, change):
    launch(Converter())
    again = Converter()
    launch(again, model=planned(tmp_path, **change))
    assert again.count == 1


def test_another_file_package_source_or_machine_is_another_conversion(launch, tmp_path, monkeypatch):
    launch(Converter())

    def converted_again() -> bool:
        again = Converter()
        launch(again)
        return again.count == 1

    assert not converted_again()
    for name, value in (("_sources", lambda: "other"), ("_processor", lambda: "other"), ("_version", lambda _: "0")):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            assert converted_again(), name
    (tmp_path / "model.txt").write_text("other trees")
    assert converted_again()


def test_the_digest_of_the_sources_is_that_of_every_file_that_decides(monkeypatch, tmp_path):
    import inferd.runtimes

    def digest_of(folder: Path) -> str:
        monkeypatch.setattr(inferd.runtimes, "__path__", [str(folder)])
        found: str = module._sources.__wrapped__()
        return found

    (tmp_path / "runtimes" / "faster").mkdir(parents=True)
    for name in ("types.py", "runtimes/tables.py", "runtimes/faster/compare.py"):
        (tmp_path / name).write_text("")
    before = {digest_of(tmp_path / "runtimes")}
    for name in ("types.py", "runtimes/tables.py", "runtimes/faster/compare.py"):
        (tmp_path / name).write_text("x = 1\n")
        found = digest_of(tmp_path / "runtimes")
        assert found not in before
        before.add(found)


# -- a cache that is of no use ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a file", "a file for the folder", "nowhere", "a link to nowhere"])
def test_without_a_cache_a_model_is_served_from_onnx_all_the_same(launch, tmp_path, place):
    cache = tmp_path / "cache"
    if place == "a file":
        cache.write_text("")
    elif place == "a file for the folder":
        cache.mkdir()
        (cache / "faster").write_text("")
    elif place == "a link to nowhere":
        cache.symlink_to(tmp_path / "missing" / "folder")
    else:
        # Nobody can make a folder there, root included.
        cache = Path("/proc/self/inferd")
    settings = launch(Converter(), cache=cache)
    assert served_from_onnx(settings)
    assert Path(tempfile.gettempdir()) in Path(settings["load"]["path"]).parents


def test_a_model_that_does_not_fit_into_the_cache_is_served_from_onnx(launch, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    converter = Converter(then=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1])))
    try:
        settings = launch(converter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert served_from_onnx(settings)
    assert list((tmp_path / "cache" / "faster").iterdir()) == []


WHOLE = {"chosen": "library", "why": "", "threads": 1, "schemas": [], "ignored_columns": []}
WRONG = {"chosen": "both", "why": 1, "threads": 0, "schemas": [1], "ignored_columns": [1]}
GARBAGE = [
    "",
    "not json",
    "[]",
    "null",
    "[" * 100_000,
    json.dumps({"verdict": 1, "model": None}),
    json.dumps({"verdict": {"chosen": "library"}, "model": None}),
    json.dumps({"verdict": {**WHOLE, "chosen": "onnx"}, "model": "0"}),
    json.dumps({"verdict": {**WHOLE, "chosen": "onnx"}, "model": None}),
    *(json.dumps({"verdict": {**WHOLE, name: value}, "model": None}) for name, value in WRONG.items()),
]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_a_verdict_that_is_none_is_made_again(launch, tmp_path, text):
    launch(Converter())
    place = kept(tmp_path) / "verdict.json"
    place.write_text(json.dumps({"verdict": WHOLE, "model": None}))
    assert why_not(launch(Converter()))
    place.write_text(text)
    again, after = Converter(), Converter()
    assert served_from_onnx(launch(again))
    assert served_from_onnx(launch(after))
    assert (again.count, after.count) == (1, 0)


def test_bytes_that_are_no_text_are_no_verdict(launch, tmp_path):
    launch(Converter())
    (kept(tmp_path) / "verdict.json").write_bytes(b"\xff\xfe\x00")
    assert served_from_onnx(launch(Converter()))


@pytest.mark.parametrize("damage", ["cut off", "missing", "a folder", "other bytes"])
def test_a_kept_model_that_is_not_whole_is_made_again(launch, tmp_path, damage):
    launch(Converter())
    file = kept(tmp_path) / "model.onnx"
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:50])
    elif damage == "other bytes":
        file.write_bytes(b"\0" * 800)
    else:
        file.unlink()
        if damage == "a folder":
            file.mkdir()
    again, after = Converter(), Converter()
    assert served_from_onnx(launch(again))
    assert served_from_onnx(launch(after))
    assert (again.count, after.count) == (1, 0)


def test_a_file_in_place_of_a_kept_folder_is_done_without(launch, tmp_path):
    launch(Converter())
    folder = kept(tmp_path)
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert served_from_onnx(launch(Converter()))


def test_two_servers_that_convert_the_same_model_at_once_both_serve_it(launch, tmp_path):
    inner = Converter()
    outer = Converter(then=lambda: launch(inner))
    assert served_from_onnx(launch(outer))
    assert (outer.count, inner.count) == (1, 1)
    assert served_from_onnx(launch(Converter(LIBRARY)))


# -- whatever goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [RuntimeError("boom"), OSError(28, "No space left"), KeyError("x"), RecursionError()])
def test_whatever_goes_wrong_the_library_serves_and_it_is_said(launch, fault):
    def fail() -> None:
        raise fault

    assert type(fault).__name__ in why_not(launch(Converter(then=fail)))


def test_without_a_temporary_folder_the_library_serves(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    try:
        settings = launch(Converter())
    finally:
        monkeypatch.undo()
    assert "FileNotFoundError" in why_not(settings)


def test_a_model_that_has_gone_is_its_librarys_to_complain_of(launch, tmp_path):
    model = planned(tmp_path)
    model.file.unlink()
    assert "FileNotFoundError" in why_not(launch(Converter(), model=model))


def test_faster_can_be_switched_off_and_is_for_the_cpu(launch, tmp_path):
    converter = Converter()
    assert "faster is off" in why_not(launch(converter, model=planned(tmp_path, faster=False)))
    assert "device is cuda:0" in why_not(launch(converter, model=planned(tmp_path, device="cuda:0")))
    assert converter.count == 0


def test_models_of_other_runtimes_and_interpreters_are_left_alone(launch, tmp_path):
    for model in (planned(tmp_path, load={"runtime": "catboost"}), planned(tmp_path, python="/usr/bin/python3")):
        assert launch(Converter(), model=model) == model.settings


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 3", "ended with status 3"),
        ('echo \'{"chosen": "onnx"}\'', "ended with status 0"),
        ("echo nonsense", "ended with status 0"),
        ("echo 'OSError: no space left' >&2; exit 1", "OSError: no space left"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_a_conversion_that_ends_badly_is_told_and_not_kept(launch, tmp_path, monkeypatch, program, said):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    settings = launch(module._converted, model=planned(tmp_path))
    assert said in why_not(settings)
    assert not (tmp_path / "cache").exists()


def test_a_conversion_that_takes_too_long_is_not_waited_for_twice(launch, tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 100\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    again, longer = Converter(), Converter()
    for converter in (module._converted, again):
        settings = launch(converter, model=planned(tmp_path, load_max_s=0.2))
        assert "took longer than load_max (0.2 s)" in why_not(settings)
    assert served_from_onnx(launch(longer, model=planned(tmp_path, load_max_s=0.3)))
    assert (again.count, longer.count) == (0, 1)


def test_a_real_process_says_why_a_model_is_not_converted(launch, tmp_path):
    (tmp_path / "model.txt").write_text("no trees at all")
    model = planned(tmp_path)
    settings = launch(module._converted, model=model)
    assert "it can't be converted to ONNX" in why_not(settings)
    (verdict,) = (tmp_path / "cache").rglob("verdict.json")
    assert json.loads(verdict.read_text())["verdict"]["chosen"] == "library"
