"""A model's inputs, outputs and input schemas, from the server's metadata and configuration.

Reads both, hands on :class:`ModelMetadata`. Absent fields are unknown, not errors. Knows nothing of values and of how
metadata is fetched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inferd.types import InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ConfigNeeded", "ModelMetadata", "parse_metadata", "with_config"]

_PARAMETER = "input_schemas"
"""The configuration parameter with the input schemas, for which gRPC metadata has no field."""


class ConfigNeeded(Exception):
    """The model's configuration is needed and was not fetched yet."""


@dataclass(frozen=True)
class ModelMetadata:
    """A model's inputs and outputs.

    Args:
        inputs: its inputs.
        outputs: its outputs.
        platform: the server's name of the runtime.
        schemas: schemas of tabular inputs by name; ``None``: not fetched yet.
        ignored: columns that frames may have and the model does not read; ``*`` matches any.
        optional: names of optional inputs; ``None``: not fetched yet.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec] = ()
    platform: str = ""
    schemas: Mapping[str, InputSchema] | None = None
    ignored: frozenset[str] = frozenset()
    optional: frozenset[str] | None = None

    def ignores(self, column: str) -> bool:
        """Whether a frame may have ``column`` although the model does not read it."""
        return column in self.ignored or "*" in self.ignored

    def input_schema(self, name: str) -> InputSchema | None:
        """Return the schema of the input ``name``; None: unknown.

        Raises:
            ConfigNeeded: not fetched yet.
        """
        if self.schemas is None:
            raise ConfigNeeded
        return self.schemas.get(name)

    def is_optional(self, name: str) -> bool:
        """Whether a request may omit the input ``name``.

        Raises:
            ConfigNeeded: not fetched yet.
        """
        if self.optional is None:
            raise ConfigNeeded
        return name in self.optional


def parse_metadata(metadata: Mapping[str, Any], *, complete: bool) -> ModelMetadata:
    """Parse a model's metadata.

    Args:
        metadata: the server's JSON.
        complete: whether it includes input schemas if the model has any.
    """
    schemas = {
        tensor["name"]: _schema(tensor["name"], tensor["parameters"])
        for tensor in metadata["inputs"]
        if {"columns", "missing", "largest"} & tensor.get("parameters", {}).keys()
    }
    return ModelMetadata(
        _specs(metadata["inputs"]),
        _specs(metadata.get("outputs", ())),
        metadata.get("platform", ""),
        schemas if complete else None,
        frozenset(metadata.get("parameters", {}).get("ignored_columns", ())),
    )


def with_config(model: ModelMetadata, config: Mapping[str, Any]) -> ModelMetadata:
    """Add the schemas and optional inputs of the model's configuration; an empty one adds none."""
    optional = frozenset(one["name"] for one in config.get("input", ()) if one.get("optional"))
    if model.schemas is not None:
        return replace(model, optional=optional)
    try:
        described = json.loads(config["parameters"][_PARAMETER]["string_value"])
        schemas = {name: _schema(name, fields) for name, fields in described["inputs"].items()}
        ignored = frozenset(described.get("ignored_columns", ()))
    except (KeyError, TypeError, ValueError, AttributeError):
        # The server does not have this parameter.
        schemas, ignored = {}, frozenset()
    return replace(model, schemas=schemas, ignored=ignored, optional=optional)


def _schema(name: str, fields: Mapping[str, Any]) -> InputSchema:
    columns = tuple(fields.get("columns") or ())
    return InputSchema(name, columns, missing=bool(fields.get("missing")), largest=fields.get("largest"))


def _specs(described: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [
        TensorSpec(tensor["name"], tensor["datatype"], tuple(int(dim) for dim in tensor["shape"]))
        for tensor in described
    ]
