"""Writes the wire samples of this folder. Needs ``tritonclient[all]``; see README.md."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc._utils import _get_inference_request as grpc_request
from tritonclient.http._utils import _get_inference_request as http_request

HERE = Path(__file__).parent
FLOATS = ["FP16", "FP32", "FP64"]
INTEGERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def spec(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def signature(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], batched: bool, **extras: Any
) -> dict[str, Any]:
    batching = "on" if batched else {"off": {"reason": "told so"}}
    more = {"extras": extras} if extras else {}
    return {"inputs": inputs, "outputs": outputs, "batching": batching, **more}


def schema(name: str, **known: Any) -> dict[str, Any]:
    return {"input": name, "columns": [], "missing": True, "largest": None, **known}


SIGNATURES = {
    "two": signature(
        [spec("x", "FP32", [-1, 2]), spec("n", "INT64", [-1, 1])],
        [spec("y", "FP32", [-1, 1]), spec("z", "INT64", [-1])],
        True,
    ),
    "free": signature([spec("x", "FP32", [-1, -1])], [spec("y", "FP32", [-1, -1])], False),
    "scalar": signature([spec("x", "FP32", [])], [spec("y", "FP32", [])], False),
    "long": signature([spec("x", "FP32", [-1, 3])], [spec("y", "FP32", [-1, -1])], True),
    "half": signature([spec("x", "BF16", [-1])], [spec("y", "BF16", [-1])], True),
}
for _datatype in [*NUMPY, "BYTES"]:
    SIGNATURES[_datatype] = signature([spec("x", _datatype, [-1, 3])], [spec("y", _datatype, [-1, 3])], True)
SIGNATURES["strict"] = signature(
    [spec("x", "FP64", [-1, 2])], [spec("y", "FP64", [-1, 2])], True,
    schemas=[schema("x", columns=["age", "income"], missing=False, largest=1e6)],
)  # fmt: skip
SIGNATURES["taking"] = signature([spec("x", "BYTES", [-1])], [spec("y", "BYTES", [-1])], True, schemas=[schema("x")])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


MISSING = b"\xff\xff\xff\xff"


def raw_texts(texts: list[bytes | None]) -> bytes:
    return b"".join(MISSING if text is None else struct.pack("<I", len(text)) + text for text in texts)


def tensor(datatype: str, shape: list[int], data: bytes) -> dict[str, Any]:
    return {"datatype": datatype, "shape": shape, "data_base64": b64(data)}


def example(datatype: str) -> np.ndarray:
    """Two rows of three elements, the edges of the type among them."""
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if datatype == "BYTES":
        return np.array([[b"a", b"", b"nul\0"], ["é😀".encode(), b'"\\\n', b"\xff\xfe"]], dtype=np.object_)
    kind = NUMPY[datatype]
    if datatype in INTEGERS:
        edge = np.iinfo(kind)
        return np.array([[edge.min, 0, 1], [2, 3, edge.max]], dtype=kind)
    return np.array([[np.nan, -0.0, 0.1], [np.inf, -np.inf, np.finfo(kind).max]], dtype=kind)


def raw(array: np.ndarray) -> bytes:
    return raw_texts(list(array.flatten())) if array.dtype == np.object_ else array.tobytes()


def good(inputs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"inputs": inputs, **more}


def bad(kind: str, *says: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "says": list(says)}}


def from_client() -> list[dict[str, Any]]:
    """Every datatype as ``tritonclient.http`` sends it, raw and as JSON."""
    samples = []
    for datatype in [*NUMPY, "BYTES"]:
        array = example(datatype)
        for binary in [True, False]:
            if not binary and datatype == "BYTES":
                array = np.array([[b"a", b"", b"nul\0"], ["é😀".encode(), b'"\\\n', b"z"]], dtype=np.object_)
            tensor_in = http_client.InferInput("x", list(array.shape), datatype)
            try:
                tensor_in.set_data_from_numpy(array, binary_data=binary)
            except Exception:  # the client has no JSON form for this type
                continue
            requested = [http_client.InferRequestedOutput("y", binary_data=binary)]
            try:
                body, length = http_request([tensor_in], "r1", requested, 0, False, False, 2, 1500, None)
            except Exception:
                continue
            samples.append({
                "name": f"{datatype} as tritonclient sends it {'raw' if binary else 'in JSON'}",
                "signature": datatype,
                "body_base64": b64(body if isinstance(body, bytes) else body.encode()),
                "header_length": length,
                "expect": good(
                    [tensor(datatype, [2, 3], raw(array))],
                    id="r1", priority=2, timeout_us=1500, outputs=[{"name": "y", "binary": binary}],
                ),
            })  # fmt: skip
    return samples


X, N = (
    '{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2.5]}',
    '{"name":"n","datatype":"INT64","shape":[1,1],"data":[7]}',
)
X_RAW = np.array([1, 2.5], np.float32).tobytes()
TWO = [tensor("FP32", [1, 2], X_RAW), tensor("INT64", [1, 1], struct.pack("<q", 7))]


def text(name: str, which: str, body: str, expect: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "signature": which, "body": body, "expect": expect, **more}


def one(data: str, shape: str = "[1,3]", datatype: str = "FP32") -> str:
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}'


def written_good() -> list[dict[str, Any]]:
    def fp32(shape: list[int], values: list[float]) -> dict[str, Any]:
        return good([tensor("FP32", shape, np.array(values, np.float32).tobytes())])

    binary = (
        '{"inputs":[{"name":"n","datatype":"INT64","shape":[1,1],"parameters":{"binary_data_size":8}},'
        '{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2.5]}],"parameters":{"binary_data_output":true}}'
    )
    return [
        text("inputs may come in any order", "two", f'{{"inputs":[{N},{X}]}}', good(TWO)),
        text("members may come in any order and unknown ones are passed over", "two",
             '{"extra":[{"a":[null,"]"]}],"inputs":[{"data":[[1,2.5]],"shape":[1,2],"colour":{"b":1},"datatype":"FP32",'
             f'"name":"x"}},{N}],"id":"a\\"b"}}', good(TWO, id='a"b')),
        text("nothing but null where nothing is needed", "two",
             f'{{"id":null,"parameters":null,"outputs":null,"inputs":[{X},{N}]}}', good(TWO)),
        text("one input raw and one in JSON", "two", binary, good(TWO, outputs=[
            {"name": "y", "binary": True}, {"name": "z", "binary": True}]))
        | {"body": None, "body_base64": b64(binary.encode() + struct.pack("<q", 7)), "header_length": len(binary)},
        text("outputs are selected, each in its form and in the client's order", "two",
             f'{{"inputs":[{X},{N}],"outputs":[{{"name":"z","parameters":{{"binary_data":true}}}},{{"name":"y"}}]}}',
             good(TWO, outputs=[{"name": "z", "binary": True}, {"name": "y", "binary": False}])),
        text("unknown parameters are passed over", "two",
             f'{{"inputs":[{X},{N}],"parameters":{{"colour":[1,{{}}],"sequence_id":0,"priority":3,"timeout":0}}}}',
             good(TWO, priority=3)),
        text("nested data", "FP32", one("[[1,2,3],[4,5,6]]", "[2,3]"), fp32([2, 3], [1, 2, 3, 4, 5, 6])),
        text("flat data", "FP32", one(" [ 1 ,2e0,\n3.0 ] "), fp32([1, 3], [1, 2, 3])),
        text("bare words for what is no number", "FP32", one("[NaN,Infinity,-Infinity]"),
             fp32([1, 3], [np.nan, np.inf, -np.inf])),
        text("zero-size in a dimension that may have any size", "free", one("[[],[]]", "[2,0]"), fp32([2, 0], [])),
        text("zero rows without batching", "free", one("[]", "[0,4]"), fp32([0, 4], [])),
        text("zero rows of a batched model", "FP32", one("[]", "[0,3]"), fp32([0, 3], [])),
        text("zero rows of which only a run tells the answer's shape", "long", one("[]", "[0,3]"), fp32([0, 3], [])),
        text("a scalar", "scalar", one("4.5", "[]"), fp32([], [4.5])),
        text("strings with escapes", "BYTES", one('["a\\u0000b","\\ud83d\\ude00\\n","é"]', datatype="BYTES"),
             good([tensor("BYTES", [1, 3], raw_texts([b"a\0b", "😀\n".encode(), "é".encode()]))])),
    ]  # fmt: skip


def written_bad() -> list[dict[str, Any]]:
    invalid = "invalid_input"
    raw_json = '{"inputs":[{"name":"x","datatype":"BF16","shape":[2],"parameters":{"binary_data_size":4}}]}'
    return [
        text("an empty body", "two", "", bad(invalid, "an object")),
        text("no JSON at all", "two", "hello", bad(invalid, "JSON at byte 0")),
        text("something behind the JSON", "two", f'{{"inputs":[{X},{N}]}} x', bad(invalid, "the end")),
        text("inputs that are no array", "two", '{"inputs":{}}', bad(invalid, "inputs", "an array")),
        text("an unknown input", "two", '{"inputs":[{"name":"q","datatype":"FP32","shape":[1],"data":[1]}]}',
             bad(invalid, "unknown input 'q'", "'x' (FP32 [-1, 2])", "'n' (INT64 [-1, 1])")),
        text("an input twice", "two", f'{{"inputs":[{X},{X}]}}', bad(invalid, "'x' is given twice")),
        text("a missing input", "two", f'{{"inputs":[{X}]}}', bad(invalid, "'n' is missing", "INT64 [-1, 1]")),
        text("no inputs", "two", "{}", bad(invalid, "'x' is missing")),
        text("a wrong datatype", "FP32", one("[1,2,3]", datatype="FP64"), bad(invalid, "'x'", "FP64", "FP32")),
        text("an unknown datatype", "FP32", one("[1,2,3]", datatype="FLOAT"), bad(invalid, "'FLOAT'", "FP32")),
        text("a wrong shape", "FP32", one("[1,2]", "[1,2]"), bad(invalid, "'x'", "[1, 2]", "[-1, 3]")),
        text("a negative dimension", "FP32", one("[1,2,3]", "[-1,3]"), bad(invalid, "dimension 0 is -1")),
        text("a shape that overflows", "free", one("[1]", "[4611686018427387904,4]"), bad(invalid, "counted")),
        text("rows that disagree", "two", f'{{"inputs":[{X},{N.replace("[1,1]", "[2,1]").replace("[7]", "[7,8]")}]}}',
             bad(invalid, "'n' has 2 rows", "'x' has 1")),
        text("too few elements", "FP32", one("[1,2]"), bad(invalid, "'x'", "2 elements", "takes 3")),
        text("too many elements", "FP32", one("[1,2,3,4]"), bad(invalid, "'x'", "more elements", "takes 3")),
        text("ragged nesting", "FP32", one("[[1,2,3],[4]]", "[2,3]"), bad(invalid, "'x'", "data[1]", "ragged")),
        text("an element among arrays", "FP32", one("[[1,2,3],4]", "[2,3]"), bad(invalid, "data[1]", "ragged")),
        text("an array among elements", "FP32", one("[1,[2],3]"), bad(invalid, "data[1]", "ragged")),
        text("an integer out of range", "UINT8", one("[1,256,3]", datatype="UINT8"),
             bad(invalid, "data[1]", "256", "0 to 255")),
        text("a fraction for an integer", "INT32", one("[1,2.5,3]", datatype="INT32"), bad(invalid, "2.5", "integer")),
        text("a number out of range for FP16", "FP16", one("[1,2,70000]", datatype="FP16"), bad(invalid, "FP16")),
        text("a string for a number", "FP32", one('[1,"2",3]'), bad(invalid, "data[1]", "a number")),
        text("half a surrogate pair", "BYTES", one('["\\ud800","",""]', datatype="BYTES"), bad(invalid, "surrogate")),
        text("nesting that is too deep", "two", '{"a":' + "[" * 200 + "]" * 200 + "}", bad(invalid, "deeper")),
        text("BF16 in JSON", "half", one("[1]", "[1]", "BF16"), bad(invalid, "BF16", "binary_data_size")),
        text("a BF16 output in JSON", "half", "", bad(invalid, "'y'", "binary_data"), )
        | {"body": None, "body_base64": b64(raw_json.encode() + b"\0\0\x80\x3f"), "header_length": len(raw_json)},
        text("raw data without the header", "half", raw_json, bad(invalid, "Inference-Header-Content-Length")),
        text("raw data that is cut short", "half", raw_json + "abc", bad(invalid, "binary_data_size 4", "3 bytes"),
             header_length=len(raw_json)),
        text("raw data that belongs to nobody", "half", raw_json + "abcde", bad(invalid, "1 bytes"),
             header_length=len(raw_json)),
        text("a header longer than the body", "half", raw_json, bad(invalid, "Inference-Header-Content-Length is 999"),
             header_length=999),
        text("a request without JSON for several inputs", "two", X, bad(invalid, "has one input"), header_length=0),
        text("an unknown output", "two", f'{{"inputs":[{X},{N}],"outputs":[{{"name":"q"}}]}}',
             bad(invalid, "unknown output 'q'", "'y' (FP32 [-1, 1])")),
        text("an output twice", "two", f'{{"inputs":[{X},{N}],"outputs":[{{"name":"y"}},{{"name":"y"}}]}}',
             bad(invalid, "'y' is requested twice")),
        text("a sequence without a name", "two", f'{{"inputs":[{X},{N}],"parameters":{{"sequence_start":true}}}}',
             bad(invalid, "'sequence_start' needs sequence_id")),
        text("classes that are no number", "two",
             f'{{"inputs":[{X},{N}],"outputs":[{{"name":"y","parameters":{{"classification":-1}}}}]}}',
             bad(invalid, "'classification'", "1 or more")),
        text("shared memory", "scalar", '{"inputs":[{"name":"x","datatype":"FP32","shape":[],"parameters":'
             '{"shared_memory_region":"r","shared_memory_byte_size":4}}]}', bad("unimplemented", "shared memory")),
        text("a timeout that is no time", "two", f'{{"inputs":[{X},{N}],"parameters":{{"timeout":-1}}}}',
             bad(invalid, "'timeout'", "microseconds")),
        text("a member twice", "two", f'{{"inputs":[{X},{N}],"inputs":[]}}', bad(invalid, "'inputs'", "twice")),
    ]  # fmt: skip


def of_tables() -> list[dict[str, Any]]:
    """Widening, missing values, columns."""
    invalid, shape = "invalid_input", "[1,2]"

    def fp64(*values: float) -> dict[str, Any]:
        return good([tensor("FP64", [1, 2], np.array(values, np.float64).tobytes())])

    def raw_one(name: str, which: str, head: str, data: bytes, expect: dict[str, Any]) -> dict[str, Any]:
        said = '{"inputs":[{"name":"x",' + head + f',"parameters":{{"binary_data_size":{len(data)}}}}}]}}'
        return {
            "name": name, "signature": which, "body_base64": b64(said.encode() + data),
            "header_length": len(said), "expect": expect,
        }  # fmt: skip

    def named(columns: str) -> str:
        return one("[1,2]", shape, "FP64").replace('"data"', f'"parameters":{{"columns":{json.dumps(columns)}}},"data"')

    place, texts = "row 0, column 1 ('income') of input 'x'", [b"a", None, b""]
    int64 = '"datatype":"INT64","shape":[1,2]'
    return [
        text("whole numbers for an input of floats", "strict", one("[7,-3]", shape, "INT64"), fp64(7, -3)),
        text("numbers in the type that they are sent as", "strict", one("[0.1,1]", shape, "FP32"),
             fp64(float(np.float32(0.1)), 1)),
        raw_one("raw whole numbers for an input of floats", "strict", int64, struct.pack("<2q", 7, 1_000_000),
                fp64(7, 1_000_000)),
        raw_one("a raw whole number that would be rounded", "strict", int64, struct.pack("<2q", 7, (1 << 53) + 1),
                bad(invalid, place, "9007199254740993 of INT64", "FP64", "2**53")),
        text("a whole number that would be rounded", "strict", one("[7,9007199254740993]", shape, "INT64"),
             bad(invalid, place, "9007199254740993 of INT64")),
        text("null for what is no number", "FP32", one("[null,1,2]"),
             good([tensor("FP32", [1, 3], np.array([np.nan, 1, 2], np.float32).tobytes())])),
        text("null where no value may be missing", "strict", one("[[1,null]]", shape, "FP64"),
             bad(invalid, place, "is missing (NaN)")),
        text("a number that is too large for the model", "strict", one("[1,-2e6]", shape, "FP64"),
             bad(invalid, place, "-2000000.0", "no magnitude above 1000000.0")),
        text("null for an integer", "INT32", one("[[1,null,3]]", datatype="INT32"),
             bad(invalid, "row 0, column 1 of input 'x' is null", "INT32")),
        text("missing text", "taking", one('["a",null,""]', "[3]", "BYTES"),
             good([tensor("BYTES", [3], raw_texts(texts))])),
        raw_one("raw missing text", "taking", '"datatype":"BYTES","shape":[3]', raw_texts(texts),
                good([tensor("BYTES", [3], raw_texts(texts))])),
        text("missing text where none may be", "BYTES", one('["a",null,""]', datatype="BYTES"),
             bad(invalid, "row 0, column 1 of input 'x' is null")),
        raw_one("raw missing text where none may be", "BYTES", '"datatype":"BYTES","shape":[1,3]', raw_texts(texts),
                bad(invalid, "row 0, column 1 of input 'x' is missing")),
        text("columns in the model's order", "strict", named('["age","income"]'), fp64(1, 2)),
        text("columns in another order", "strict", named('["income","age"]'),
             bad(invalid, "'age', 'income', but the request says 'income', 'age'")),
        text("columns that are no names", "strict", named("age"), bad(invalid, "'columns'", "JSON array of names")),
        text("a request without JSON", "strict", "", fp64(1, 2))
        | {"body": None, "body_base64": b64(struct.pack("<2d", 1, 2)), "header_length": 0},
    ]  # fmt: skip


def rest_responses() -> list[dict[str, Any]]:
    def response(name: str, which: str, outputs: list[dict[str, Any]], body: str | None, **more: Any) -> dict[str, Any]:
        return {"name": name, "signature": which, "outputs": outputs, "body": body, **more}

    y, z = (
        tensor("FP32", [2, 1], np.array([0.1, -0.0], np.float32).tobytes()),
        tensor("INT64", [2], struct.pack("<2q", -1, 2)),
    )
    head = '{"id":"a\\"","model_name":"m","model_version":"3","outputs":['
    raw_z = '{"name":"z","datatype":"INT64","shape":[2],"parameters":{"binary_data_size":16}}'
    data_y = '{"name":"y","datatype":"FP32","shape":[2,1],"data":[0.1,-0.0]}'
    mixed = f"{head}{raw_z},{data_y}]}}"
    words = np.array([np.nan, np.inf, -np.inf], np.float64).tobytes()
    return [
        response("all outputs as JSON", "two", [y, z],
                 f'{{"model_name":"m","model_version":"3","outputs":[{data_y},'
                 '{"name":"z","datatype":"INT64","shape":[2],"data":[-1,2]}]}'),
        response("one output raw behind the JSON", "two", [y, z], None, id='a"',
                 requested=[{"name": "z", "binary": True}, {"name": "y", "binary": False}],
                 body_base64=b64(mixed.encode() + struct.pack("<2q", -1, 2)), header_length=len(mixed)),
        response("what is no number as bare words", "FP64", [tensor("FP64", [1, 3], words)],
                 '{"model_name":"m","model_version":"3","outputs":'
                 '[{"name":"y","datatype":"FP64","shape":[1,3],"data":[NaN,Infinity,-Infinity]}]}'),
        response("strings as JSON writes them", "BYTES",
                 [tensor("BYTES", [1, 3], raw_texts([b'a"\0', "é".encode(), b""]))],
                 '{"model_name":"m","model_version":"3","outputs":'
                 '[{"name":"y","datatype":"BYTES","shape":[1,3],"data":["a\\"\\u0000","é",""]}]}'),
        response("bytes that are no text", "BYTES", [tensor("BYTES", [1, 3], raw_texts([b"\xff", b"", b""]))], None,
                 error={"kind": "invalid_input", "says": ["'y'", "UTF-8", "binary_data"]}),
    ]  # fmt: skip


def grpc_requests() -> list[dict[str, Any]]:
    samples = []
    for datatype in [*NUMPY, "BYTES"]:
        array = example(datatype)
        tensor_in = grpc_client.InferInput("x", list(array.shape), datatype)
        tensor_in.set_data_from_numpy(array)
        request = grpc_request(
            "m", [tensor_in], "", "g1", [grpc_client.InferRequestedOutput("y")], 0, False, False, 2, 1500, None
        )
        samples.append({
            "name": f"{datatype} as tritonclient sends it", "signature": datatype,
            "body_base64": b64(request.SerializeToString(deterministic=True)),
            "expect": good([tensor(datatype, [2, 3], raw(array))], id="g1", priority=2, timeout_us=1500,
                           outputs=[{"name": "y", "binary": True}]),
        })  # fmt: skip
        samples.append(typed(datatype, array))
    broken = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"12345678"])
    broken.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    mixed = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"\0" * 12])
    mixed.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    wide = service_pb2.ModelInferRequest(model_name="m")
    wide.inputs.add(name="x", datatype="INT8", shape=[1, 3]).contents.int_contents.extend([1, 200, 3])
    other = service_pb2.ModelInferRequest(model_name="m")
    other.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp64_contents.extend([1, 2, 3])
    whole = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[struct.pack("<2q", 7, -3)])
    whole.inputs.add(name="x", datatype="INT64", shape=[1, 2])
    listed = service_pb2.ModelInferRequest(model_name="m")
    listed.inputs.add(name="x", datatype="INT64", shape=[1, 2]).contents.int64_contents.extend([7, -3])
    texts = raw_texts([b"a", None, b""])
    missing = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[texts])
    missing.inputs.add(name="x", datatype="BYTES", shape=[3])
    fp64 = tensor("FP64", [1, 2], struct.pack("<2d", 7, -3))
    for name, which, request, expected in [
        ("raw whole numbers for an input of floats", "strict", whole, fp64),
        ("typed whole numbers for an input of floats", "strict", listed, fp64),
        ("missing text", "taking", missing, tensor("BYTES", [3], texts)),
    ]:
        body = b64(request.SerializeToString(deterministic=True))
        samples.append({"name": name, "signature": which, "body_base64": body, "expect": good([expected])})
    rounded = service_pb2.ModelInferRequest(model_name="m")
    rounded.inputs.add(name="x", datatype="INT64", shape=[1, 2]).contents.int64_contents.extend([7, (1 << 53) + 1])
    nan = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[struct.pack("<2d", float("nan"), 1)])
    nan.inputs.add(name="x", datatype="FP64", shape=[1, 2])
    unnamed = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[struct.pack("<2d", 1, 2)])
    unnamed.inputs.add(name="x", datatype="FP64", shape=[1, 2]).parameters["columns"].string_param = '["income","age"]'
    for name, which, request, says in [
        ("a typed whole number that would be rounded", "strict", rounded, ["'income'", "9007199254740993 of INT64"]),
        ("NaN where no value may be missing", "strict", nan, ["row 0, column 0 ('age')", "is missing (NaN)"]),
        ("columns in another order", "strict", unnamed, ["'age', 'income', but the request says 'income', 'age'"]),
        ("raw contents that are too short", "FP32", broken, ["'x'", "12 bytes", "8"]),
        ("typed and raw contents together", "FP32", mixed, ["raw_input_contents"]),
        ("typed contents out of range", "INT8", wide, ["contents[1]", "200", "INT8"]),
        ("contents in another type's list", "FP32", other, ["fp32_contents", "fp64_contents"]),
    ]:
        body = b64(request.SerializeToString(deterministic=True))
        samples.append({"name": name, "signature": which, "body_base64": body, "expect": bad("invalid_input", *says)})
    return samples


def typed(datatype: str, array: np.ndarray) -> dict[str, Any]:
    """The same tensor as typed contents, which FP16 does not have."""
    request = service_pb2.ModelInferRequest(model_name="m")
    contents = request.inputs.add(name="x", datatype=datatype, shape=array.shape).contents
    field = {
        "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
        "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
        "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "FP16": "fp32_contents",
        "BYTES": "bytes_contents",
    }[datatype]  # fmt: skip
    getattr(contents, field).extend(array.flatten().tolist())
    expect = good([tensor(datatype, [2, 3], raw(array))])
    if datatype == "FP16":
        expect = bad("invalid_input", "FP16", "raw_input_contents")
    body = b64(request.SerializeToString(deterministic=True))
    return {"name": f"{datatype} as typed contents", "signature": datatype, "body_base64": body, "expect": expect}


def descriptor() -> dict[str, Any]:
    """``{message: {field: [number, type, repeated]}}``, enum values and calls, as tritonclient has them."""
    messages: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    calls: dict[str, Any] = {}

    def walk(message: descriptor_pb2.DescriptorProto, prefix: str) -> None:
        name = f"{prefix}.{message.name}"
        messages[name] = {f.name: [f.number, f.type, f.type_name, f.label == 3] for f in message.field}
        for enum in message.enum_type:
            enums[f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}
        for inner in message.nested_type:
            walk(inner, name)

    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            walk(message, ".inference")
        for enum in file.enum_type:
            enums[f".inference.{enum.name}"] = {value.name: value.number for value in enum.value}
        for service in file.service:
            for method in service.method:
                streams = [method.client_streaming, method.server_streaming]
                calls[f"{service.name}/{method.name}"] = [method.input_type, method.output_type, *streams]
    return {"messages": messages, "enums": enums, "calls": calls}


def write(name: str, value: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    drop = [
        {k: v for k, v in s.items() if v is not None}
        for s in from_client() + written_good() + written_bad() + of_tables()
    ]
    write("rest_requests.json", {"signatures": SIGNATURES, "samples": drop})
    responses = [{k: v for k, v in s.items() if v is not None} for s in rest_responses()]
    write("rest_responses.json", {"signatures": SIGNATURES, "samples": responses})
    write("grpc_requests.json", {"signatures": SIGNATURES, "samples": grpc_requests()})
    write("descriptor.json", descriptor())


if __name__ == "__main__":
    main()
