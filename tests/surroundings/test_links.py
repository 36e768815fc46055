"""What a name led to when a model was loaded is what every later worker serves, whatever happened to it since.

One server has a model for each way in which files are replaced under a running program. They are all replaced at once,
and every worker is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from outside.process import Inferd
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 1 << 19
"""Numbers that make a file too large to be copied."""
MODEL = """
import numpy
from pathlib import Path
import near

class Model:
    inputs = [("x", "FP32", (-1,))]
    outputs = [("y", "FP32", (-1,))]

    def load(self):
        beside = Path(__file__).parent
        self.parts = [OWN, near.VERSION, int((beside / "number.txt").read_text()), int(open("number.txt").read())]
        self.parts.append(len((beside / "large.bin").read_bytes()) % 1000 if (beside / "large.bin").exists() else OWN)

    def predict(self, batch):
        import late
        return {"y": batch["x"] * 0 + numpy.float32("".join(map(str, [*self.parts, late.VERSION])))}
"""


def python(folder: Path, version: int, *, large: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "model.py", MODEL.replace("OWN", str(version)).encode())
    for name in ("near.py", "late.py"):
        replace(folder / name, f"VERSION = {version}\n".encode())
    replace(folder / "number.txt", str(version).encode())
    if large:
        replace(folder / "large.bin", bytes(2_000_000 + version))


def replace(file: Path, data: bytes) -> None:
    """As programs do that mean well: another file takes the name."""
    scratch = file.with_name(f".{file.name}")
    scratch.write_bytes(data)
    scratch.rename(file)


def graph(folder: Path, version: int, *, numbers: int = 4, apart: bool = True) -> None:
    """``y`` is the last of the weights, which are in a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = numpy_helper.from_array(np.full(numbers, version, np.float32), "w")
    nodes = [
        helper.make_node("ReduceMax", ["w"], ["m"], keepdims=0),
        helper.make_node("Mul", ["x", "zero"], ["o"]),
        helper.make_node("Add", ["o", "m"], ["y"]),
    ]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    made = helper.make_model(
        helper.make_graph(nodes, "g", sides[:1], sides[1:], [weights, zero]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=9,
    )
    scratch = folder / ".made"
    scratch.mkdir()
    onnx.save_model(
        made,
        scratch / "model.onnx",
        save_as_external_data=apart,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    for file in scratch.iterdir():
        file.rename(folder / file.name)
    scratch.rmdir()


def swing(link: Path, target: str) -> None:
    """Let a link lead elsewhere, at once."""
    scratch = link.with_name(f".{link.name}")
    scratch.symlink_to(target)
    scratch.rename(link)


class Volume:
    """A ConfigMap as kubelet mounts it: every name leads through ``..data`` to a folder of its time, which goes."""

    def __init__(self, folder: Path, make: Callable[[Path, int], None]) -> None:
        self.folder, self.make = folder, make
        folder.mkdir(parents=True)
        make(folder / "..1", 1)
        (folder / "..data").symlink_to("..1")
        for file in (folder / "..1").iterdir():
            (folder / file.name).symlink_to(f"..data/{file.name}")

    def change(self) -> None:
        self.make(self.folder / "..2", 2)
        swing(self.folder / "..data", "..2")
        shutil.rmtree(self.folder / "..1")


class GitSync:
    """A working tree behind a link; the old one is removed."""

    def __init__(self, folder: Path, make: Callable[[Path, int], None]) -> None:
        self.folder, self.make = folder, make
        make(folder / ".worktrees" / "1", 1)
        (folder / "current").symlink_to(".worktrees/1")

    def change(self) -> None:
        self.make(self.folder / ".worktrees" / "2", 2)
        swing(self.folder / "current", ".worktrees/2")
        shutil.rmtree(self.folder / ".worktrees" / "1")


class HubCache:
    """A snapshot whose files are links to blobs that are called otherwise."""

    def __init__(self, folder: Path, make: Callable[[Path, int], None]) -> None:
        self.folder, self.make = folder, make
        (folder / "blobs").mkdir(parents=True)
        self.snapshot = folder / "snapshots" / "main"
        self.snapshot.mkdir(parents=True)
        self._fill(1)

    def _fill(self, version: int) -> None:
        self.make(self.folder / "made", version)
        for number, file in enumerate(sorted((self.folder / "made").iterdir())):
            blob = self.folder / "blobs" / f"{version:032x}{number}"
            file.rename(blob)
            swing(self.snapshot / file.name, f"../../blobs/{blob.name}")
        (self.folder / "made").rmdir()

    def change(self) -> None:
        self._fill(2)
        for blob in (self.folder / "blobs").glob(f"{1:032x}*"):
            blob.unlink()


class Plain:
    """No links: files are renamed over others, written in place, or deleted with their folder."""

    def __init__(self, folder: Path, make: Callable[[Path, int], None], how: str) -> None:
        self.folder, self.make, self.how = folder, make, how
        make(folder, 1)

    def change(self) -> None:
        if self.how == "deleted":
            shutil.rmtree(self.folder)
            return
        if self.how == "tree":
            self.make(self.folder, 2)
            return
        other = self.folder.parent.with_name("other") / self.folder.name
        self.make(other, 2)
        for file in other.iterdir():
            if self.how == "in place":
                (self.folder / file.name).write_bytes(file.read_bytes())
            else:
                file.rename(self.folder / file.name)


def large_python(folder: Path, version: int) -> None:
    python(folder, version, large=True)


def large_graph(folder: Path, version: int) -> None:
    graph(folder, version, numbers=LARGE)


def large_alone(folder: Path, version: int) -> None:
    graph(folder, version, numbers=LARGE, apart=False)


def triton(folder: Path, version: int) -> None:
    """A repository's model: what versions share stands beside them."""
    (folder / "1").mkdir(parents=True, exist_ok=True)
    tensor = '[ { name: "%s" data_type: TYPE_FP32 dims: [ -1 ] } ]'
    replace(folder / "config.pbtxt", f'backend: "python"\ninput {tensor % "x"}\noutput {tensor % "y"}\n'.encode())
    replace(folder / "shared.py", f"VERSION = {version}\n".encode())
    replace(
        folder / "1" / "model.py",
        f"""
import numpy, shared
import triton_python_backend_utils as utils
class TritonPythonModel:
    def execute(self, requests):
        from . import late
        value = numpy.float32({version}{version} + 0 * shared.VERSION) * 10 + shared.VERSION
        return [utils.InferenceResponse([utils.Tensor("y", numpy.full(1, value * 10 + late.VERSION, numpy.float32))]) for _ in requests]
""".encode(),
    )
    replace(folder / "1" / "late.py", f"VERSION = {version}\n".encode())


# By the model's name: how it is replaced, the path that is served, what it answers as it was loaded.
def worlds(root: Path) -> dict[str, tuple[Volume | GitSync | HubCache | Plain, str, float]]:
    return {
        "volume_python": (Volume(root / "volume_python", python), "model.py", 111111),
        "volume_onnx": (Volume(root / "volume_onnx", graph), "model.onnx", 1),
        "volume_large": (Volume(root / "volume_large", large_graph), "model.onnx", 1),
        "git_python": (GitSync(root / "git_python", large_python), "current/model.py", 111111),
        "git_onnx": (GitSync(root / "git_onnx", large_alone), "current/model.onnx", 1),
        "hub_onnx": (HubCache(root / "hub_onnx", large_graph), "snapshots/main/model.onnx", 1),
        "hub_python": (HubCache(root / "hub_python", python), "snapshots/main/model.py", 111111),
        "replaced_python": (Plain(root / "replaced_python", large_python, "renamed"), "model.py", 111111),
        "replaced_onnx": (Plain(root / "replaced_onnx", large_alone, "renamed"), "model.onnx", 1),
        "deleted_python": (Plain(root / "deleted_python", python, "deleted"), "model.py", 111111),
        "deleted_onnx": (Plain(root / "deleted_onnx", graph, "deleted"), "model.onnx", 1),
        "written_python": (Plain(root / "written_python", python, "in place"), "model.py", 111111),
        "written_onnx": (Plain(root / "written_onnx", graph, "in place"), "model.onnx", 1),
        "triton": (Plain(root / "triton", triton, "tree"), "", 1111),
    }


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Inferd]]:
    """Makes a server of models by name; when it has ended, nothing that it laid out is left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))

    def make(paths: dict[str, Path], defaults: str = "replicas: 1") -> Inferd:
        lines = ["server: {gateway_threads: 1}", f"defaults: {{threads: 1, profiling: false, {defaults}}}", "models:"]
        lines += [f"- {{path: {path}, name: {name}}}" for name, path in paths.items()]
        (tmp_path / "inferd.yaml").write_text("\n".join(lines))
        return Inferd(tmp_path / "run", tmp_path / "inferd.yaml")

    yield make
    laid_out = [*scratch.glob("inferd-*"), *Path("/dev/shm").glob("inferd-*")]
    assert laid_out == [], "a view is left"


def ask(server: Inferd, model: str) -> httpx.Response:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [5]}]}
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=60)


def answer(server: Inferd, model: str) -> float:
    response = ask(server, model)
    assert response.status_code == 200, f"{response.text}\n{server.log()}"
    return response.json()["outputs"][0]["data"][0]


def kill_workers(server: Inferd) -> None:
    before = set(server.workers())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not before & set(server.workers()), "the end of the workers", 10)


def changes_told(server: Inferd, name: str) -> list[str]:
    lines = server.log().splitlines()
    return [line for line in lines if f'model="{name}"' in line and "changed since the model was loaded" in line]


def test_every_worker_serves_what_was_loaded_first(tmp_path: Path, start: Callable[..., Inferd]) -> None:
    made = worlds(tmp_path / "models")
    right = {name: answer_ for name, (*_, answer_) in made.items()}
    with start({name: world.folder / path for name, (world, path, _) in made.items()}) as server:
        assert {name: answer(server, name) for name in made} == right
        for world, _, _ in made.values():
            world.change()
        # Workers that run import nothing that is newer than they are.
        assert {name: answer(server, name) for name in made} == right
        for _ in range(2):
            kill_workers(server)
            assert {name: answer(server, name) for name in made} == right
        for name in made:
            assert changes_told(server, name), f"nothing is said of {name}\n{server.log()}"


def test_no_request_meets_two_versions_while_links_swing(tmp_path: Path, start: Callable[..., Inferd]) -> None:
    made = {"python": Volume(tmp_path / "python", python), "onnx": Volume(tmp_path / "onnx", graph)}
    right = {"python": 111111, "onnx": 1}
    files = {"python": made["python"].folder / "model.py", "onnx": made["onnx"].folder / "model.onnx"}
    seen: dict[str, list[httpx.Response]] = {name: [] for name in made}
    over = threading.Event()

    def keep_asking(name: str) -> None:
        while not over.is_set():
            seen[name].append(ask(server, name))

    with start(files, "replicas: 2") as server:
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(keep_asking, name) for name in (*made, *made)]
            try:
                for act in (lambda: [world.change() for world in made.values()], lambda: kill_workers(server)):
                    counts = {name: len(answers) for name, answers in seen.items()}
                    act()
                    wait_for(
                        lambda counts=counts: all(len(seen[name]) > count + 20 for name, count in counts.items()),
                        "answers after that",
                    )
            finally:
                over.set()
            for one in asking:
                one.result()
    for name, answers in seen.items():
        assert {one.status_code for one in answers} == {200}, [one.text for one in answers if one.status_code != 200][
            :3
        ]
        assert {one.json()["outputs"][0]["data"][0] for one in answers} == {right[name]}


def test_a_model_that_is_replaced_while_it_is_loaded_is_loaded_again(
    tmp_path: Path, start: Callable[..., Inferd]
) -> None:
    """The model itself lets the link swing, at the worst moment: after its sources were read, before its data."""
    folder = tmp_path / "m"
    text = MODEL.replace(
        "        beside = Path",
        f"""        data = Path({str(folder)!r}, "..data")
        if str(data.readlink()) == "..1":
            data.with_name("new").symlink_to("..2")
            data.with_name("new").rename(data)
        beside = Path""",
    )

    def make(place: Path, version: int) -> None:
        python(place, version)
        (place / "model.py").write_text(text.replace("OWN", str(version)))

    world = Volume(folder, make)
    world.make(folder / "..2", 2)
    with start({"m": folder / "model.py"}) as server:
        assert answer(server, "m") == 111111
        assert "its files were replaced while they were loaded" in server.log()
        kill_workers(server)
        assert answer(server, "m") == 111111


def booster(folder: Path, version: int) -> None:
    """``version`` for each row, and as much again where the first column is positive."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    data = lightgbm.Dataset(x, version * (1.0 + (x[:, 0] > 0)))
    made = lightgbm.train({"verbose": -1, "learning_rate": 1.0, "num_leaves": 2, "num_threads": 1}, data, 1)
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "model.lgb", made.model_to_string().encode())


