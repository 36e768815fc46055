"""Tensor specifications and model signatures, as users see them.

Reads and writes the data plane's JSON form; hands on plain frozen values. Knows nothing of numpy: a specification needs
no array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inferd.errors import InvalidInput

__all__ = ["DATATYPES", "MISSING", "InputSchema", "Signature", "TensorSpec", "Verdict"]

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    # numpy has no bfloat16: the upper 16 bits of a binary32.
    "BF16": "uint16",
    # Arrays of ``bytes`` objects.
    "BYTES": "object",
}
"""The protocol's datatypes, each with the numpy dtype that a Python model sees."""

MISSING = 0xFFFF_FFFF
"""Length that marks a BYTES element as missing. Valid only for inputs whose schema allows missing values."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: the name that clients use.
        datatype: the protocol's name of the element type, e.g. ``"FP32"``.
        shape: the dimensions, including the batch dimension where there is one; -1 matches any size.

    Raises:
        InvalidInput: the datatype is unknown, or a dimension is below -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise InvalidInput(f"tensor '{self.name}': unknown datatype '{self.datatype}'; use one of {known}")
        object.__setattr__(self, "shape", tuple(self.shape))
        if any(dim < -1 for dim in self.shape):
            raise InvalidInput(
                f"tensor '{self.name}': shape {list(self.shape)} has a dimension below -1; -1 means any size"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the data plane's JSON form."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def __str__(self) -> str:
        dims = ", ".join("?" if dim < 0 else str(dim) for dim in self.shape)
        return f"{self.name}: {self.datatype}[{dims}]"


@dataclass(frozen=True, slots=True)
class InputSchema:
    """Constraints on an input of a tabular model, in addition to its datatype.

    Args:
        input: the input's name.
        columns: names of the columns along dimension 1, in order; empty if unnamed.
        missing: whether the model accepts missing values (NaN in numbers, null in text).
        largest: the greatest magnitude accepted; greater values, including infinity, are refused. ``None``: no limit.
    """

    input: str
    columns: tuple[str, ...] = ()
    missing: bool = True
    largest: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the data plane's JSON form."""
        return {
            "input": self.input,
            "columns": list(self.columns),
            "missing": self.missing,
            "largest": self.largest,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The evidence for whether requests may share a run.

    Args:
        by: source of the decision: ``setting``, ``shapes``, ``analysis`` (a proof), ``probe`` or ``traffic``.
        why: the reason, for operators.
        rows: number of rows compared alone and batched; 0 if none were.
    """

    by: str
    why: str
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the data plane's JSON form."""
        return {"by": self.by, "why": self.why, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one model version.

    Args:
        inputs: tensors of a request.
        outputs: tensors of a response.
        batching_off: why requests never share a run of the model; ``None`` if they may.
        decoupled: whether a request gets any number of responses instead of one.
        verdict: the evidence for ``batching_off``, if known.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching_off: str | None = None
    decoupled: bool = False
    verdict: Verdict | None = None

    @property
    def batched(self) -> bool:
        """Whether dimension 0 of every input and output is the batch dimension."""
        return self.batching_off is None

    def to_json(self) -> dict[str, Any]:
        """Return the data plane's JSON form."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "batching": "on" if self.batching_off is None else {"off": {"reason": self.batching_off}},
            "decoupled": self.decoupled,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Signature:
        """Parse the value returned by :meth:`to_json`."""
        batching = value["batching"]
        verdict = value.get("extras", {}).get("verdict")
        return cls(
            inputs=tuple(TensorSpec(**spec) for spec in value["inputs"]),
            outputs=tuple(TensorSpec(**spec) for spec in value["outputs"]),
            batching_off=None if batching == "on" else batching["off"]["reason"],
            decoupled=value.get("decoupled", False),
            verdict=None if verdict is None else Verdict(**verdict),
        )
