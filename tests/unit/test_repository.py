import hashlib
from pathlib import Path

import pytest

from inferd.control.config import desired_state
from inferd.control.resources import observe
from inferd.control.sources.repository import Repository
from inferd.control.sources.repository import discover as discover_files


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


def discover(paths: list[Path], overrides: dict, faults: list[str]) -> Repository:
    """What is found; ``faults`` takes the messages."""
    repository = discover_files(paths, overrides)
    faults += [fault.message for fault in repository.faults]
    return repository


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


CONTENT = {
    "xg.json": '{"learner": {}}',
    "cat.json": '{"features_info": {}}',
    "lgb.txt": "tree\nversion=v4",
    "net.xml": '<?xml version="1.0"?><net name="n">',
    "txt.py": "from inferd import Model\n\nclass Text(Model):\n    def predict(self, x: list[str]): ...\n",
    "arrays.py": "class Arrays:\n    def load(self): ...\n    def predict(self, batch): ...\n",
    "triton.py": "class TritonPythonModel:\n    def execute(self, requests): ...\n",
    "broken.py": "class Broken(Model):\n    def predict(self, x\n",
    "train.py": "import sklearn\n\nclass Guess(BaseEstimator):\n    def predict(self, x): ...\n",
    "a.onnx": "tensor 'embedding.weight' in a.onnx.data",
}


