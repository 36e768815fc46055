"""What users hold: tensors' descriptions and signatures.

Reads and writes the JSON form that the data plane speaks; hands on plain frozen values.
Knows nothing of numpy: a description needs no array.
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
    # numpy has no bfloat16: the upper half of a binary32, as its bits.
    "BF16": "uint16",
    # Arrays of ``bytes`` objects.
    "BYTES": "object",
}
"""The protocol's datatypes, each with the numpy dtype that a Python model sees."""

MISSING = 0xFFFF_FFFF
"""The length of a BYTES element that is missing. Only inputs whose schema takes missing values may have any."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: the name that clients use.
        datatype: the protocol's name of the element type, e.g. ``"FP32"``.
        shape: the dimensions, the batch dimension included where there is one; -1 stands for any size.

    Raises:
        InvalidInput: the datatype is unknown, or a dimension is below -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise InvalidInput(f"tensor '{self.name}': unknown datatype '{self.datatype}'; one of {known} is expected")
        object.__setattr__(self, "shape", tuple(self.shape))
        if any(dim < -1 for dim in self.shape):
            raise InvalidInput(
                f"tensor '{self.name}': shape {list(self.shape)} has a dimension below -1; -1 means any size"
            )

    def to_json(self) -> dict[str, Any]:
        """The form that crosses to the data plane."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def __str__(self) -> str:
        dims = ", ".join("?" if dim < 0 else str(dim) for dim in self.shape)
        return f"{self.name}: {self.datatype}[{dims}]"


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What an input of a model of tables takes, beside its type.

    Args:
        input: the input's name.
        columns: the names of the columns of dimension 1, in their order; empty where they have none.
        missing: whether a missing value (NaN of numbers, null of text) is a value to the model.
        largest: the greatest magnitude that the model takes; what is greater, infinity too, is refused. ``None``:
            anything.
    """

    input: str
    columns: tuple[str, ...] = ()
    missing: bool = True
    largest: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The form that crosses to the data plane."""
        return {
            "input": self.input,
            "columns": list(self.columns),
            "missing": self.missing,
            "largest": self.largest,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the decision whether requests may share a run rests on.

    Args:
        by: who decided: ``setting``, ``shapes``, ``analysis`` (a proof), ``probe`` or ``traffic``.
        why: in words for the operator.
        rows: how many were compared, alone and in company; 0 where none were.
    """

    by: str
    why: str
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """The form that crosses to the data plane."""
        return {"by": self.by, "why": self.why, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one model version.

    Args:
        inputs: what a request carries, each once.
        outputs: what an answer carries.
        batching_off: why requests never share a run of the model; ``None`` where they may.
        decoupled: whether a request gets any number of responses instead of one.
        verdict: what that rests on, where it is known.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching_off: str | None = None
    decoupled: bool = False
    verdict: Verdict | None = None

    @property
    def batched(self) -> bool:
        """Whether dimension 0 of every input and output counts rows."""
        return self.batching_off is None

    def to_json(self) -> dict[str, Any]:
        """The form that crosses to the data plane."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "batching": "on" if self.batching_off is None else {"off": {"reason": self.batching_off}},
            "decoupled": self.decoupled,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Signature:
        """The value that :meth:`to_json` gave."""
        batching = value["batching"]
        verdict = value.get("extras", {}).get("verdict")
        return cls(
            inputs=tuple(TensorSpec(**spec) for spec in value["inputs"]),
            outputs=tuple(TensorSpec(**spec) for spec in value["outputs"]),
            batching_off=None if batching == "on" else batching["off"]["reason"],
            decoupled=value.get("decoupled", False),
            verdict=None if verdict is None else Verdict(**verdict),
        )
