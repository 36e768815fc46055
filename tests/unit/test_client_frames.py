"""Data frames by the names of their columns: which tensors they become, and what is refused with row and column."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from inferd import InvalidInput
from inferd.client.core import Core, InferRequest
from inferd.client.exchange import InferCall
from inferd.client.frames import tensors_of
from inferd.client.generate import stream as generate
from inferd.client.grpc import messages
from inferd.client.http import HttpResponse
from inferd.client.metadata import ConfigNeeded, ModelMetadata
from inferd.client.retry import Retry
from inferd.client.tensors import array_of
from inferd.errors import InferdError, NotFound, Unimplemented
from inferd.types import InputSchema, TensorSpec


def matrix(*columns, datatype="FP64", missing=True, ignored=()):
    spec = TensorSpec("x", datatype, (-1, len(columns)))
    return ModelMetadata([spec], schemas={"x": InputSchema("x", columns, missing)}, ignored=frozenset(ignored))


def columns(missing=True, ignored=(), optional=(), platform="", **datatypes):
    specs = [TensorSpec(name, datatype, (-1,)) for name, datatype in datatypes.items()]
    schemas = {name: InputSchema(name, missing=missing) for name in datatypes}
    return ModelMetadata(specs, (), platform, schemas, frozenset(ignored), frozenset(optional))


def unnamed(*shape, datatype="FP64", name="x"):
    return ModelMetadata([TensorSpec(name, datatype, shape)], schemas={})


def sent(inputs, model):
    """The arrays that are sent, by input."""
    return {one.name: array_of(one.datatype, one.shape, one.raw) for one in tensors_of(inputs, model)}


def refused(inputs, model):
    with pytest.raises(InvalidInput) as raised:
        tensors_of(inputs, model)
    return raised.value


FRAME = pd.DataFrame({"b": [3, 4], "a": [1.5, 2.5]}, index=[7, 7])
OF_EVERY_LIBRARY = {
    "pandas": FRAME,
    "polars": pl.DataFrame({"b": [3, 4], "a": [1.5, 2.5]}),
    "pyarrow": pa.table({"b": [3, 4], "a": [1.5, 2.5]}),
    "batch": pa.RecordBatch.from_pydict({"b": [3, 4], "a": [1.5, 2.5]}),
    "records": np.array([(3, 1.5), (4, 2.5)], dtype=[("b", "i8"), ("a", "f8")]),
    "dict of lists": {"b": [3, 4], "a": [1.5, 2.5]},
    "dict of series": {"b": FRAME["b"], "a": pl.Series([1.5, 2.5])},
}


def test_a_value_goes_to_the_only_input_that_a_request_must_bring():
    model = columns(text="BYTES", pair="BYTES", optional=["pair"])
    assert list(sent(["a", "b"], model)) == ["text"]
    assert "pass a dict by name" in str(refused(["a", "b"], columns(text="BYTES", pair="BYTES")))


@pytest.mark.parametrize("table", OF_EVERY_LIBRARY.values(), ids=OF_EVERY_LIBRARY)
def test_columns_go_where_their_names_say(table):
    (tensor,) = tensors_of(table, matrix("a", "b"))
    assert tensor.columns == ("a", "b")
    assert array_of(tensor.datatype, tensor.shape, tensor.raw).tolist() == [[1.5, 3], [2.5, 4]]
    by_column = sent(table, columns(a="FP32", b="INT64"))
    assert {name: array.tolist() for name, array in by_column.items()} == {"a": [1.5, 2.5], "b": [3, 4]}


def test_a_frame_of_one_type_goes_where_its_names_say():
    frame = pd.DataFrame({"b": [3.0, 4], "a": [1, 2.0], "gone": [9, 9]})
    assert sent(frame, matrix("a", "b", ignored=["gone"]))["x"].tolist() == [[1, 3], [2, 4]]


def test_a_frame_for_an_input_is_its_columns_by_name():
    assert sent({"x": FRAME}, matrix("a", "b"))["x"].tolist() == [[1.5, 3], [2.5, 4]]
    assert "'a' missing, 'z' unexpected" in str(refused({"x": FRAME.rename(columns={"a": "z"})}, matrix("a", "b")))


def test_a_series_is_one_row():
    row = FRAME.iloc[1]
    assert sent(row, matrix("a", "b"))["x"].tolist() == [[2.5, 4]]
    assert {name: array.tolist() for name, array in sent(row, columns(a="FP64", b="INT64")).items()} == {
        "a": [2.5],
        "b": [4],
    }
    mixed = pd.Series({"city": "Rome", "age": 2**53 + 1})
    assert sent(mixed, columns(age="INT64", city="BYTES"))["age"].tolist() == [2**53 + 1]
    assert sent(pd.Series([1.0, 2]), unnamed(-1, 2))["x"].tolist() == [[1, 2]]
    assert "'a', 'b' missing, '0', '1' unexpected" in str(refused(pd.Series([1.0, 2]), matrix("a", "b")))


def test_a_series_for_an_input_of_one_value_a_row_is_a_column():
    assert sent(pd.Series(["x", "y"]), unnamed(-1, datatype="BYTES"))["x"].tolist() == [b"x", b"y"]
    assert sent({"x": pd.Series([1, 2])}, unnamed(-1, 1))["x"].tolist() == [[1], [2]]


def test_a_dict_of_single_values_is_one_row():
    assert sent({"b": 3, "a": 1.5}, matrix("a", "b"))["x"].tolist() == [[1.5, 3]]


def test_missing_and_foreign_columns_are_listed_together():
    fault = str(refused(FRAME.rename(columns={"a": "A"}), matrix("a", "b", "c")))
    assert "'a', 'c' missing, 'A' unexpected" in fault
    assert "help: the model takes 'a', 'b', 'c', in any order" in fault
    fault = str(refused(FRAME.rename(columns={"a": "A"}), columns(a="FP64", b="INT64")))
    assert "'a' missing, 'A' unexpected" in fault
    assert "'c' missing, none unexpected" in str(
        refused({"b": FRAME["b"], "a": FRAME["a"]}, columns(a="FP64", b="FP64", c="FP64"))
    )
    assert "'a' missing, 'z' unexpected" in str(refused({"b": [1], "z": [1]}, columns(a="FP64", b="FP64")))
    wide = pd.DataFrame(np.zeros((1, 50)), columns=[f"c{n}" for n in range(50)])
    assert "and 30 more unexpected" in str(refused(wide, matrix("a")))


def test_columns_that_the_model_does_not_read_are_dropped():
    frame = FRAME.assign(id=[1, 2])
    assert sent(frame, matrix("a", "b", ignored=["id"]))["x"].shape == (2, 2)
    assert set(sent(frame, columns(a="FP64", b="FP64", ignored=["id"]))) == {"a", "b"}
    assert set(sent(frame, columns(a="FP64", b="FP64", ignored=["*"]))) == {"a", "b"}
    assert "'id' unexpected" in str(refused(frame, columns(a="FP64", b="FP64")))


def test_an_input_with_a_default_may_be_missing():
    assert set(sent(FRAME[["a"]], columns(a="FP64", b="FP64", optional=["b"]))) == {"a"}


def test_doubles_are_named_and_those_that_are_dropped_do_not_matter():
    frame = pd.DataFrame([[1.0, 2, 3]], columns=["a", "b", "a"])
    assert "duplicate columns 'a'" in str(refused(frame, matrix("a", "b")))
    frame.columns = ["a", "b", 1]
    frame["1"] = 4.0
    assert "duplicate columns '1'" in str(refused(frame, matrix("a", "b", "1")))
    assert sent(frame, matrix("a", "b", ignored=["1"]))["x"].tolist() == [[1, 2]]


def test_labels_that_are_integers_are_names():
    frame = pd.DataFrame([[1.0, 2]], columns=[1, 0])
    assert sent(frame, matrix("0", "1"))["x"].tolist() == [[2, 1]]


def test_names_of_several_levels_are_refused_with_the_remedy():
    frame = pd.DataFrame([[1.0, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    fault = str(refused(frame, matrix("a", "b")))
    assert "MultiIndex" in fault
    assert "help: frame.columns = " in fault


def test_a_model_without_names_takes_as_many_columns_as_it_has():
    assert sent(FRAME, unnamed(-1, 2))["x"].tolist() == [[3, 1.5], [4, 2.5]]
    assert tensors_of(FRAME, unnamed(-1, 2))[0].columns == ()
    assert sent(FRAME, unnamed(-1, -1))["x"].shape == (2, 2)
    assert sent(FRAME.rename(columns={"a": "x"}), unnamed(-1, 2))["x"].tolist() == [[3, 1.5], [4, 2.5]]
    assert sent(FRAME[["a"]], unnamed(-1))["x"].tolist() == [1.5, 2.5]
    fault = str(refused(FRAME, unnamed(-1, 3)))
    assert "2 columns for 'x'" in fault
    assert "x: FP64[?, 3]" in fault
    assert "'a' unexpected" in str(refused(FRAME.rename(columns={"b": "x"}), unnamed(-1)))


def test_the_name_of_a_lone_column_is_held_to():
    assert "'city' missing, 'town' unexpected" in str(refused(pd.DataFrame({"town": ["x"]}), columns(city="BYTES")))


def test_a_model_of_several_inputs_takes_columns_by_their_names():
    model = ModelMetadata([TensorSpec("a", "FP32", (-1, 1)), TensorSpec("v", "FP32", (-1, 3))], schemas={})
    frame = pd.DataFrame({"v": [[1, 2, 3], [4, 5, 6]], "a": [1, 2]})
    assert {name: array.tolist() for name, array in sent(frame, model).items()} == {
        "a": [[1], [2]],
        "v": [[1, 2, 3], [4, 5, 6]],
    }
    frame["v"] = [[1], [1, 2]]
    assert "column 'v': rows are arrays of different shapes" in str(refused(frame, model))


INTEGERS = [2**53 + 1, 5]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(INTEGERS),
        pd.Series(INTEGERS, dtype="Int64"),
        pd.Series(INTEGERS, dtype="int64[pyarrow]"),
        pd.Series(INTEGERS, dtype="category"),
        pd.Series(INTEGERS, dtype="Int64").astype("category"),
        pd.Series(INTEGERS, dtype=object),
        pd.Series(list(map(Decimal, INTEGERS)), dtype=object),
        pl.Series(INTEGERS),
        pl.Series(INTEGERS, dtype=pl.UInt64),
        pa.chunked_array([INTEGERS]),
        pa.array(INTEGERS).dictionary_encode(),
        np.array(INTEGERS),
        np.array(INTEGERS, dtype=">i8"),
        INTEGERS,
    ],
    ids=lambda column: f"{type(column).__name__} {getattr(column, 'dtype', '')}",
)
def test_integers_of_every_kind_stay_themselves_or_are_named(column):
    assert sent({"a": column}, columns(a="INT64"))["a"].tolist() == INTEGERS
    fault = refused({"a": column}, columns(a="FP64"))
    assert fault.row == 0
    assert str(fault).startswith("row 0: ")
    assert "9007199254740993" in str(fault)
    assert "would be rounded; the model takes FP64" in str(fault)


def test_integers_beside_fractions_are_not_rounded_on_their_way():
    # As one array, or as a list, numpy makes floats of both.
    frame = pd.DataFrame({"id": [2**53 + 1], "a": [0.5]})
    assert "row 0: column 'id': 9007199254740993 would be rounded" in str(refused(frame, matrix("a", "id")))
    assert "row 0: column 'id': 9007199254740993" in str(refused([[0.5, 2**53 + 1]], matrix("a", "id")))
    assert sent(pd.DataFrame({"id": [2**53], "a": [0.5]}), matrix("a", "id"))["x"].tolist() == [[0.5, 2.0**53]]


MISSING = [
    pd.Series([1, None], dtype="Int64"),
    pd.Series([1, None], dtype="Float64"),
    pd.Series([1, None], dtype="float64"),
    pd.Series([1, None], dtype="int64[pyarrow]"),
    pd.Series([1, None], dtype="category"),
    pd.Series([1, pd.NA], dtype=object),
    pd.Series([True, None], dtype="boolean"),
    pd.Series([1, pd.NaT], dtype=object),
    pl.Series([1, None]),
    pl.Series([1.0, float("nan")]),
    pa.chunked_array([[1, None]]),
    np.ma.masked_array([1, 1], [False, True]),
    [1, None],
    [1, float("nan")],
]


@pytest.mark.parametrize("column", MISSING, ids=lambda one: f"{type(one).__name__} {getattr(one, 'dtype', '')}")
def test_what_is_missing_is_nan_of_floats_and_an_error_of_the_rest(column):
    np.testing.assert_array_equal(sent({"a": column}, columns(a="FP32"))["a"], [1, np.nan])
    fault = refused({"a": column}, columns(a="INT64"))
    assert fault.row == 1
    assert "a value is missing; the model takes INT64" in str(fault)
    assert "help:" in str(fault)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["x", None]),
        pd.Series(["x", None], dtype=object),
        pd.Series(["x", np.nan], dtype=object),
        pd.Series(["x", pd.NA], dtype="string"),
        pd.Series(["x", None], dtype="string[pyarrow]"),
        pd.Series(["x", None], dtype="category"),
        pl.Series(["x", None]),
        pl.Series(["x", None], dtype=pl.Categorical),
        pa.chunked_array([["x", None]]),
        pa.array(["x", None]).dictionary_encode(),
        ["x", None],
        ["x", float("nan")],
    ],
    ids=lambda one: f"{type(one).__name__} {getattr(one, 'dtype', '')}",
)
def test_missing_text_is_sent_as_such_to_a_model_that_takes_it(column):
    (tensor,) = tensors_of({"a": column}, columns(a="BYTES"))
    assert tensor.raw == b"\1\0\0\0x\xff\xff\xff\xff"
    assert array_of("BYTES", (2,), tensor.raw).tolist() == [b"x", None]
    fault = refused(
        pd.DataFrame({"a": column}) if isinstance(column, pd.Series) else {"a": column},
        columns(a="BYTES", missing=False),
    )
    assert fault.row == 1
    assert "'a': the text is missing, which the model does not accept" in str(fault)


def test_a_matrix_of_text_names_row_and_column():
    frame = pd.DataFrame({"b": ["x", "y"], "a": ["u", None]})
    assert sent(frame, matrix("a", "b", datatype="BYTES"))["x"].tolist() == [[b"u", b"x"], [None, b"y"]]
    fault = refused(frame, matrix("a", "b", datatype="BYTES", missing=False))
    assert str(fault).startswith("row 1: column 'a': the text is missing")


@pytest.mark.parametrize(
    ("column", "datatype", "words"),
    [
        (["x", 1.5], "BYTES", "row 1: column 'a': 1.5 is float, not text"),
        (["x", True], "BYTES", "row 1: column 'a': True is bool, not text"),
        ([1, 2], "BYTES", "row 0: column 'a': 1 is int, not text\nhelp: .astype(str)"),
        ([datetime.date(2020, 1, 1)], "BYTES", "is date, not text"),
        (pd.Series(["\ud800"], dtype=object), "BYTES", "can't be encoded as UTF-8"),
        ([0.5, "x"], "FP64", "row 1: column 'a': 'x' is str, not a number"),
        ([1.0, 2.5], "INT64", "row 1: column 'a': 2.5 is not an integer in range; the model takes INT64"),
        ([1, 300], "INT8", "row 1: column 'a': 300 is out of range; the model takes INT8"),
        ([0, 2], "BOOL", "row 1: column 'a': 2 is neither true nor false"),
        ([1.0, 1e39], "FP32", "row 1: column 'a': 1e+39 is out of range; the model takes FP32"),
        (pd.to_datetime(["2020-01-01"]), "FP64", "is a time, not a number; the model takes FP64\nhelp: "),
        (pd.to_datetime(["2020-01-01"], utc=True), "FP64", "is Timestamp, not a number"),
        (pd.to_timedelta([5], unit="s"), "INT64", "is a duration, not a number"),
        (pd.Series(pd.period_range("2020", periods=1, freq="D")), "FP64", "is Period, not a number"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_row_and_column(column, datatype, words):
    assert words in str(refused(pd.DataFrame({"a": column}), columns(a=datatype)))


@pytest.mark.parametrize(
    ("column", "datatype", "found"),
    [
        ([True, False], "FP32", [1, 0]),
        ([True, False], "INT64", [1, 0]),
        ([1, 0], "BOOL", [True, False]),
        ([0.1, 0.2], "FP32", [np.float32(0.1), np.float32(0.2)]),
        ([Decimal("0.1"), 2], "FP64", [0.1, 2.0]),
        ([1.0, 2.0], "INT64", [1, 2]),
        (pd.array([1.5, 0], dtype=pd.SparseDtype("float")), "FP64", [1.5, 0]),
        (pd.Categorical([30, 10], categories=[10, 20, 30]), "FP32", [30, 10]),
        ([1.5, -2.25], "BF16", [0x3FC0, 0xC010]),
    ],
)
def test_values_take_the_models_type(column, datatype, found):
    array = sent(pd.DataFrame({"a": column}), columns(a=datatype))["a"]
    assert (array.view(np.uint16) if datatype == "BF16" else array).tolist() == found


def test_integers_and_truths_are_text_to_catboost_alone():
    frame = pd.DataFrame({"a": [1, 2**53 + 1]})
    assert sent(frame, columns(a="BYTES", platform="catboost"))["a"].tolist() == [b"1", b"9007199254740993"]
    frame = pd.DataFrame({"a": [True, False]})
    assert sent(frame, columns(a="BYTES", platform="catboost"))["a"].tolist() == [b"1", b"0"]
    assert "is bool, not text" in str(refused(frame, columns(a="BYTES")))


def test_bytes_of_every_kind_are_bytes():
    values = [b"a", bytearray(b"b"), memoryview(b"c"), np.bytes_(b"d"), np.str_("e")]
    assert sent({"x": values}, unnamed(-1, datatype="BYTES"))["x"].tolist() == [b"a", b"b", b"c", b"d", b"e"]
    assert sent(bytearray(b"a"), unnamed(datatype="BYTES"))["x"].item() == b"a"


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_rows_of_different_lengths_are_no_array(datatype):
    assert "is not an array" in str(
        refused({"x": [np.zeros((2, 2)), np.zeros((2, 3))]}, unnamed(-1, 2, datatype=datatype))
    )


def test_what_is_not_known_yet_is_asked_for_only_where_it_matters():
    model = ModelMetadata([TensorSpec("a", "FP64", (-1,)), TensorSpec("t", "BYTES", (-1,))])
    assert set(sent({"a": [1, None], "t": ["x", "y"]}, model)) == {"a", "t"}
    for inputs in (pd.DataFrame({"a": [1.0], "t": ["x"]}), {"a": [1], "t": [None]}, {"q": [1]}):
        with pytest.raises(ConfigNeeded):
            tensors_of(inputs, model)


class Server:
    """A server of one model ``m``, which responses what it got. Refuses columns that are not its own."""

    def __init__(self, model, *, described=True):
        self.model = model
        self.described = described
        self.asked = []

    def serve(self, model):
        self.model = model

    def __call__(self, request):
        if hasattr(request, "path"):
            return self._http(request)
        return self._grpc(request)

    def _http(self, request):
        kind = request.path.rsplit("/", 1)[-1]
        self.asked.append(kind)
        if kind == "infer":
            length = int(request.headers["Inference-Header-Content-Length"])
            head = json.loads(request.body[:length])
            refusal = self._refusal({one["name"]: one["parameters"].get("columns") for one in head["inputs"]})
            if refusal:
                return HttpResponse(400, {}, json.dumps({"error": refusal}).encode())
            text = json.dumps({"model_name": "m", "outputs": head["inputs"]}).encode()
            headers = {"Inference-Header-Content-Length": str(len(text))}
            return HttpResponse(200, headers, text + request.body[length:])
        body = self._config() if kind == "config" else self._metadata(schemas=self.described)
        return HttpResponse(200, {}, json.dumps(body).encode())

    def _grpc(self, request):
        self.asked.append(request.method.removeprefix("Model").lower())
        if request.method == "ModelMetadata":
            tensors = self._metadata(schemas=False)["inputs"]
            return messages()["inference.ModelMetadataResponse"](name="m", inputs=tensors)
        if request.method == "ModelConfig":
            if not self.described:
                raise Unimplemented("not here")
            config = self._config()
            response = messages()["inference.ModelConfigResponse"]()
            response.config.name = "m"
            for one in config["input"]:
                response.config.input.add(**one)
            response.config.parameters["input_schemas"].string_value = config["parameters"]["input_schemas"][
                "string_value"
            ]
            return response
        sent = request.message
        refusal = self._refusal(
            {
                one.name: one.parameters["columns"].string_param if "columns" in one.parameters else None
                for one in sent.inputs
            }
        )
        if refusal:
            raise InvalidInput(refusal)
        response = messages()["inference.ModelInferResponse"](model_name="m")
        for one in sent.inputs:
            response.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        response.raw_output_contents.extend(sent.raw_input_contents)
        return response

    def _refusal(self, columns):
        known = {spec.name for spec in self.model.inputs}
        if columns.keys() - known:
            return "no such input"
        for name, text in columns.items():
            schema = self.model.schemas.get(name)
            if text is not None and tuple(json.loads(text)) != (schema.columns if schema else ()):
                return "other columns"
        return None

    def _metadata(self, *, schemas):
        inputs = [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in self.model.inputs]
        if not schemas:
            return {"name": "m", "inputs": inputs}
        for one in inputs:
            if one["name"] in self.model.schemas:
                one["parameters"] = self._fields(one["name"])
        return {"name": "m", "inputs": inputs, "parameters": {"ignored_columns": sorted(self.model.ignored)}}

    def _config(self):
        described = {
            "inputs": {name: self._fields(name) for name in self.model.schemas},
            "ignored_columns": sorted(self.model.ignored),
        }
        optional = self.model.optional or ()
        return {
            "input": [{"name": one.name, "optional": one.name in optional} for one in self.model.inputs],
            "parameters": {"input_schemas": {"string_value": json.dumps(described)}},
        }

    def _fields(self, name):
        fields = self.model.schemas[name].to_json()
        return {key: value for key, value in fields.items() if key != "input" and value not in ([], None)}


class Asking:
    """A client without sockets: what it asks for goes to the server at once."""

    def __init__(self, scheme, server):
        self.core = Core(scheme, Retry(tries_max=1))
        self.server = server

    def infer(self, inputs, **about):
        return self._drive(self.core.infer(self._question(inputs, **about)))

    def prepare(self, inputs):
        return self._drive(self.core.prepare(self._question(inputs), streams=True))

    def _question(self, inputs, **about):
        return InferRequest("m", inputs, None, (), None, "", {}, {}, **about)

    def _drive(self, steps):
        try:
            step = next(steps)
            while True:
                try:
                    response = self.server(step.exchange.build(None))
                except InferdError as fault:
                    step = steps.throw(fault)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            return end.value


@pytest.fixture(params=["http", "grpc"])
def connect(request):
    return lambda server: Asking(request.param, server)


def test_a_frame_is_put_in_order_by_what_the_server_says(connect):
    server = Server(matrix("a", "b", ignored=["id"]))
    client = connect(server)
    for _ in range(2):
        assert client.infer(FRAME.assign(id=0))["x"].tolist() == [[1.5, 3], [2.5, 4]]
    assert server.asked.count("metadata") + server.asked.count("m") == 1
    assert server.asked.count("infer") == 2


def test_a_configuration_is_read_only_where_a_frame_is_sent():
    server = Server(columns(a="FP64", b="FP64"))
    client = Asking("grpc", server)
    client.infer({"a": [1.0], "b": [1.0]})
    assert server.asked == ["metadata", "infer"]
    client.infer(FRAME)
    client.infer(FRAME)
    assert server.asked == ["metadata", "infer", "config", "infer", "infer"]


def test_a_server_that_says_nothing_of_columns_is_asked_by_name_all_the_same(connect):
    client = connect(Server(ModelMetadata(columns(a="FP64", b="FP64").inputs, schemas={}), described=False))
    assert {name: array.tolist() for name, array in client.infer(FRAME).outputs.items()} == {
        "a": [1.5, 2.5],
        "b": [3, 4],
    }
    client = connect(Server(unnamed(-1, 2), described=False))
    assert client.infer(FRAME)["x"].tolist() == [[3, 1.5], [4, 2.5]]


def test_a_column_that_may_be_left_out_is_known_from_the_configuration(connect):
    server = Server(columns(a="FP64", b="FP64", optional=["b"]))
    client = connect(server)
    assert client.infer(FRAME[["a"]]).outputs.keys() == {"a"}
    with pytest.raises(InvalidInput, match="'a' missing, none unexpected"):
        client.infer(FRAME[["b"]])


REPLACEMENTS = {
    "other order": (matrix("a", "b"), matrix("b", "a"), FRAME, {"x": [[3, 1.5], [4, 2.5]]}),
    "names where there were none": (unnamed(-1, 2), matrix("a", "b"), FRAME, {"x": [[1.5, 3], [2.5, 4]]}),
    "more columns": (matrix("a"), matrix("a", "b"), FRAME, {"x": [[1.5, 3], [2.5, 4]]}),
    "columns by themselves": (matrix("a", "b"), columns(a="FP64", b="FP64"), FRAME, {"a": [1.5, 2.5], "b": [3, 4]}),
    "another type": (columns(a="INT64"), columns(a="FP64"), FRAME[["a"]], {"a": [1.5, 2.5]}),
}


@pytest.mark.parametrize(("before", "after", "frame", "found"), REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_model_that_was_replaced_is_described_anew_and_asked_once_more(connect, before, after, frame, found):
    server = Server(before)
    client = connect(server)
    asked = pd.DataFrame({spec.name: [1] for spec in before.inputs})
    if before.inputs[0].name == "x":
        asked = pd.DataFrame(
            [[0.0] * before.inputs[0].shape[1]], columns=before.schemas["x"].columns if before.schemas else None
        )
    client.infer(asked)
    server.serve(after)
    assert {name: array.tolist() for name, array in client.infer(frame).outputs.items()} == found


def test_a_refusal_of_a_model_that_is_the_same_stands_and_is_asked_once(connect):
    server = Server(matrix("a", "b"))
    client = connect(server)
    client.infer(FRAME)
    server._refusal = lambda columns: "the value is no good"
    before = server.asked.count("infer")
    with pytest.raises(InvalidInput, match="no good"):
        client.infer(FRAME)
    assert server.asked.count("infer") == before + 1


def test_a_request_of_a_sequence_is_not_tried_again(connect):
    server = Server(matrix("a", "b"))
    client = connect(server)
    client.infer(FRAME)
    server.serve(matrix("b", "a"))
    sequence = {"sequence": {"sequence_id": 1, "sequence_start": True, "sequence_end": False}}
    with pytest.raises(InvalidInput, match="other columns"):
        client.infer(FRAME, **sequence)
    assert client.infer(FRAME, **sequence)["x"].tolist() == [[3, 1.5], [4, 2.5]]


def test_a_stream_of_a_frame_follows_what_the_model_takes_now(connect):
    server = Server(matrix("a", "b"))
    client = connect(server)
    client.infer(FRAME)
    server.serve(matrix("b", "a"))
    (tensor,) = client.prepare(FRAME).inputs
    assert array_of(tensor.datatype, tensor.shape, tensor.raw).tolist() == [[3, 1.5], [4, 2.5]]
    asked = len(server.asked)
    client.prepare({"x": np.zeros((1, 2))})
    assert len(server.asked) == asked


def test_a_model_that_is_gone_is_not_found(connect):
    server = Server(matrix("a", "b"))
    client = connect(server)
    client.infer(FRAME)
    client.server = lambda request: (_ for _ in ()).throw(NotFound("no model 'm'"))
    with pytest.raises(NotFound):
        client.infer(FRAME)


def test_a_stream_over_http_writes_what_is_missing_as_null():
    tensors = tensors_of(pd.DataFrame({"t": ["x", None], "a": [1.5, None]}), columns(t="BYTES", a="FP64"))
    request = generate(InferCall("m", "", tensors, (), "", {}, {})).build(None)
    assert json.loads(request.body) == {"t": ["x", None], "a": [1.5, None]}
    tensors = tensors_of({"a": [np.inf]}, columns(a="FP64"))
    with pytest.raises(InvalidInput, match="infinity"):
        generate(InferCall("m", "", tensors, (), "", {}, {}))