def test_a_model_of_a_library_and_what_it_was_converted_to_are_kept(
    tmp_path: Path, start: Callable[..., Inferd], cache: Path
) -> None:
    made = {name: Volume(tmp_path / name, booster) for name in ("library", "converted")}

    def answers(server: Inferd) -> list[float]:
        body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [3, 3]}]}
        found = [httpx.post(f"{server.url}/v2/models/{name}/infer", json=body, timeout=60).json() for name in made]
        return [round(one["outputs"][0]["data"][0], 3) for one in found]

    paths = {"library": f"{made['library'].folder / 'model.lgb'}, faster: false"}
    with start({**paths, "converted": made["converted"].folder / "model.lgb"}) as server:
        assert "lightgbm" in server.output().lower()
        assert "onnxruntime" in server.output()
        assert answers(server) == [2, 2]
        for world in made.values():
            world.change()
        # As somebody does who needs room.
        shutil.rmtree(cache)
        kill_workers(server)
        assert answers(server) == [2, 2]
        assert all(changes_told(server, name) for name in made)


def test_a_large_file_that_is_written_to_in_place_is_refused_and_said(
    tmp_path: Path, start: Callable[..., Inferd]
) -> None:
    made = {
        "alone": Plain(tmp_path / "alone", large_alone, "in place"),
        "apart": Plain(tmp_path / "apart", large_graph, "in place"),
        "named": Plain(tmp_path / "named", large_python, "in place"),
    }
    files = {name: world.folder / ("model.py" if name == "named" else "model.onnx") for name, world in made.items()}
    small = Plain(tmp_path / "small", python, "in place")
    with start({**files, "small": small.folder / "model.py"}) as server:
        for world in made.values():
            world.change()
        kill_workers(server)
        assert answer(server, "small") == 111111
        for name, gone in (("alone", "model.onnx"), ("apart", "weights.bin"), ("named", "large.bin")):
            refused = ask(server, name)
            assert refused.status_code == 503, refused.text
            reason = f"'{made[name].folder / gone}' was overwritten in place after the model was loaded; its loaded content is gone"
            wait_for(lambda reason=reason: reason in server.log(), reason)


