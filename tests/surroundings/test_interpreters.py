"""A model in Python finds the modules that its file finds when the same interpreter runs it as a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import inferd
from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = (
    "in_user_site",
    "in_pth",
    "in_pythonpath",
    "in_env_path",
    "beside",
    "beside_target",
    "in_cwd",
    "resource",
    "absent",
)
MODEL = f"""
import importlib, json, resource

def found():
    origins = {{}}
    for name in {NAMES!r}:
        try:
            origins[name] = getattr(importlib.import_module(name), "__file__", None)
        except ImportError:
            origins[name] = None
    return origins

class Model:
    inputs = [("x", "BYTES", (-1,))]
    outputs = [("y", "BYTES", (-1,))]

    def load(self):
        self.found = json.dumps(found()).encode()

    def predict(self, batch):
        import numpy
        return {{"y": numpy.array([self.found] * len(batch["x"]), dtype=object)}}

if __name__ == "__main__":
    print(json.dumps(found()))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two interpreters, a home with packages, folders of modules, and a model in a folder of its own, and linked."""
    world = tmp_path_factory.mktemp("world")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = world / "home" / ".local" / "lib" / version / "site-packages"
    for folder in (
        user,
        world / "pth",
        world / "path",
        world / "env",
        world / "model",
        world / "linked",
        world / "run",
    ):
        folder.mkdir(parents=True)
    (user / "extra.pth").write_text(f"{world / 'pth'}\n")
    for name, folder in (
        ("in_user_site", user),
        ("in_pth", world / "pth"),
        ("in_pythonpath", world / "path"),
        ("in_env_path", world / "env"),
        ("beside", world / "linked"),
        ("beside_target", world / "model"),
        # The worker itself has imported the module of this name that Python ships.
        ("resource", world / "model"),
        ("in_cwd", world / "run"),
    ):
        (folder / f"{name}.py").write_text("")
    (world / "model" / "m.py").write_text(MODEL)
    (world / "linked" / "m.py").symlink_to(world / "model" / "m.py")
    where = f"{Path(inferd.__file__).parents[1]}\n{sysconfig.get_paths()['purelib']}\n"
    for name, shared in (("open", True), ("closed", False)):
        # Not from the virtual environment that runs the tests: it keeps the user's packages out.
        made = venv.EnvBuilder(system_site_packages=shared, symlinks=True)
        made.create(world / name)
        (world / name / "lib" / version / "site-packages" / "inferd.pth").write_text(where)
    models = [
        {
            "path": str(world / "model" / "m.py"),
            "name": f"{name}_{kind}",
            "python": str(world / name / "bin" / "python"),
        }
        | ({} if kind == "plain" else {"env": {"PYTHONPATH": str(world / "env"), "PYTHONNOUSERSITE": "1"}})
        for name in ("open", "closed")
        for kind in ("plain", "env")
    ]
    models.append(
        {"path": str(world / "linked" / "m.py"), "name": "linked", "python": str(world / "open" / "bin" / "python")}
    )
    (world / "inferd.yaml").write_text(json.dumps({"models": models}))
    return world


@pytest.fixture(scope="module")
def server(world: Path) -> Iterator[Inferd]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(world / "home"))
        # The server itself needs what the tests run with.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(world / "path"), str(Path(inferd.__file__).parents[1])]))
        with Inferd(world / "run", world / "inferd.yaml", "--threads", "1", "--no-profiling") as server:
            yield server


def asked(url: str, model: str) -> str:
    body = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}
    answer = httpx.post(f"{url}/v2/models/{model}/infer", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


@pytest.mark.parametrize("name", ["open_plain", "open_env", "closed_plain", "closed_env", "linked"])
def test_a_model_finds_what_its_script_finds(world: Path, server: Inferd, name: str) -> None:
    environment = {
        **os.environ,
        "HOME": str(world / "home"),
        "PYTHONPATH": os.pathsep.join([str(world / "path"), str(Path(inferd.__file__).parents[1])]),
    }
    if name.endswith("_env"):
        environment |= {"PYTHONPATH": str(world / "env"), "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    python = world / name.partition("_")[0].replace("linked", "open") / "bin" / "python"
    file = world / ("linked" if name == "linked" else "model") / "m.py"
    script = subprocess.run(
        [python, file], env=environment, cwd=world / "run", check=True, capture_output=True, text=True
    )
    expected = json.loads(script.stdout)
    served = json.loads(asked(server.url, name))
    assert expected["absent"] is expected["in_cwd"] is None
    assert expected["beside_target"]
    if name == "linked":
        # Beside the link, where a script does not look and a model does: caches keep a file apart from its siblings.
        assert served.pop("beside") == str(world / "linked" / "beside.py")
        assert expected.pop("beside") is None
    assert served == expected
    if name == "open_plain":
        assert all(served[one] for one in ("in_user_site", "in_pth", "in_pythonpath"))
    if name.endswith("_env"):
        assert served["in_env_path"]
        assert served["in_pythonpath"] is None


def test_the_check_looks_where_the_worker_looks(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.py").write_text(f"import in_user_site, in_pth\n{MODEL}")
    monkeypatch.setenv("HOME", str(world / "home"))
    for name, status in (("open", 0), ("closed", 1)):
        line = [sys.executable, "-m", "inferd", "check", tmp_path / "m.py", "--python", world / name / "bin" / "python"]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        assert status == 0 or "No module named 'in_user_site'" in done.stderr
