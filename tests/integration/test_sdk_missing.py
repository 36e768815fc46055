"""Values that are missing, on their way to methods that take them and to those that don't, over JSON and the client."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

import inferd

TAKES = """
from inferd import Model

class Takes(Model):
    def predict(self, name: list[str | None], age: list[float | None], city: list[str | None] = None) -> list[str]:
        return [f"{one}|{years}|{where}" for one, years, where in zip(name, age, city, strict=True)]
"""

BY_ROW = """
from inferd import Model

class ByRow(Model):
    def predict(self, name: str | None, age: float | None) -> str:
        return f"{name}|{age}"
"""

HOOKED = """
from inferd import Model

class Hooked(Model):
    def preprocess(self, name: list[str | None], age: list[float | None]) -> list[str]:
        return [f"{one}|{years}" for one, years in zip(name, age, strict=True)]

    def predict(self, text: list[str]) -> list[str]:
        return text
"""

STRICT = """
from inferd import Model

class Strict(Model):
    def predict(self, name: list[str], age: list[float]) -> list[str]:
        return [f"{one}|{years}" for one, years in zip(name, age, strict=True)]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    for name, text in (("takes", TAKES), ("by_row", BY_ROW), ("hooked", HOOKED), ("strict", STRICT)):
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        # A folder of loose files: each is a model.
        with inferd.Server(folder, threads=1, profiling=False) as server:
            yield server


def ask(server, model, names, ages):
    inputs = [
        {"name": "name", "datatype": "BYTES", "shape": [len(names)], "data": names},
        {"name": "age", "datatype": "FP64", "shape": [len(ages)], "data": ages},
    ]
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": inputs}, timeout=30)
    body = answer.json()
    return answer.status_code, body["outputs"][0]["data"] if answer.status_code == 200 else body["error"]


def found(model):
    more = "|None" if model == "takes" else ""
    return [f"Eva|None{more}", f"None|3.0{more}"]


@pytest.mark.parametrize("model", ["takes", "by_row", "hooked"])
def test_what_is_missing_is_none_to_a_method_that_asks_for_it(server, model):
    assert ask(server, model, ["Eva", None], [None, 3]) == (200, found(model))
    plain = httpx.post(f"{server.url}/models/{model}", json={"name": ["Eva", None], "age": [None, 3]}, timeout=30)
    assert plain.json() == found(model)
    for url in (server.url, f"grpc://{server.address}"):
        with inferd.Client(url) as client:
            answer = client.infer(model, {"name": ["Eva", None], "age": np.array([np.nan, 3])})
        assert [text.decode() for text in answer["output"]] == found(model)


def test_what_is_missing_does_not_reach_a_method_that_did_not_ask(server):
    status, message = ask(server, "strict", ["Eva", None], [1, 2])
    assert status == 400
    assert "row 1" in message
    assert "name" in message
    for url in (server.url, f"grpc://{server.address}"):
        with (
            inferd.Client(url) as client,
            pytest.raises(inferd.InvalidInput, match=r"row 1: input 'name': the text is missing"),
        ):
            client.infer("strict", {"name": ["Eva", None], "age": [1, 2]})
    # NaN is a number like others.
    assert ask(server, "strict", ["Eva"], [None]) == (200, ["Eva|nan"])
