"""Inputs that a request may leave out: from a setting, from an initializer, from a method's default."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from openapi_spec_validator import validate

import inferd
from outside import models
from outside.clients import Client
from outside.traffic import send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORTEN = """
from inferd import Model


class Shorten(Model):
    def predict(self, text: list[str], top: list[int] = 2) -> list[str]:
        return [one[:count] for one, count in zip(text, top)]
"""

BY_ROW = """
from inferd import Model


class Say(Model):
    def predict(self, text: str, times: int = 2, mark: str = "!") -> str:
        return text * times + mark
"""

STAGED = """
from inferd import Model


class Staged(Model):
    def preprocess(self, text: list[str], suffix: list[str] = "…") -> list:
        return [one + end for one, end in zip(text, suffix)]

    def predict(self, whole: list[str]) -> list[str]:
        return [one.upper() for one in whole]
"""


TOGETHER = """
from inferd import Model


class Together(Model):
    def predict(self, text: list[str], top: list[int] = 2) -> list[int]:
        return [len(set(top))] * len(text)
"""


def make(folder: Path) -> Path:
    for name, text in (("shorten", SHORTEN), ("say", BY_ROW), ("staged", STAGED)):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(text)
    models.add_sub(folder / "add_sub" / "1" / "model.onnx")
    (folder / "add_sub" / "model.yaml").write_text("optional: {b: [1, 2, 3, 4]}")
    models.scaled(folder / "rows" / "1" / "model.onnx", ["n", 1], np.array([[3]]))
    (folder / "rows" / "model.yaml").write_text("optional: {factor: null}")
    models.scaled(folder / "whole" / "1" / "model.onnx", [1], np.array([3]))
    (folder / "whole" / "model.yaml").write_text("optional: {factor: 5}")
    models.scaled(folder / "hidden" / "1" / "model.onnx", [1], np.array([3]))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[inferd.Server]:
    folder = make(tmp_path_factory.mktemp("optional"))
    with inferd.Server(folder, threads=1, profiling=False) as server:
        yield server


@pytest.fixture(scope="module", params=["http", "grpc"])
def asked(request: pytest.FixtureRequest, server: inferd.Server) -> Iterator[Client]:
    with Client(request.param, server.url.removeprefix("http://")) as connected:
        yield connected


def texts(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def test_a_default_stands_for_every_row_of_a_request_that_leaves_it_out(asked: Client) -> None:
    text = asked.input("text", texts("abcd", "efgh"), "BYTES")
    assert asked.infer("shorten", [text]).as_numpy("output").tolist() == [b"ab", b"ef"]
    top = asked.input("top", np.array([1, 3]), "INT64")
    assert asked.infer("shorten", [text, top]).as_numpy("output").tolist() == [b"a", b"efg"]
    assert asked.infer("say", [text]).as_numpy("output").tolist() == [b"abcdabcd!", b"efghefgh!"]


def test_a_setting_gives_a_model_a_default(asked: Client) -> None:
    a = np.arange(8, dtype=np.int32).reshape(2, 4)
    answer = asked.infer("add_sub", [asked.input("a", a, "INT32")])
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + np.array([1, 2, 3, 4]))
    status, message = asked.refusal("infer", "add_sub", [asked.input("b", a, "INT32")])
    assert (status, "input 'a' is missing" in message) == (400, True)


def test_an_initializer_is_the_default_of_the_input_of_its_name(asked: Client) -> None:
    x = np.ones((2, 4), np.float32)
    one = asked.input("x", x, "FP32")
    assert asked.infer("rows", [one]).as_numpy("y").tolist() == (3 * x).tolist()
    factors = asked.input("factor", np.array([[2], [7]], np.float32), "FP32")
    assert asked.infer("rows", [one, factors]).as_numpy("y")[:, 0].tolist() == [2, 7]
    assert asked.infer("whole", [one]).as_numpy("y")[0, 0] == 5
    assert asked.infer("hidden", [one]).as_numpy("y")[0, 0] == 3
    factor = asked.input("factor", np.array([2], np.float32), "FP32")
    assert asked.infer("whole", [one, factor]).as_numpy("y")[0, 0] == 2
    assert "unknown input 'factor'" in asked.refusal("infer", "hidden", [one, factor])[1]


def test_a_default_for_each_row_keeps_batching_and_the_configuration_says_what_may_be_left_out(asked: Client) -> None:
    config = asked.describe("get_model_config", "rows")
    config = config.get("config", config)
    assert int(config["max_batch_size"]) == 32
    assert [one.get("optional", False) for one in config["input"]] == [False, True]
    listed = asked.describe("get_model_metadata", "rows")["inputs"]
    assert [one["name"] for one in listed] == ["x", "factor"]


def post(server: inferd.Server, path: str, body: object) -> object:
    answer = httpx.post(f"{server.url}{path}", content=json.dumps(body), timeout=30)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("shorten", "abcd", "ab"),
        ("shorten", ["abcd", "efgh"], ["ab", "ef"]),
        ("shorten", {"text": "abcd", "top": 3}, "abc"),
        ("shorten", {"text": ["abcd", "efgh"]}, ["ab", "ef"]),
        ("staged", "a", "A…"),
        ("staged", {"text": ["a", "b"], "suffix": [".", ","]}, ["A.", "B,"]),
        ("say", "ab", "abab!"),
        ("whole", [[1, 1, 1, 1]], [[5.0] * 4]),
    ],
)
def test_plain_requests_may_leave_it_out(server: inferd.Server, model: str, body: object, expected: object) -> None:
    assert post(server, f"/models/{model}", body) == expected


def test_instances_leave_it_out_all_or_none(server: inferd.Server) -> None:
    path = "/v1/models/shorten:predict"
    assert post(server, path, {"instances": ["abcd", "efgh"]}) == {"predictions": ["ab", "ef"]}
    assert post(server, path, {"instances": [{"text": "abcd"}]}) == {"predictions": ["ab"]}
    assert post(server, path, {"instances": [{"text": "abcd", "top": 1}]}) == {"predictions": ["a"]}
    some = post(server, path, {"instances": [{"text": "abcd", "top": 1}, {"text": "efgh"}]})
    assert some == (400, "'top' is given in some of the rows; give it in all of them or in none")


def test_generate_may_leave_it_out(server: inferd.Server) -> None:
    answer = post(server, "/v2/models/shorten/generate", {"text": "abcd"})
    assert isinstance(answer, dict)
    assert answer["output"] == "ab"


def test_openapi_does_not_require_it(server: inferd.Server) -> None:
    described = httpx.get(f"{server.url}/openapi.json", timeout=30).json()
    validate(described)
    content = described["paths"]["/models/shorten"]["post"]["requestBody"]["content"]
    forms = content["application/json"]["schema"]["oneOf"]
    objects = [form for form in forms if form.get("type") == "object"]
    assert [form["required"] for form in objects] == [["text"], ["text"]]
    assert set(objects[0]["properties"]) == {"text", "top"}


def test_many_rows_are_not_filled_up_without_end(server: inferd.Server) -> None:
    body = {"inputs": [{"name": "a", "datatype": "INT32", "shape": [1 << 40, 4], "data": []}]}
    answer = httpx.post(f"{server.url}/v2/models/add_sub/infer", json=body, timeout=30)
    assert answer.status_code == 400


def test_requests_with_and_without_it_share_a_run(tmp_path: Path) -> None:
    (tmp_path / "together.py").write_text(TOGETHER)
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    top = {"name": "top", "datatype": "INT64", "shape": [1], "data": [9]}
    bodies = [json.dumps({"inputs": [text, top] if number % 2 else [text]}).encode() for number in range(400)]
    # Its rows are independent, whatever it tells of the others.
    with inferd.Server(tmp_path / "together.py", batching="on", profiling=False) as server:
        answers = send(server.url.removeprefix("http://"), "/v2/models/together/infer", bodies, connections=64)
    assert {answer.status for answer in answers} == {200}
    assert 2 in {answer.json()["outputs"][0]["data"][0] for answer in answers}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("{c: 1}", "optional: the model has no input 'c'\nhelp: its inputs are 'a', 'b'"),
        ("{b: null}", "optional: the model has no default for input 'b'"),
        ("{b: 0.5}", "optional: 'b': 0.5 is not a valid INT32"),
        ("{b: [1, 2]}", "optional: 'b': it has the shape [2] but a row of it is [4]"),
    ],
)
def test_a_default_that_does_not_fit_ends_the_load(tmp_path: Path, setting: str, words: str) -> None:
    models.add_sub(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text(f"optional: {setting}")
    with pytest.raises(inferd.ModelFailed) as failed, inferd.Server(tmp_path / "m", threads=1):
        pass
    assert words in str(failed.value)


def test_one_value_does_not_say_how_long_a_row_is(tmp_path: Path) -> None:
    models.masked(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "model.yaml").write_text("optional: {mask: 1}")
    with pytest.raises(inferd.ModelFailed, match="write it as a list"), inferd.Server(tmp_path / "m", threads=1):
        pass


def test_a_methods_default_of_another_type_ends_the_load(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(BY_ROW.replace("times: int = 2", "times: int = 0.5"))
    with pytest.raises(inferd.ModelFailed, match=r"default 0\.5 of 'times'"), inferd.Server(tmp_path / "say.py"):
        pass


PIPELINES = """
models: [{path: shorten.py}, {path: shorten.py, name: other, optional: {top: 3}}]
pipelines:
  - name: without
    steps: [{name: short, model: shorten, inputs: {text: text}}]
    outputs: {result: short.output}
  - name: within
    steps: [{name: short, model: shorten, inputs: {text: text, top: count}}]
    outputs: {result: short.output}
  - name: unlike
    steps:
      - {name: short, model: shorten, inputs: {text: text, top: count}}
      - {name: long, model: other, inputs: {text: text, top: count}}
    outputs: {short: short.output, long: long.output}
"""


def test_a_pipeline_leaves_out_what_its_steps_may(tmp_path: Path) -> None:
    (tmp_path / "shorten.py").write_text(SHORTEN)
    (tmp_path / "inferd.yaml").write_text(PIPELINES)
    with inferd.Server(tmp_path, profiling=False) as server:
        assert post(server, "/models/without", {"text": ["abcd", "efgh"]}) == ["ab", "ef"]
        assert post(server, "/models/within", ["abcd", "efgh"]) == ["ab", "ef"]
        assert post(server, "/models/within", {"text": ["abcd"], "count": [1]}) == ["a"]
        # Its steps have different defaults, and it would have to have one.
        status, message = post(server, "/models/unlike", {"text": ["abcd"]})  # type: ignore[misc]
        assert (status, message.startswith("input 'count' is missing")) == (400, True)
        both = post(server, "/models/unlike", {"text": ["abcd"], "count": [1]})
        assert both == {"short": ["a"], "long": ["a"]}
