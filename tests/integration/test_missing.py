"""Missing values: one rule over all protocols. They reach the model as such, or are refused with row and column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

import inferd
from outside import models, tables
from outside.tables import FORMS, Tensor, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

NAN = float("nan")

TYPED = """
from inferd import InputSchema, Model


class Typed(Model):
    schemas = [InputSchema("city", missing=True), InputSchema("age", missing=True)]

    def predict(self, city: list[str], age: list[float]) -> list[str]:
        return [f"{one} {number}" for one, number in zip(city, age)]
"""

PIPELINE = """
models: [strict.py, taking.py, text.py, halves.onnx]
pipelines:
  - name: before
    steps:
      - {name: only, model: strict, inputs: {x: rows}}
    outputs: {result: only.got x}
  - name: within
    steps:
      - {name: first, model: halves, inputs: {x: rows}}
      - {name: second, model: strict, inputs: {x: first.y}}
    outputs: {result: second.got x}
  - name: disagreeing
    steps:
      - {name: one, model: strict, inputs: {x: rows}}
      - {name: other, model: taking, inputs: {x: rows}}
    outputs: {one: one.got x, other: other.got x}
  - name: texts
    steps:
      - {name: only, model: text, inputs: {t: city}}
      - {name: never, model: text, inputs: {t: city}, when: {tensor: city, equals: nowhere}}
    outputs: {result: only.got t}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("missing")
    matrix = [("x", "FP64", (-1, 2))]
    named = 'InputSchema("x", columns=("age", "income"), missing={})'
    tables.table(folder / "strict.py", matrix, schemas=[named.format(False)])
    tables.table(folder / "taking.py", matrix, schemas=[named.format(True)])
    limited = 'InputSchema("x", columns=("age", "income"), missing=True, largest=1000.0)'
    tables.table(folder / "limited.py", matrix, schemas=[limited])
    tables.table(folder / "whole.py", [("x", "INT64", (-1, 2))], schemas=[named.format(True)])
    tables.table(folder / "open.py", [("x", "FP64", (-1, 2)), ("t", "BYTES", (-1,))])
    tables.table(folder / "text.py", [("t", "BYTES", (-1,))], schemas=['InputSchema("t")'])
    tables.table(folder / "filled.py", [("t", "BYTES", (-1,))], schemas=['InputSchema("t", missing=False)'])
    tables.table(folder / "flag.py", [("x", "BOOL", (-1, 2))])
    models.identity(folder / "halves.onnx", "FP64", ["n", 2])
    (folder / "typed.py").write_text(TYPED)
    (folder / "inferd.yaml").write_text(PIPELINE)
    alone = ["limited", "whole", "open", "filled", "flag", "typed"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        files = [folder / "inferd.yaml", *(folder / f"{name}.py" for name in alone)]
        with inferd.Server(*files, threads=1, shared_memory=True) as server:
            yield server.address


@pytest.mark.parametrize("form", FORMS)
def test_nan_reaches_a_model_that_takes_it_and_no_other(address: str, form: str) -> None:
    for datatype in ("FP64", "FP32"):
        rows = Tensor("x", datatype, [[1, 2], [3, NAN]])
        got = FORMS[form](address, "taking", rows).outputs["got x"]
        assert got[:3] == [1, 2, 3]
        assert math.isnan(got[3])
        answer = FORMS[form](address, "strict", rows)
        assert answer.error == (
            "row 1, column 1 ('income') of input 'x' is missing (NaN); the model takes no missing values: fill it in, or "
            "leave the row out"
        )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_too_large_is_named_and_the_edge_is_taken(address: str, form: str) -> None:
    assert FORMS[form](address, "limited", Tensor("x", "FP64", [[-1000, 1000]])).outputs["got x"] == [-1000, 1000]
    answer = FORMS[form](address, "limited", Tensor("x", "FP64", [[0, 0], [1000.5, 0]]))
    assert answer.error is not None
    assert answer.error.startswith(
        "row 1, column 0 ('age') of input 'x' is 1000.5, and the model takes no magnitude above 1000.0"
    )
    if form != "JSON":
        answer = FORMS[form](address, "limited", Tensor("x", "FP32", [[0, -math.inf]]))
        assert answer.error is not None
        assert "is -inf, and" in answer.error


@pytest.mark.parametrize("form", ["JSON", "binary", "gRPC raw", "shared memory"])
def test_missing_text_reaches_a_model_that_takes_it_and_no_other(address: str, form: str) -> None:
    rows = Tensor("t", "BYTES", ["Rome", None, ""])
    assert FORMS[form](address, "text", rows).outputs["got t"] == ["Rome", "?", ""]
    answer = FORMS[form](address, "filled", rows)
    assert answer.error is not None
    assert answer.error.startswith("row 1 of input 't' is ")
    assert "takes no missing values" in answer.error


@pytest.mark.parametrize("form", ["JSON", "binary", "gRPC raw"])
def test_without_a_schema_text_can_not_be_missing_and_nan_is_handed_on(address: str, form: str) -> None:
    numbers = Tensor("x", "FP64", [[NAN, 1]])
    answer = FORMS[form](address, "open", numbers, Tensor("t", "BYTES", [None]))
    assert answer.error is not None
    assert answer.error.startswith("row 0 of input 't' is ")
    got = FORMS[form](address, "open", numbers, Tensor("t", "BYTES", ["null"])).outputs
    assert math.isnan(got["got x"][0])
    assert got["got t"] == ["null"]


def test_plain_json_follows_the_same_rule(address: str) -> None:
    assert plain(address, "/models/taking", [[1, None], [None, 2]]) == [[1, None], [None, 2]]
    assert plain(address, "/models/text", ["Rome", None]) == ["Rome", "?"]
    assert plain(address, "/models/text", None) == "?"
    assert plain(address, "/v1/models/text:predict", {"instances": ["Rome", None]}) == {"predictions": ["Rome", "?"]}
    place = "row 1, column 1 ('income') of input 'x' is missing (NaN)"
    assert plain(address, "/models/strict", [[1, 2], [3, None]]).startswith(place)
    assert plain(address, "/v1/models/strict:predict", {"instances": [[1, 2], [3, None]]}).startswith(place)
    for path, body in [
        ("/models/filled", ["Rome", None]),
        ("/v1/models/filled:predict", {"instances": ["Rome", None]}),
    ]:
        assert plain(address, path, body).startswith("row 1 of input 't' is null; the model takes no missing values")
    both = {"x": [[1, 2], [3, 4]], "t": ["a", None]}
    assert plain(address, "/models/open", both).startswith(
        "row 1 of input 't' is null; the model takes no missing text"
    )
    # A null inside an element of JSON is part of it.
    both = {"x": [1, 2], "t": {"a": None}}
    assert plain(address, "/models/open", both)["got t"] == '{"a":null}'


def test_null_of_integers_and_flags_names_row_and_column(address: str) -> None:
    place = "row 1, column 0 ('age') of input 'x' is null, which is not a valid INT64"
    rows = [[1, 2], [None, 4]]
    assert plain(address, "/models/whole", rows).startswith(place)
    assert plain(address, "/v1/models/whole:predict", {"instances": rows}).startswith(place)
    body = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [2, 2], "data": rows}]}
    answer = httpx.post(f"http://{address}/v2/models/whole/infer", json=body)
    assert (answer.status_code, answer.json()["error"][: len(place)]) == (400, place)
    answer = httpx.post(f"http://{address}/v2/models/whole/generate", json={"x": rows})
    assert (answer.status_code, answer.json()["error"][: len(place)]) == (400, place)
    assert "column 1 of input 'x' is null, which is not a valid BOOL" in plain(address, "/models/flag", [[True, None]])
    # A number that is sent as INT64 can't be null, even where the input would take NaN.
    body["inputs"][0]["data"] = [[1, None]]
    body["inputs"][0]["shape"] = [1, 2]
    answer = httpx.post(f"http://{address}/v2/models/taking/infer", json=body)
    assert "send the input as FP64, whose null is NaN" in answer.json()["error"]


