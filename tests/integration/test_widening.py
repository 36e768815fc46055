"""Inputs sent in a narrower type than the model's: taken where every value stays exact, in every form of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import inferd
from outside import models, tables
from outside.tables import FORMS, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIRS = {
    "FP64": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32"],
    "FP32": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16"],
    "INT64": ["BOOL", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32"],
    "INT32": ["BOOL", "UINT8", "UINT16", "INT8", "INT16"],
    "UINT64": ["BOOL", "UINT8", "UINT16", "UINT32"],
}
"""For each type of a model, those that are widened to it."""

PIPELINE = """
models: [fp32.onnx, fp64.onnx, int64.onnx]
pipelines:
  - name: chain
    steps:
      - {name: narrow, model: fp32, inputs: {x: numbers}}
      - {name: wide, model: fp64, inputs: {x: narrow.y}}
    outputs: {result: wide.y}
  - name: shared
    steps:
      - {name: narrow, model: fp32, inputs: {x: numbers}}
      - {name: wide, model: fp64, inputs: {x: numbers}}
    outputs: {narrow: narrow.y, wide: wide.y}
  - name: whole
    steps:
      - {name: whole, model: int64, inputs: {x: numbers}}
      - {name: wide, model: fp64, inputs: {x: whole.y}}
    outputs: {result: wide.y}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("widening")
    for datatype in PAIRS:
        models.identity(folder / f"{datatype.lower()}.onnx", datatype, ["n", 2])
    (folder / "inferd.yaml").write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        files = [folder / f"{datatype.lower()}.onnx" for datatype in PAIRS if datatype not in ("FP32", "FP64", "INT64")]
        with inferd.Server(folder / "inferd.yaml", *files, threads=1, shared_memory=True) as server:
            yield server.address


def edges(datatype: str) -> list:
    """A row of the greatest and the least of a type, as far as they are exact everywhere."""
    if datatype == "BOOL":
        return [[True, False]]
    if datatype in ("FP16", "BF16", "FP32"):
        return [[0.1, -1.5e-5]]
    info = np.iinfo(datatype.lower())
    # Powers of two are exact in every type of floats.
    most = 2 ** (info.bits - 1) if info.min == 0 else 2 ** (info.bits - 2)
    return [[int(info.min), most]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wide", PAIRS)
def test_every_narrower_type_is_widened_without_loss(address: str, wide: str, form: str) -> None:
    for datatype in PAIRS[wide]:
        if (datatype in ("FP16", "BF16") and form == "gRPC typed") or (datatype == "BF16" and form == "JSON"):
            continue
        tensor = Tensor("x", datatype, edges(datatype))
        answer = FORMS[form](address, wide.lower(), tensor)
        bits = tensor.array
        array = (bits.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else bits
        kind = {"FP64": np.float64, "FP32": np.float32}.get(wide) or np.dtype(wide.lower())
        assert answer.error is None, (datatype, answer)
        np.testing.assert_array_equal(np.array(answer.outputs["y"], kind), array.astype(kind).reshape(-1), datatype)


@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_would_be_rounded_is_named(address: str, form: str) -> None:
    values = [[1, 2**53], [2**53 + 1, 0]]
    answer = FORMS[form](address, "fp64", Tensor("x", "INT64", values))
    assert answer.error is not None
    assert answer.error.startswith(
        "row 1, column 0 of input 'x' is 9007199254740993 of INT64, which FP64 would round to 9007199254740992"
    )
    answer = FORMS[form](address, "fp32", Tensor("x", "INT32", [[2**24 + 1, 0]]))
    assert answer.error is not None
    assert "16777217 of INT32, which FP32 would round" in answer.error


@pytest.mark.parametrize("form", FORMS)
def test_narrowing_is_refused_with_what_may_be_sent(address: str, form: str) -> None:
    for wide, datatype in [
        ("fp32", "FP64"),
        ("int32", "INT64"),
        ("int64", "UINT64"),
        ("int64", "FP32"),
        ("uint64", "INT8"),
    ]:
        answer = FORMS[form](address, wide, Tensor("x", datatype, [[1, 0]]))
        assert answer.error is not None
        assert f"has datatype {datatype} but {wide.upper()} is expected (or one that is widened" in answer.error


def test_numbers_are_read_in_the_type_that_was_said(address: str) -> None:
    answer = tables.rest_json(address, "fp64", Tensor("x", "FP32", [[0.1, 16777217.0]]))
    assert answer.outputs["y"] == [float(np.float32(0.1)), 16777216.0]
    answer = tables.rest_json(address, "fp64", Tensor("x", "FP64", [[0.1, 16777217.0]]))
    assert answer.outputs["y"] == [0.1, 16777217.0]


def test_a_pipeline_widens_between_its_steps(address: str) -> None:
    rows = Tensor("numbers", "FP32", [[0.1, 2.0]])
    wide = [float(np.float32(0.1)), 2.0]
    assert tables.rest_json(address, "chain", rows).outputs == {"result": wide}
    # Two steps share an input: it is of the narrower type.
    shared = tables.grpc_raw(address, "shared", rows)
    assert shared.outputs == {"narrow": wide, "wide": wide}
    refused = tables.rest_json(address, "whole", Tensor("numbers", "INT64", [[2**53 + 1, 0]]))
    assert refused.status == 400
    assert "step 'wide' of pipeline 'whole'" in refused.error
    assert "would round to 9007199254740992" in refused.error
