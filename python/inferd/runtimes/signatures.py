"""Signatures of models that don't declare one: from what a library says, or from one run.

Reads arrays and dtypes, hands on :class:`TensorSpec`. Worker side only: imports numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.types import DATATYPES, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferd.runtimes.base import Batch

__all__ = [
    "as_text",
    "chosen_signature",
    "datatype_of",
    "declared",
    "made_up",
    "matrix_input",
    "narrowed",
    "outputs_between",
    "outputs_seen",
    "with_declared",
]

_DATATYPES = {np.dtype(dtype): name for name, dtype in reversed(DATATYPES.items())}


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a numpy dtype; text and objects are BYTES.

    Raises:
        ModelFailed: the protocol has no such type.
    """
    # Whether or not a package that makes it a type of numpy is there.
    if str(dtype) == "bfloat16" or np.dtype(dtype).name == "bfloat16":
        return "BF16"
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUT":
        return "BYTES"
    if dtype not in _DATATYPES:
        raise ModelFailed(f"the model uses {dtype}, which the protocol can't carry")
    return _DATATYPES[dtype]


def declared(settings: dict[str, Any], side: str) -> tuple[TensorSpec, ...] | None:
    """What ``inputs:`` or ``outputs:`` of the model's settings say."""
    specs = settings["signature"][side]
    return None if specs is None else tuple(TensorSpec(**spec) for spec in specs)


def with_declared(settings: dict[str, Any], inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """A signature in which what the settings declare stands above what the model says."""
    return Signature(declared(settings, "inputs") or tuple(inputs), declared(settings, "outputs") or tuple(outputs))


def narrowed(settings: dict[str, Any], inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """The signature that a model itself has, free sizes being those that the settings declare.

    What is declared otherwise is not taken up: the control plane holds it against this signature and ends the load.
    """

    def settled(side: str, own: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        said = {spec.name: spec for spec in declared(settings, side) or ()}
        return tuple(said[spec.name] if spec.name in said and _fits(said[spec.name], spec) else spec for spec in own)

    return Signature(settled("inputs", inputs), settled("outputs", outputs))


def _fits(said: TensorSpec, own: TensorSpec) -> bool:
    sizes = zip(said.shape, own.shape, strict=False)
    return (
        said.datatype == own.datatype
        and len(said.shape) == len(own.shape)
        and all(size in (-1, wanted) for wanted, size in sizes)
    )


def chosen_signature(names: Sequence[str], parameters: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The signature of a file that is served, and what an operator is told where there are others.

    Args:
        names: those in the file, in its order.
        parameters: of the model's settings; ``signature`` names one.

    Returns:
        The one that is named, ``serving_default``, or the only one; ``None`` where there is none.

    Raises:
        ModelFailed: there is none of that name, or which of several is meant is not known.
    """
    wanted = parameters.get("signature")
    if wanted is None:
        wanted = names[0] if len(names) == 1 else "serving_default" if "serving_default" in names else None
    if wanted not in names and (names or wanted is not None):
        what = f"no signature '{wanted}'" if wanted else f"{len(names)} signatures, and none is serving_default"
        known = ", ".join(names) or "none"
        raise ModelFailed(
            f"the model has {what}\nhelp: parameters: {{signature: NAME}} in model.yaml serves one of {known}"
        )
    others = [name for name in names if name != wanted]
    if not others:
        return wanted, {}
    remedy = f"parameters: {{signature: {others[0]}}} serves another"
    return wanted, {"signature": str(wanted), "left_out": f"signatures {', '.join(map(repr, others))} ({remedy})"}


def made_up(specs: Iterable[TensorSpec], rows: int, size: int = 1, fill: int | None = None) -> Batch:
    """Inputs of ``rows`` rows to try a model with, the same every time.

    Args:
        specs: what it takes.
        rows: where dimension 0 is free.
        size: of other free dimensions.
        fill: every number; ``None``: fractions between 0 and 1, whole numbers 0 and 1, which most vocabularies have.
    """
    random = np.random.default_rng(rows)
    batch: Batch = {}
    for spec in specs:
        shape = [(rows if at == 0 else size) if dim < 0 else dim for at, dim in enumerate(spec.shape)]
        if spec.datatype == "BYTES":
            batch[spec.name] = np.full(shape, b"text", object)
            continue
        values = random.random(shape) if spec.datatype.startswith("FP") else random.integers(0, 2, shape)
        batch[spec.name] = (values if fill is None else np.full(shape, fill)).astype(DATATYPES[spec.datatype])
    return batch


def matrix_input(columns: int) -> tuple[TensorSpec, ...]:
    """The one input of most models of tables: ``x``, FP32, a row for each sample."""
    return (TensorSpec("x", "FP32", (-1, columns)),)


def outputs_seen(outputs: Batch) -> tuple[TensorSpec, ...]:
    """The description of what one run gave, dimension 0 free."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return tuple(
        TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]) if array.ndim else ())
        for name, array in arrays.items()
    )


def outputs_between(runs: Sequence[Batch]) -> tuple[TensorSpec, ...]:
    """The description of what runs gave whose inputs differed in every free size: sizes that differ are free.

    So is the size of what was empty, which depends on values.

    Raises:
        ModelFailed: the runs differ in more than sizes.
    """
    specs = []
    for name in runs[0]:
        one, *others = (np.asarray(run.get(name)) for run in runs)
        sizes = list(one.shape)
        for other in others:
            if one.dtype != other.dtype or one.ndim != other.ndim:
                found = f"{one.dtype} of shape {one.shape}", f"{other.dtype} of shape {other.shape}"
                raise ModelFailed(f"output '{name}' is {found[0]} in one run and {found[1]} in another")
            sizes = [size if size == its and size else -1 for size, its in zip(sizes, other.shape, strict=True)]
        specs.append(TensorSpec(name, datatype_of(one.dtype), tuple(sizes)))
    return tuple(specs)


def as_text(array: np.ndarray) -> np.ndarray:
    """An array of ``str`` from one of ``bytes``."""
    text = np.empty(array.shape, dtype=object)
    text.reshape(-1)[:] = [element.decode() for element in array.reshape(-1)]
    return text