def written(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(CONTENT.get(Path(name).name, ""))
    return root


def notes_of(root, overrides=None):
    faults = []
    repository = discover([root], overrides or {}, faults)
    assert faults == []
    return [model.name for model in repository.models], [note.replace(str(root), ".") for note in repository.notes]


def test_loose_files_of_every_kind_are_models(tmp_path):
    names = ["a.onnx", "lr.skops", "xg.json", "cat.json", "lgb.txt", "net.xml", "t.tflite", "k.keras", "u.ubj", "c.cbm"]
    names += ["txt.py", "arrays.py", "triton.py", "broken.py"]
    models, notes = notes_of(written(tmp_path, *names))
    assert models == sorted(name.split(".")[0] for name in names)
    assert notes == []


def test_what_is_left_out_of_a_folder_is_said_with_the_reason(tmp_path):
    models, notes = notes_of(
        written(
            tmp_path, "a.onnx", "train.py", "rows.csv", "more.json", "a.yaml", "inferd.yml", "m/1/model.onnx", "old.pkl"
        )
    )
    assert models == ["a", "m"]
    assert notes == [
        ".: 'a.yaml', 'inferd.yml' are left out: settings stand in inferd.yaml, or in model.yaml in a model's folder",
        ".: 'more.json', 'rows.csv' are left out: no model is known by the ending or the first bytes",
        notes[2],
        ".: 'train.py' is left out: no class with load() and predict() is in it; name the file itself to serve it",
    ]
    assert notes[2].startswith(".: 'old.pkl' is left out: 'old.pkl' is a pickle: loading it executes any code")
    assert "set trusted_sha256: " in notes[2]


def test_a_file_that_is_trusted_is_served(tmp_path):
    written(tmp_path, "old.pkl", "a.onnx")
    assert notes_of(tmp_path, {"trusted_sha256": hashlib.sha256(b"").hexdigest()}) == (["a", "old"], [])


def test_many_names_are_cut_short(tmp_path):
    _, (note,) = notes_of(written(tmp_path, "a.onnx", *(f"{n}.csv" for n in range(30))))
    assert "and 20 more are left out" in note


def test_what_belongs_to_a_model_or_is_in_every_folder_needs_no_word(tmp_path):
    written(
        tmp_path, "a.onnx", "a.onnx.data", "embedding.weight", "net.xml", "net.bin", "txt.py", "helper.py", "weights.pt"
    )
    (tmp_path / "txt.py").write_text(CONTENT["txt.py"] + "# import helper, torch.load('weights.pt')\n")
    written(
        tmp_path, "README", "README.md", "LICENSE", "notes.rst", "requirements.txt", "requirements-dev.txt", ".hidden"
    )
    written(tmp_path, "pyproject.toml", "uv.lock", "Makefile", "Dockerfile", "__pycache__/x.pyc")
    assert notes_of(tmp_path) == (["a", "net", "txt"], [])


def test_two_loose_files_of_one_name_are_a_fault_with_the_remedy(folder):
    _, faults = found(folder("a.onnx", "a.skops"))
    assert len(faults) == 1
    assert "model 'a' version 1 is also" in faults[0]
    assert "help: give one of them another name" in faults[0]


def test_a_folder_of_which_nothing_can_be_served_says_why(folder):
    (fault,) = found(folder("a.csv", "old.pkl"))[1]
    assert "no models in this folder" in fault
    assert "'a.csv' is left out: no model is known" in fault
    assert "trusted_sha256" in fault


def test_versions_that_are_not_served_are_said(folder):
    root = folder("m/2/model.onnx", "m/9/model.onnx", "m/10/model.onnx")
    assert notes_of(root)[1] == ["./m: versions 2, 9 are left out: versions: latest serves 10"]
    (root / "m" / "model.yaml").write_text("versions: {latest: 2}")
    assert notes_of(root)[1] == ["./m: version 2 is left out: versions: latest serves 9, 10"]
    for chosen in ("versions: all", "versions: [9]"):
        (root / "m" / "model.yaml").write_text(chosen)
        assert notes_of(root)[1] == []


def test_a_model_beside_the_one_that_is_served_is_said(tmp_path):
    written(tmp_path, "m/1/model.onnx", "m/1/model_v2.onnx", "m/1/labels.txt", "m/1/train.py", "m/1/lgb.txt")
    written(tmp_path, "n/model.onnx", "n/v2/model.onnx", "n/txt.py")
    assert notes_of(tmp_path)[1] == [
        "./m/1: 'lgb.txt', 'model_v2.onnx' are left out: 'model.onnx' is the model",
        "./n: 'txt.py', 'v2' are left out: 'model.onnx' is the model",
    ]
    (tmp_path / "m" / "model.yaml").write_text("file: model_v2.onnx")
    assert notes_of(tmp_path)[1] == ["./n: 'txt.py', 'v2' are left out: 'model.onnx' is the model"]


def test_what_a_class_loads_is_not_taken_for_another_model(tmp_path):
    written(tmp_path, "m/1/model.py", "m/1/weights.onnx", "m/1/base.py", "m/1/txt.py")
    (tmp_path / "m/1/model.py").write_text("from base import Base\n\nclass M(Base):\n    ...\n")
    (tmp_path / "m/1/base.py").write_text(CONTENT["arrays.py"])
    assert notes_of(tmp_path)[1] == ["./m/1: 'txt.py' is left out: 'model.py' is the model"]


def test_a_model_beside_its_versions_is_said(tmp_path):
    written(tmp_path, "m/1/model.onnx", "m/model.onnx", "m/labels.txt", "m/README.md")
    assert notes_of(tmp_path)[1] == ["./m: 'model.onnx' is left out: the model is in the folders of its versions"]


def test_settings_that_nobody_reads_are_said(tmp_path):
    written(tmp_path, "m/1/model.onnx", "m/model.yml", "m/1/model.yaml", "m/1/config.pbtxt")
    assert notes_of(tmp_path)[1] == [
        "./m: 'model.yml' is left out: settings stand in inferd.yaml, or in model.yaml in a model's folder",
        "./m/1: 'model.yaml', 'config.pbtxt' are left out: settings stand in inferd.yaml, or in model.yaml in a model's folder",
    ]


def test_settings_of_a_model_that_is_named_by_its_file_are_said_to_be_left_out(tmp_path):
    written(tmp_path, "m/3/model.onnx")
    (tmp_path / "m" / "model.yaml").write_text("replicas: 2")
    faults = []
    repository = discover([tmp_path / "m" / "3" / "model.onnx"], {}, faults)
    (note,) = repository.notes
    assert note.startswith(f"{tmp_path}/m/model.yaml: left out")
    assert f"help: name {tmp_path}/m" in note


def test_models_that_inferd_yaml_does_not_name_are_said(tmp_path):
    written(tmp_path, "a.onnx", "b.onnx", "m/1/model.onnx", "n/1/model.onnx")
    (tmp_path / "inferd.yaml").write_text("models: [a.onnx, m/1/model.onnx]")
    assert notes_of(tmp_path) == (
        ["a", "m"],
        ["./inferd.yaml: 'b.onnx', 'n' beside it are left out: models: does not name them"],
    )
    assert notes_of(tmp_path / "inferd.yaml")[1] == []
    (tmp_path / "inferd.yaml").write_text("models: [.]")
    assert notes_of(tmp_path)[1] == []


def test_a_link_is_called_what_it_is_called(tmp_path):
    written(tmp_path, "blobs/0a1b", "releases/7/1/model.onnx", "repo/README.md")
    (tmp_path / "repo" / "fraud.onnx").symlink_to("../blobs/0a1b")
    (tmp_path / "repo" / "first").symlink_to("../releases/7")
    (tmp_path / "repo" / "second").symlink_to("../releases/7")
    faults = []
    repository = discover([tmp_path / "repo"], {}, faults)
    assert faults == []
    assert [(model.name, model.version) for model in repository.models] == [("fraud", 1), ("first", 1), ("second", 1)]
    assert repository.models[0].file == tmp_path / "repo" / "fraud.onnx"
    (model,) = discover([tmp_path / "repo" / "fraud.onnx"], {}, faults).models
    assert (model.name, model.file.name, model.folder) == ("fraud", "fraud.onnx", tmp_path / "repo")
    (model,) = discover([tmp_path / "repo" / "first"], {}, faults).models
    assert (model.name, model.folder) == ("first", tmp_path / "repo" / "first")
    assert desired_state([tmp_path / "repo" / "fraud.onnx"], {}, {}, observe()).models[0].file.name == "fraud.onnx"


def test_a_link_in_a_folder_of_a_version_is_the_model(tmp_path):
    written(tmp_path, "blobs/0a1b", "m/3/x")
    (tmp_path / "m" / "3" / "model.onnx").symlink_to("../../blobs/0a1b")
    assert found(tmp_path / "m") == ([("m", 3)], [])
    assert found(tmp_path / "m" / "3" / "model.onnx") == ([("m", 3)], [])


def test_the_folder_in_which_one_is_has_its_name(tmp_path, monkeypatch):
    written(tmp_path, "fraud/1/model.onnx")
    monkeypatch.chdir(tmp_path / "fraud")
    assert found(Path()) == ([("fraud", 1)], [])
    monkeypatch.chdir(tmp_path / "fraud" / "1")
    assert found(Path("..")) == ([("fraud", 1)], [])
    assert found(Path("model.onnx")) == ([("fraud", 1)], [])


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
