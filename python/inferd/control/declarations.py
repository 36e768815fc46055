"""What files say that a model takes and gives, held against what it does take and give.

Reads declarations and signatures, hands on what differs. Knows nothing of where either came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.types import Signature, TensorSpec

__all__ = ["Declared", "differences"]


class Declared(NamedTuple):
    """Inputs and outputs as files have them; None or empty: they don't say."""

    inputs: Sequence[TensorSpec] | None
    outputs: Sequence[TensorSpec] | None
    open_sizes: bool = False
    """Whether a size may be declared open that is fixed, as ensembles do whose tensors pass through several models."""


def differences(declared: Declared, signature: Signature) -> list[str]:
    """What ``declared`` has otherwise than ``signature``, each a sentence.

    A model may give more outputs than are declared, and may leave open a size that is declared.
    """
    found = _tensors("input", declared.inputs or (), signature.inputs, declared.open_sizes)
    if declared.inputs:
        names = {spec.name for spec in declared.inputs}
        found += [
            f"the model takes input '{spec}', which is not declared"
            for spec in signature.inputs
            if spec.name not in names
        ]
    return found + _tensors("output", declared.outputs or (), signature.outputs, declared.open_sizes)


def _tensors(side: str, declared: Sequence[TensorSpec], real: Sequence[TensorSpec], open_sizes: bool) -> list[str]:
    there = {spec.name: spec for spec in real}
    found = []
    for spec in declared:
        other = there.get(spec.name)
        if other is None:
            found.append(f"{side} '{spec.name}' is declared; the model has {', '.join(map(str, real)) or 'none'}")
        elif not _fits(spec, other, open_sizes):
            found.append(f"{side} '{spec}' is declared; the model has '{other}'")
    return found


def _fits(declared: TensorSpec, real: TensorSpec, open_sizes: bool) -> bool:
    return (
        declared.datatype == real.datatype
        and len(declared.shape) == len(real.shape)
        and all(
            size in (-1, stated) or (open_sizes and stated == -1)
            for stated, size in zip(declared.shape, real.shape, strict=True)
        )
    )
