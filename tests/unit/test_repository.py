from pathlib import Path

import pytest

from inferd.control.repository import discover


@pytest.fixture
def folder(tmp_path):
    """Make files; their content does not matter here."""

    def make(*names: str, **texts: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        for name, text in texts.items():
            (tmp_path / name.replace("__", "/")).with_suffix(".yaml").write_text(text)
        return tmp_path

    return make


def found(*paths, overrides=None):
    faults = []
    repository = discover(list(paths), overrides or {}, faults)
    return [(model.name, model.version) for model in repository.models], faults


def test_a_lone_file_is_version_1_of_a_model_with_its_name(folder):
    assert found(folder("fraud.onnx") / "fraud.onnx") == ([("fraud", 1)], [])
    assert found(folder("iris.py") / "iris.py") == ([("iris", 1)], [])


def test_a_file_inside_a_repository_keeps_its_model_and_version(folder):
    assert found(folder("fraud/3/model.onnx") / "fraud/3/model.onnx") == ([("fraud", 3)], [])


def test_the_latest_version_is_the_greatest_number(folder):
    root = folder("m/2/model.onnx", "m/9/model.onnx", "m/10/model.onnx")
    assert found(root) == ([("m", 10)], [])
    assert found(root / "m") == ([("m", 10)], [])


@pytest.mark.parametrize(
    ("versions", "served"), [("all", [2, 9, 10]), ("{latest: 2}", [9, 10]), ("[2, 10]", [2, 10]), ("latest", [10])]
)
def test_versions_are_served_as_model_yaml_says(folder, versions, served):
    root = folder("m/2/model.onnx", "m/9/model.onnx", "m/10/model.onnx", m__model=f"versions: {versions}")
    assert found(root) == ([("m", version) for version in served], [])


def test_hidden_files_and_notes_are_passed_over(folder):
    assert found(folder("m/1/model.onnx", "m/.cache/x", "m/__pycache__/x", "README.md", ".git/x")) == ([("m", 1)], [])


def test_a_model_without_version_folders_is_version_1(folder):
    root = folder("a/model.onnx", "b/model.py")
    assert found(root) == ([("a", 1), ("b", 1)], [])
    assert found(root / "a") == ([("a", 1)], [])


def test_a_model_of_several_files_is_a_folder_of_the_files_name(folder):
    faults = []
    (model,) = discover([folder("m/1/model.onnx/model.onnx", "m/1/model.onnx/weights.bin")], {}, faults).models
    assert faults == []
    assert model.file.parts[-3:] == ("1", "model.onnx", "model.onnx")


def test_loose_files_in_a_folder_are_models(folder):
    assert found(folder("a.onnx", "b.onnx")) == ([("a", 1), ("b", 1)], [])


def test_settings_of_files_stand_below_those_of_the_command_line(folder):
    root = folder(
        "m/1/model.onnx",
        m__model="replicas: 2\nthreads: 2\npin: true",
        inferd="defaults: {threads: 1, linger: false}\nmodels:\n  - {path: m, replicas: 3}\nserver: {port: 7}",
    )
    faults = []
    repository = discover([root], {"pin": False}, faults)
    assert faults == []
    assert repository.server == {"port": 7}
    assert repository.models[0].given == {"threads": 2, "linger": False, "replicas": 3, "pin": False}


@pytest.mark.parametrize(
    ("names", "path", "words"),
    [
        (["empty/.keep"], "empty", ["no models in this folder", "<name>/<version>/model.onnx"]),
        (["m/v1/model.onnx"], ".", ["'v1' is no version", "positive numbers"]),
        (["m/01/model.onnx"], ".", ["'01' is no version"]),
        (["m/0/model.onnx"], ".", ["'0' is no version"]),
        (["m/1/other.onnx"], ".", ["there is no model.onnx, model.py", "file: in model.yaml"]),
        (["m/1/model.onnx", "m/1/model.py"], ".", ["both model.onnx and model.py", "file: in model.yaml"]),
        (["m/notes.txt"], ".", ["no versions in this folder", "1/model.onnx"]),
        (["m.txt"], "m.txt", ["is no model", "set runtime:"]),
        ([], "absent", ["no such file"]),
        (["m.onnx", "m/1/model.onnx"], ".", ["model 'm' version 1 is also", "another name"]),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_the_remedy(folder, names, path, words):
    faults = found(folder(*names) / path)[1]
    assert len(faults) == 1
    assert all(word in faults[0] for word in words), faults


def test_a_version_that_is_asked_for_and_not_there_is_a_fault(folder):
    faults = found(folder("m/1/model.onnx", m__model="versions: [1, 7]"))[1]
    assert len(faults) == 1
    assert "versions [7] are asked for; there are 1" in faults[0]


def test_a_path_in_inferd_yaml_is_relative_to_it_and_named_with_its_line(folder):
    root = folder("sub/a.onnx", inferd="models:\n  - sub/a.onnx\n  - sub/b.onnx\n")
    models, faults = found(root / "inferd.yaml")
    assert models == [("a", 1)]
    assert len(faults) == 1
    assert faults[0].startswith(f"{root}/inferd.yaml:3: there is no")
