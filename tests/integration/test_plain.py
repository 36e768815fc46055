"""Models asked in plain JSON, in forms, in raw bytes, and as KServe's first protocol has it."""

from __future__ import annotations

import base64
import io
import json

import httpx
import numpy as np
import pytest
from openapi_spec_validator import validate
from PIL import Image

import inferd
from outside import models

APP = '''
from PIL.Image import Image

from inferd import Model


class Sizes(Model):
    """Width and height of images."""

    def predict(self, image: list[Image]) -> list[dict]:
        return [{"width": one.width, "height": one.height} for one in image]
'''

LOAN = """
from dataclasses import dataclass

from inferd import Model


@dataclass
class Application:
    income: float


class Loan(Model):
    example = {"application": [Application(1), Application(2)]}

    def predict(self, application: list[Application], name: list[str]) -> list[str]:
        return [f"{who}: {one.income > 1000}" for who, one in zip(name, application)]
"""

SHOUT = """
from inferd import Model


class Shout(Model):
    def predict(self, text: list[str]) -> list[str]:
        return [one.upper() for one in text]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    models.identity(folder / "four.onnx", "FP32", ["n", 4])
    models.add_sub(folder / "add_sub.onnx")
    models.moody(folder / "moody.py")
    (folder / "sizes.py").write_text(APP)
    (folder / "shout.py").write_text(SHOUT)
    (folder / "loan.py").write_text(LOAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        files = [folder / name for name in ("four.onnx", "add_sub.onnx", "moody.py", "sizes.py", "shout.py", "loan.py")]
        with inferd.Server(*files, threads=1, body_max_bytes=1 << 20) as server:
            yield server


def post(server, path, **content):
    return httpx.post(f"{server.url}{path}", timeout=30, **content)


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_one_row_in_one_row_out_and_rows_in_rows_out(server):
    assert post(server, "/models/four", json=[1, 2, 3, 4]).json() == [1, 2, 3, 4]
    assert post(server, "/models/four", json=[[1, 2, 3, 4]] * 2).json() == [[1, 2, 3, 4]] * 2
    assert post(server, "/models/four/versions/1", json=[1, 2, 3, 4]).json() == [1, 2, 3, 4]
    assert post(server, "/models/shout", json="quiet").json() == "QUIET"
    assert post(server, "/models/shout", json=["a", "b"]).json() == ["A", "B"]


def test_several_inputs_and_outputs_have_names(server):
    found = post(server, "/models/add_sub", json={"a": [1, 2, 3, 4], "b": [1, 1, 1, 1]})
    assert found.json() == {"sum": [2, 3, 4, 5], "difference": [0, 1, 2, 3]}


def test_an_image_is_a_body_or_a_part_of_a_form(server):
    raw = post(server, "/models/sizes", content=png(), headers={"Content-Type": "image/png"})
    form = post(server, "/models/sizes", files={"image": ("x.png", png(), "image/png")})
    for answer in (raw, form):
        assert answer.status_code == 200, answer.text
        assert answer.json() == '{"width":5,"height":3}'


def test_forms_and_files_are_rows_of_kserves_first_protocol_too(server):
    path = "/v1/models/sizes:predict"
    wanted = {"predictions": ['{"width":5,"height":3}']}
    assert post(server, path, files={"image": ("x.png", png(), "image/png")}).json() == wanted
    assert post(server, path, content=png(), headers={"Content-Type": "image/png"}).json() == wanted
    b64 = base64.b64encode(png()).decode()
    for rows in ([{"b64": b64}], [{"image": {"b64": b64}}]):
        assert post(server, path, json={"instances": rows}).json() == wanted
    assert post(server, "/models/sizes", json={"b64": b64}).json() == wanted["predictions"][0]


def test_the_parts_of_a_form_are_json_text_or_files(server):
    application = json.dumps({"income": 2000})
    for part in (application, ("a.json", application, "application/json"), (None, application)):
        answer = post(server, "/models/loan", files={"application": part, "name": (None, "Ada")})
        assert answer.json() == "Ada: True", answer.text
    answer = post(server, "/models/loan", json={"application": {"income": 5}, "name": "Ada"})
    assert answer.json() == "Ada: False"
    numbers = {"a": (None, "[1, 2, 3, 4]"), "b": (None, "[1, 1, 1, 1]")}
    assert post(server, "/models/add_sub", files=numbers).json()["sum"] == [2, 3, 4, 5]
    text = post(server, "/models/shout", content="quiet", headers={"Content-Type": "text/plain"})
    assert text.json() == "QUIET"


def test_kserves_first_protocol(server):
    found = post(server, "/v1/models/four:predict", json={"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    assert found.json() == {"predictions": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    rows = [{"a": [1, 2, 3, 4], "b": [1, 1, 1, 1]}]
    found = post(server, "/v1/models/add_sub:predict", json={"instances": rows})
    assert found.json() == {"predictions": [{"sum": [2, 3, 4, 5], "difference": [0, 1, 2, 3]}]}
    assert httpx.get(f"{server.url}/v1/models/four").json() == {"name": "four", "ready": True}
    assert "shout" in httpx.get(f"{server.url}/v1/models").json()["models"]
    assert httpx.get(f"{server.url}/v1/models/absent").status_code == 404


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/models/four", {"json": [1, 2, 3]}, 400, "shape [1, 3]"),
        ("/models/four", {"json": [[1, 2, 3, 4], [1]]}, 400, "1 entries"),
        ("/models/four", {"content": b"{"}, 400, "not JSON"),
        ("/models/four", {"content": b"x", "headers": {"Content-Type": "image/png"}}, 400, "send JSON"),
        ("/models/four", {"content": b"x", "headers": {"Content-Type": "application/xml"}}, 415, "not understood"),
        ("/models/four", {"content": b" " * (2 << 20)}, 413, "body_max_bytes"),
        ("/models/sizes", {"content": b"x", "headers": {"Content-Type": "image/png"}}, 400, "not an image"),
        ("/models/sizes", {"files": {"other": b"x"}}, 400, "unknown input"),
        ("/models/sizes", {"content": b"\x89PNG"}, 400, "Content-Type, such as image/png"),
        ("/models/sizes", {"json": {"b64": "?"}}, 400, "not valid base64"),
        ("/v1/models/four:predict", {"content": b"x", "headers": {"Content-Type": "image/png"}}, 400, "send JSON"),
        ("/models/absent", {"json": 1}, 404, "absent"),
        ("/models/moody", {"json": [5, 0]}, 400, "rows that order a refusal"),
        ("/v1/models/four:predict", {"json": {"rows": []}}, 400, "instances"),
    ],
)
def test_what_is_wrong_is_said_as_everywhere(server, path, content, status, words):
    answer = post(server, path, **content)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


def test_a_timeout_holds_here_too(server):
    late = post(server, "/models/moody", json=[1, 0.5], headers={"Inferd-Timeout-Ms": "100"})
    assert late.status_code == 504


def test_the_paths_take_their_methods_alone(server):
    assert httpx.get(f"{server.url}/models/four").status_code == 405
    assert post(server, "/openapi.json", json={}).status_code == 405


def test_it_is_counted_like_every_inference(server):
    post(server, "/models/four", json=[1, 2, 3, 4])
    text = httpx.get(server.metrics_url).text
    assert 'inferd_requests_total{model="four",version="1",outcome="ok"}' in text


def test_the_description_is_valid_and_what_it_shows_works_as_it_stands(server):
    described = httpx.get(f"{server.url}/openapi.json").json()
    validate(described)
    assert {"/models/shout", "/v2/models/stats", "/v1/models"} <= described["paths"].keys()
    for path, item in described["paths"].items():
        for method, operation in item.items():
            assert operation["summary"]
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            shown = [one["value"] for one in content.get("examples", {}).values()] or [content.get("example")]
            for example in shown:
                body = {} if method == "get" else {"json": example}
                answer = httpx.request(method, f"{server.url}{path}", **body)
                # What is no text can't be told from what is: an image, and JSON that fits.
                status = 400 if {"sizes", "loan"} & set(operation["tags"]) and method == "post" else 200
                assert answer.status_code == status, (path, method, answer.text)


def test_files_go_where_the_description_takes_them(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    content = paths["/models/sizes"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
    for media in ("application/octet-stream", "image/png"):
        answer = post(server, "/models/sizes", content=png(), headers={"Content-Type": media})
        assert answer.status_code == 200
    assert "multipart/form-data" not in paths["/models/four"]["post"]["requestBody"]["content"]


def test_an_fp64_is_read_to_its_last_bit(tmp_path):
    rows = np.random.default_rng(3).normal(size=(1000, 2))
    models.identity(tmp_path / "same.onnx", "FP64", ["n", 2])
    with inferd.Server(tmp_path / "same.onnx", profiling=False) as server:
        assert post(server, "/models/same", json=rows.tolist()).json() == rows.tolist()
