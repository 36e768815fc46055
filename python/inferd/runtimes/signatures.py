"""Derive signatures of models that declare none, from a library's metadata or from runs.

Reads arrays and dtypes, hands on :class:`TensorSpec`. Worker side only: imports numpy. Knows nothing of any library.
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
    "chosen_signature",
    "datatype_of",
    "declared",
    "observed_outputs",
    "outputs_of_runs",
    "synthetic_inputs",
    "with_declared",
    "with_sizes",
]

_DATATYPES = {np.dtype(dtype): name for name, dtype in reversed(DATATYPES.items())}


def datatype_of(dtype: Any) -> str:
    """Return the protocol's datatype of a numpy dtype; text and objects are BYTES.

    Raises:
        ModelFailed: the protocol has no such datatype.
    """
    # Matched by name: the package that adds it to numpy may be missing.
    if str(dtype) == "bfloat16" or np.dtype(dtype).name == "bfloat16":
        return "BF16"
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUT":
        return "BYTES"
    if dtype not in _DATATYPES:
        raise ModelFailed(f"the model uses dtype {dtype}, which the protocol does not support")
    return _DATATYPES[dtype]


def declared(settings: dict[str, Any], side: str) -> tuple[TensorSpec, ...] | None:
    """Return ``inputs:`` or ``outputs:`` of the model's settings."""
    specs = settings["signature"][side]
    return None if specs is None else tuple(TensorSpec(**spec) for spec in specs)


def with_declared(settings: dict[str, Any], inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """Return a signature in which the settings take precedence over the model."""
    return Signature(declared(settings, "inputs") or tuple(inputs), declared(settings, "outputs") or tuple(outputs))


def with_sizes(settings: dict[str, Any], inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """Return the model's own signature, its dynamic dimensions replaced by declared sizes.

    Other differences are ignored here: the control plane compares the settings with this signature and fails the load.
    """

    def merged(side: str, own: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        given = {spec.name: spec for spec in declared(settings, side) or ()}
        return tuple(given[spec.name] if spec.name in given and _fits(given[spec.name], spec) else spec for spec in own)

    return Signature(merged("inputs", inputs), merged("outputs", outputs))


def _fits(given: TensorSpec, own: TensorSpec) -> bool:
    sizes = zip(given.shape, own.shape, strict=False)
    return (
        given.datatype == own.datatype
        and len(given.shape) == len(own.shape)
        and all(size in (-1, wanted) for wanted, size in sizes)
    )


def chosen_signature(names: Sequence[str], parameters: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
    """Choose the signature of a file to serve.

    Args:
        names: signatures in the file, in its order.
        parameters: of the model's settings; ``signature`` names one.

    Returns:
        The named one, ``serving_default``, or the only one, with facts for operators if there are others; ``None`` if
        the file has none.

    Raises:
        ModelFailed: the named one does not exist, or the choice is ambiguous.
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


def synthetic_inputs(specs: Iterable[TensorSpec], rows: int, size: int = 1, fill: int | None = None) -> Batch:
    """Generate ``rows`` rows to try a model with; deterministic.

    Args:
        specs: the model's inputs.
        rows: size of dimension 0 if dynamic.
        size: of other dynamic dimensions.
        fill: value of every number; ``None``: fractions in [0, 1), and integers 0 and 1, which most vocabularies have.
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


def observed_outputs(outputs: Batch) -> tuple[TensorSpec, ...]:
    """Return specifications of one run's outputs, dimension 0 dynamic."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return tuple(
        TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]) if array.ndim else ())
        for name, array in arrays.items()
    )


def outputs_of_runs(runs: Sequence[Batch]) -> tuple[TensorSpec, ...]:
    """Return specifications of the outputs of runs whose inputs differ in every dynamic size.

    Sizes that differ, or are 0, are dynamic.

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
