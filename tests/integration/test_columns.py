"""Columns by name: in metadata, checked where a request says them, and as the members of plain objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import tritonclient.grpc as triton
from openapi_spec_validator import validate

import inferd
from outside import tables
from outside.tables import Tensor, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [f"the column of number {column:05}" for column in range(10_000)]
KNOWN = {"columns": ["age", "income"], "missing": False, "largest": 1e6}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("columns")
    strict = 'InputSchema("x", columns=("age", "income"), missing=False, largest=1e6)'
    tables.table(folder / "matrix.py", [("x", "FP64", (-1, 2))], schemas=[strict], ignored=["id"])
    mixed = [("age", "FP64", (-1,)), ("city", "BYTES", (-1,)), ("children", "INT64", (-1,))]
    schemas = [f"InputSchema({name!r})" for name, _, _ in mixed]
    tables.table(folder / "mixed.py", mixed, schemas=schemas, ignored=["id"])
    tables.table(folder / "plain.py", [("x", "FP64", (-1, 2))])
    wide = f'InputSchema("x", columns={tuple(NAMES)!r})'
    tables.table(folder / "wide.py", [("x", "FP64", (-1, 10_000))], schemas=[wide])
    many = [(f"c{column}", "FP64", (-1,)) for column in range(200)]
    tables.table(folder / "many.py", many, schemas=[f"InputSchema({name!r})" for name, _, _ in many])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        files = [folder / f"{name}.py" for name in ("matrix", "mixed", "plain", "wide", "many")]
        with inferd.Server(*files, threads=1) as server:
            yield server.address


def test_metadata_says_what_is_known_of_inputs(address: str) -> None:
    metadata = httpx.get(f"http://{address}/v2/models/matrix").json()
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1, 2], "parameters": KNOWN}]
    assert metadata["parameters"] == {"ignored_columns": ["id"]}
    bare = httpx.get(f"http://{address}/v2/models/plain").json()
    assert "parameters" not in bare
    assert "parameters" not in bare["inputs"][0]


def test_the_configuration_says_the_same_over_both_protocols(address: str) -> None:
    config = httpx.get(f"http://{address}/v2/models/matrix/config").json()
    text = config["parameters"]["input_schemas"]["string_value"]
    assert json.loads(text) == {"inputs": {"x": KNOWN}, "ignored_columns": ["id"]}
    with triton.InferenceServerClient(address) as client:
        assert client.get_model_config("matrix").config.parameters["input_schemas"].string_value == text
        assert "input_schemas" not in client.get_model_config("plain").config.parameters


@pytest.mark.parametrize("form", [tables.rest_json, tables.rest_binary, tables.grpc_raw, tables.grpc_typed])
def test_columns_that_a_request_says_must_be_the_models(address: str, form) -> None:
    def ask(model: str, *names: str) -> tables.Answer:
        return form(address, model, Tensor("x", "FP64", [[1, 2]], {"columns": json.dumps(names)}))

    assert ask("matrix", "age", "income").outputs == {"got x": [1, 2]}
    swapped = ask("matrix", "income", "age")
    assert swapped.error == (
        "the columns of input 'x' are 'age', 'income', but the request says 'income', 'age'; send them in the model's order"
    )
    assert "has no named columns" in ask("plain", "age", "income").error


def test_a_row_is_an_object_by_column_and_rows_are_an_array_of_them(address: str) -> None:
    assert plain(address, "/models/matrix", {"income": 2, "age": 1}) == [1, 2]
    rows = [{"income": 2, "age": 1, "id": "p"}, {"id": "q", "age": 3, "income": 4}]
    assert plain(address, "/models/matrix", rows) == [[1, 2], [3, 4]]
    assert plain(address, "/v1/models/matrix:predict", {"instances": rows}) == {"predictions": [[1, 2], [3, 4]]}
    assert plain(address, "/models/matrix", {"age": [1, 3], "income": [2, 4]}) == [[1, 2], [3, 4]]
    assert plain(address, "/models/matrix", {"x": [1, 2]}) == [1, 2]
    said = plain(address, "/models/matrix", [rows[0], {"age": 3, "salary": 4}])
    assert said == (
        "row 1: missing columns: 'income'; columns that the model does not have: 'salary'; its columns are 'age', 'income'"
    )
    missing = plain(address, "/models/matrix", [rows[0], {"age": 3, "income": None}])
    assert missing.startswith("row 1, column 1 ('income') of input 'x' is missing (NaN)")


def test_records_fill_a_model_of_one_input_for_each_column(address: str) -> None:
    rows = [{"city": "Rome", "children": 2, "age": 1, "id": 7}, {"age": None, "city": None, "children": 0, "id": 8}]
    wanted = {"got age": [1, None], "got city": ["Rome", "?"], "got children": [2, 0]}
    assert plain(address, "/models/mixed", rows) == wanted
    predictions = plain(address, "/v1/models/mixed:predict", {"instances": rows})["predictions"]
    assert predictions == [
        {"got age": 1, "got city": "Rome", "got children": 2},
        {"got age": None, "got city": "?", "got children": 0},
    ]
    assert plain(address, "/models/mixed", rows[0]) == {"got age": 1, "got city": "Rome", "got children": 2}
    rows[1]["children"] = None
    assert plain(address, "/models/mixed", rows).startswith(
        "row 1 of input 'children' is null, which is not a valid INT64"
    )
    del rows[0]["children"]
    assert "given in some of the rows" in plain(address, "/models/mixed", rows)
    said = plain(address, "/models/mixed", [{"age": 1, "town": "Rome"}])
    assert "missing columns: 'city', 'children'; columns that the model does not have: 'town'" in said


def test_ten_thousand_columns_have_names(address: str) -> None:
    metadata = httpx.get(f"http://{address}/v2/models/wide").json()
    assert metadata["inputs"][0]["parameters"]["columns"] == NAMES
    row = {name: float(place) for place, name in reversed(list(enumerate(NAMES)))}
    assert plain(address, "/models/wide", row) == list(range(10_000))
    del row[NAMES[77]]
    said = plain(address, "/models/wide", row)
    assert said.startswith(
        f"the row: missing columns: '{NAMES[77]}'; columns that the model does not have: none; its columns"
    )
    assert said.endswith("9980 more")


def test_a_model_may_have_hundreds_of_inputs(address: str) -> None:
    row = {f"c{column}": column / 2 for column in range(200)}
    assert plain(address, "/models/many", row) == {f"got c{column}": column / 2 for column in range(200)}
    answer = tables.grpc_raw(address, "many", *(Tensor(name, "FP32", [value]) for name, value in row.items()))
    assert answer.outputs["got c199"] == [99.5]


def test_the_description_has_columns_and_its_examples_work_as_they_stand(address: str) -> None:
    described = httpx.get(f"http://{address}/openapi.json").json()
    validate(described)
    forms = described["paths"]["/models/matrix"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "oneOf"
    ]
    objects = [form for form in forms if form["type"] == "object"]
    assert objects == [
        {
            "type": "object",
            "properties": {"age": {"type": "number"}, "income": {"type": "number"}},
            "required": ["age", "income"],
        }
    ]
    mixed = json.dumps(described["paths"]["/models/mixed"])
    assert '"type": ["number", "null"]' in mixed
    assert '"type": ["string", "null"]' in mixed
    for model in ("matrix", "mixed"):
        for path in (f"/models/{model}", f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"):
            content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            shown = [one["value"] for one in content.get("examples", {}).values()] or [content["example"]]
            for example in shown:
                answer = httpx.post(f"http://{address}{path}", json=example, timeout=30)
                assert answer.status_code == 200, (path, example, answer.text)