def test_lists_of_an_annotated_method_hold_none(address: str) -> None:
    rows = {"city": ["Rome", None], "age": [1.5, None]}
    assert plain(address, "/models/typed", rows) == ["Rome 1.5", "None nan"]


def test_missing_text_survives_parts_batches_and_the_cache(address: str) -> None:
    """More rows than run together are cut, and their answers joined."""
    texts = [None if row % 3 == 0 else f"town {row}" for row in range(1000)]
    got = tables.grpc_raw(address, "text", Tensor("t", "BYTES", texts)).outputs["got t"]
    assert got == ["?" if text is None else text for text in texts]


def test_pipelines_keep_to_what_their_steps_take(address: str) -> None:
    rows = Tensor("rows", "FP64", [[1, NAN]])
    metadata = httpx.get(f"http://{address}/v2/models/before").json()
    assert metadata["inputs"][0]["parameters"] == {"columns": ["age", "income"], "missing": False}
    answer = tables.rest_json(address, "before", rows)
    assert answer.error.startswith("row 0, column 1 ('income') of input 'rows' is missing (NaN)")
    for name, step in [("within", "second"), ("disagreeing", "one")]:
        assert "parameters" not in httpx.get(f"http://{address}/v2/models/{name}").json()["inputs"][0]
        answer = tables.rest_json(address, name, rows)
        assert answer.status == 400
        wanted = f"step '{step}' of pipeline '{name}': row 0, column 1 ('income') of input 'x' is missing (NaN)"
        assert answer.error.startswith(wanted), answer.error
    texts = tables.rest_json(address, "texts", Tensor("city", "BYTES", [None, None]))
    assert texts.outputs["result"] == ["?", "?"]


def test_an_output_has_no_missing_text(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tables.table(tmp_path / "silent.py", [("t", "BYTES", (-1,))], schemas=['InputSchema("t")'])
    file.write_text(file.read_text().replace('b"?" if text is None else text', "None"))
    with inferd.Server(file, threads=1) as server:
        answer = tables.rest_json(server.address, "silent", Tensor("t", "BYTES", ["a"]))
        assert answer.status == 500
        assert "not bytes or str" in answer.error


def test_schemas_must_be_of_inputs_that_there_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inputs = [("x", "FP64", (-1, 2))]
    for schema, says in [
        ('InputSchema("y")', "schema for input 'y'"),
        ('InputSchema("x", columns=("a",))', "names 1 columns"),
        ('InputSchema("x", largest=-1.0)', "greatest magnitude"),
        ('"x"', "is not an InputSchema"),
    ]:
        file = tables.table(tmp_path / "wrong.py", inputs, schemas=[schema])
        with pytest.raises(inferd.InferdError, match=says):
            inferd.Server(file, threads=1).start()


def test_numbers_near_the_edge_are_told_apart(address: str) -> None:
    rows = np.random.default_rng(7).normal(size=(500, 2)) * 500
    for row in rows[np.abs(rows).max(axis=1) > 1000][:20]:
        column = int(np.argmax(np.abs(row) > 1000))
        error = tables.rest_binary(address, "limited", Tensor("x", "FP64", [row])).error
        assert error.startswith(f"row 0, column {column} ")
        assert repr(float(row[column])) in error