def test_what_only_looks_changed_is_not_said_to_be(tmp_path: Path, start: Callable[..., Inferd]) -> None:
    """Touched, checked out again, or the model's own: files that it writes go on where they are."""
    folder = tmp_path / "m"
    python(folder, 1)
    text = (folder / "model.py").read_text()
    text = text.replace("        import late\n", "        import late\n        open('served.log', 'a').write('+')\n")
    (folder / "model.py").write_text(text)
    (folder / "served.log").write_text("")
    # Nothing names it: another's data, that grows.
    (folder / "table.csv").write_bytes(bytes(2_000_000))
    graph(tmp_path / "g", 1)
    with start({"m": folder / "model.py", "g": tmp_path / "g" / "model.onnx"}) as server:
        assert answer(server, "m") == 111111
        for file in (*folder.iterdir(), *(tmp_path / "g").iterdir()):
            if file.is_file() and file.suffix != ".log":
                replace(file, file.read_bytes())
        with (folder / "table.csv").open("ab") as table:
            table.write(b"more")
        kill_workers(server)
        assert (answer(server, "m"), answer(server, "g")) == (111111, 1)
        assert not changes_told(server, "m") + changes_told(server, "g")
        (folder / "near.py").write_text("VERSION = 2\n")
        kill_workers(server)
        before = len((folder / "served.log").read_text())
        assert answer(server, "m") == 111111
        assert changes_told(server, "m")
        assert len((folder / "served.log").read_text()) > before


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], check=False).returncode != 0,
    reason="mounting needs rights that this user lacks",
)
def test_where_nothing_can_be_laid_out_a_changed_model_is_refused_and_an_unchanged_one_is_served(
    tmp_path: Path, start: Callable[..., Inferd]
) -> None:
    python(tmp_path / "changed", 1)
    python(tmp_path / "unchanged", 1)
    server = start({name: tmp_path / name / "model.py" for name in ("changed", "unchanged")})
    # Full and read-only: no room for a view anywhere.
    mounts = (
        "mount -t tmpfs -o size=4k,nr_inodes=2 none $TMPDIR && touch $TMPDIR/full"
        " && mount -t tmpfs -o size=256m none /dev/shm && mount -o remount,ro /dev/shm"
    )
    with server.within("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh"):
        python(tmp_path / "changed", 2)
        # What runs goes on as it was.
        assert answer(server, "changed") == 111111
        kill_workers(server)
        assert answer(server, "unchanged") == 111111
        refused = ask(server, "changed")
        assert refused.status_code == 503, refused.text
        wait_for(lambda: "their kept content can't be written" in server.log(), "the reason")
        assert "free space in TMPDIR" in server.log()
