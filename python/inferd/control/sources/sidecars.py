"""Files in a model's folder that are no model: names of classes, and requests that warm it up.

Reads what the settings name, hands on settings of the data plane. Knows nothing of what the model takes and gives.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from inferd.spec.samples import Sample, SampleInput

__all__ = ["SAMPLES_FOLDER", "read_labels", "read_samples"]

SAMPLES_FOLDER = "warmup"
"""The folder of sample files in a model's folder."""


def read_labels(
    labels: Mapping[str, str | list[str]], folder: Path, place: str, faults: list[str]
) -> dict[str, dict[str, Any]]:
    """``LabelSettings`` of the data plane by output.

    Args:
        labels: names of classes, or the file that has one on each line.
        folder: where files are.
        place: where they were named, for messages.
        faults: takes what can't be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for output, names in labels.items():
        if not isinstance(names, str):
            found[output] = {"names": names, "file": None}
            continue
        data = _read(folder / names, f"{place}: labels: output '{output}'", faults)
        if data is None:
            continue
        try:
            found[output] = {"names": data.decode().splitlines(), "file": names}
        except UnicodeDecodeError:
            faults.append(f"{place}: labels: output '{output}': '{folder / names}' is not UTF-8 text")
    return found


def read_samples(
    warmup: bool | tuple[Sample, ...], folder: Path, place: str, faults: list[str]
) -> list[dict[str, Any]]:
    """``Sample`` of the data plane, one for each of ``warmup``; arguments as for :func:`read_labels`."""
    if isinstance(warmup, bool):
        return []
    return [
        {
            "name": sample.name,
            "rows": sample.rows,
            "count": sample.count,
            "inputs": _inputs(sample, folder / SAMPLES_FOLDER, f"{place}: warm-up sample '{sample.name}'", faults),
        }
        for sample in warmup
    ]


def _inputs(sample: Sample, folder: Path, place: str, faults: list[str]) -> dict[str, Any]:
    if sample.file is not None:
        return _request(folder / sample.file, place, faults)
    return {
        name: {
            "datatype": one.datatype,
            "shape": None if one.shape is None else list(one.shape),
            "data": _data(one, folder, f"{place}: input '{name}'", faults),
        }
        for name, one in sample.inputs.items()
    }


def _data(one: SampleInput, folder: Path, place: str, faults: list[str]) -> Any:
    if one.form == "values":
        return {"values": _plain(one.data, place, faults)}
    if one.form == "file":
        data = _read(folder / one.data, place, faults)
        return {"raw": base64.b64encode(data or b"").decode()}
    return one.form


def _plain(value: Any, place: str, faults: list[str]) -> Any:
    """``value`` where JSON has it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        faults.append(f"{place}: {value!r} is nothing that JSON has; write numbers, text, true, false, null or lists")
        return None
    return value


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    data: list[Any]


class _Request(msgspec.Struct):
    inputs: list[_Tensor]


def _request(file: Path, place: str, faults: list[str]) -> dict[str, Any]:
    """The inputs of a request as ``POST /v2/models/NAME/infer`` takes it."""
    data = _read(file, place, faults)
    if data is None:
        return {}
    try:
        request = msgspec.json.decode(data, type=_Request)
    except msgspec.DecodeError as fault:
        faults.append(
            f"{place}: '{file}' is no request in JSON: {fault}\n"
            'help: write {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
        )
        return {}
    return {
        one.name: {"datatype": one.datatype, "shape": one.shape, "data": {"values": one.data}} for one in request.inputs
    }


def _read(file: Path, place: str, faults: list[str]) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError as fault:
        faults.append(f"{place}: '{file}' can't be read: {fault.strerror}")
        return None
