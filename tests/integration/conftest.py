"""Servers that many tests share, and the assurance that none leaves anything behind."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from outside import models
from outside.clients import KINDS, Client
from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model files that every test may serve: ``busy.onnx``, ``moody.py``, ``identity.onnx``."""
    folder = tmp_path_factory.mktemp("files")
    models.busy(folder / "busy.onnx")
    models.moody(folder / "moody.py")
    models.identity(folder / "identity.onnx", "FP32", ["n", 4])
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    """A server with an identity for every datatype, a model of two inputs, and one with two versions."""
    folder = tmp_path_factory.mktemp("zoo")
    for datatype in models.ONNX_TYPES:
        models.identity(folder / f"identity_{datatype.lower()}" / "1" / "model.onnx", datatype, ["n", "m"])
    models.identity(folder / "four" / "1" / "model.onnx", "FP32", ["n", 4])
    models.add_sub(folder / "add_sub" / "1" / "model.onnx")
    for version in ("2", "10"):
        models.identity(folder / "versioned" / version / "model.onnx", "FP32", ["n", 4])
    (folder / "versioned" / "model.yaml").write_text("versions: all\n")
    with Inferd(tmp_path_factory.mktemp("zoo_run"), folder, "--threads", "1", "--no-profiling") as server:
        yield server


@pytest.fixture(scope="session", params=KINDS)
def client(request: pytest.FixtureRequest, zoo: Inferd) -> Iterator[Client]:
    """Each of tritonclient's four clients, connected to the zoo."""
    with Client(request.param, zoo.address) as connected:
        yield connected


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Inferd]:
    """Makes a server of one's own: ``with serve(files / "busy.onnx", "--replicas", "2") as server``."""
    count = itertools.count()

    def make(*arguments: str | Path) -> Inferd:
        return Inferd(tmp_path / f"server{next(count)}", *arguments)

    return make
