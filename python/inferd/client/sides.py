"""What a model takes and gives, as a server describes it.

Reads metadata and configurations, hands on :class:`Sides`. What a server leaves out is not known, and no fault.
Knows nothing of values and of how descriptions are asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inferd.types import InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ConfigNeeded", "Sides", "sides_of", "with_config"]

_PARAMETER = "input_schemas"
"""Where a configuration has what gRPC's metadata has no place for."""


class ConfigNeeded(Exception):
    """What is asked for stands in the model's configuration, which was not read yet."""


@dataclass(frozen=True)
class Sides:
    """What a model takes and gives.

    Args:
        inputs: its inputs.
        outputs: its outputs.
        platform: the server's name for what runs it.
        schemas: what inputs of tables take beside their type, by name; ``None``: not asked for yet.
        ignored: columns that frames may have and that the model does not read; ``*`` stands for any.
        optional: inputs that a request may leave out; ``None``: not asked for yet.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec] = ()
    platform: str = ""
    schemas: Mapping[str, InputSchema] | None = None
    ignored: frozenset[str] = frozenset()
    optional: frozenset[str] | None = None

    def ignores(self, column: str) -> bool:
        """Whether a frame may have ``column``, which the model does not read."""
        return column in self.ignored or "*" in self.ignored

    def schema_of(self, name: str) -> InputSchema | None:
        """What the input ``name`` takes beside its type; None: nothing is known.

        Raises:
            ConfigNeeded: it was not asked for yet.
        """
        if self.schemas is None:
            raise ConfigNeeded
        return self.schemas.get(name)

    def is_optional(self, name: str) -> bool:
        """Whether a request may leave the input ``name`` out.

        Raises:
            ConfigNeeded: it was not asked for yet.
        """
        if self.optional is None:
            raise ConfigNeeded
        return name in self.optional


def sides_of(metadata: Mapping[str, Any], *, complete: bool) -> Sides:
    """The inputs and outputs that a model's metadata describes.

    Args:
        metadata: the server's.
        complete: whether it says of columns and missing values what there is to say.
    """
    schemas = {
        tensor["name"]: _schema(tensor["name"], tensor["parameters"])
        for tensor in metadata["inputs"]
        if {"columns", "missing", "largest"} & tensor.get("parameters", {}).keys()
    }
    return Sides(
        _specs(metadata["inputs"]),
        _specs(metadata.get("outputs", ())),
        metadata.get("platform", ""),
        schemas if complete else None,
        frozenset(metadata.get("parameters", {}).get("ignored_columns", ())),
    )


def with_config(sides: Sides, config: Mapping[str, Any]) -> Sides:
    """``sides`` with what the model's configuration says besides; an empty one says nothing."""
    optional = frozenset(one["name"] for one in config.get("input", ()) if one.get("optional"))
    if sides.schemas is not None:
        return replace(sides, optional=optional)
    try:
        described = json.loads(config["parameters"][_PARAMETER]["string_value"])
        schemas = {name: _schema(name, fields) for name, fields in described["inputs"].items()}
        ignored = frozenset(described.get("ignored_columns", ()))
    except (KeyError, TypeError, ValueError, AttributeError):
        # A server that has no such thing.
        schemas, ignored = {}, frozenset()
    return replace(sides, schemas=schemas, ignored=ignored, optional=optional)


def _schema(name: str, fields: Mapping[str, Any]) -> InputSchema:
    columns = tuple(fields.get("columns") or ())
    return InputSchema(name, columns, missing=bool(fields.get("missing")), largest=fields.get("largest"))


def _specs(described: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [
        TensorSpec(tensor["name"], tensor["datatype"], tuple(int(dim) for dim in tensor["shape"]))
        for tensor in described
    ]
