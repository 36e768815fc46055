"""The JSON schema and the reference tables, derived from the declarations.

Reads :mod:`inferd.spec.settings`, hands on plain values and Markdown. Knows nothing of files and flags.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.spec.declare import Setting, settings_of
from inferd.spec.pipelines import Pipeline, Step
from inferd.spec.samples import SAMPLE_SCHEMA
from inferd.spec.settings import NAME_PATTERN, ModelSpec, ServerSpec
from inferd.spec.units import format_duration, format_size
from inferd.spec.values import Objective, Versions

__all__ = ["flag_of", "json_schema", "reference", "show"]

_DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *(us|µs|ms|s|m|min|h)$"},
    ]
}
_SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *([KMGT]i?B|kB|B)$"},
    ]
}
_NUMBER = {"type": "integer", "minimum": 1}
_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
    "required": ["name", "datatype", "shape"],
    "additionalProperties": False,
}
_AXIS = {"axis": {"type": "integer", "minimum": 1}}


def _by_name(properties: dict[str, Any]) -> dict[str, Any]:
    entry = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "object", "additionalProperties": entry}


_KINDS: dict[str, dict[str, Any]] = {
    "duration": _DURATION,
    "size": _SIZE,
    "objective": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"latency": {"type": "string"}, "percentile": {"type": "number"}},
                "required": ["latency"],
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "versions": {
        "anyOf": [
            {"enum": ["latest", "all"]},
            {
                "type": "object",
                "properties": {"latest": _NUMBER},
                "required": ["latest"],
                "additionalProperties": False,
            },
            {"type": "array", "items": _NUMBER, "minItems": 1},
        ]
    },
    "batching": {"enum": ["auto", "verify", "on", "off", True, False]},
    "padding": {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "inputs": {**_by_name({**_AXIS, "value": {"type": "number"}}), "minProperties": 1},
                    "outputs": _by_name(_AXIS),
                },
                "required": ["inputs"],
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "sequence": {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "idle_max": _DURATION,
                    "sequences_max": _NUMBER,
                    **{name: {"type": "string"} for name in ("start", "end", "ready", "id")},
                    "state": {
                        "type": "object",
                        "additionalProperties": {
                            "anyOf": [
                                {"type": "string"},
                                {
                                    "type": "object",
                                    "properties": {
                                        "output": {"type": "string"},
                                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                                    },
                                    "required": ["output"],
                                    "additionalProperties": False,
                                },
                            ]
                        },
                    },
                },
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "shares": {
        "anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}]
    },
    "sources": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {
            "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]
        },
    },
    "when": {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "tensor": {"type": "string"},
                    "equals": {},
                    "in": {"type": "array"},
                    "above": {"type": "number"},
                    "below": {"type": "number"},
                },
                "required": ["tensor"],
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "values": {"type": "object"},
    "warmup": {"anyOf": [{"type": "boolean"}, {"type": "array", "minItems": 1, "items": SAMPLE_SCHEMA}]},
    "tensors": {"anyOf": [{"type": "array", "items": _TENSOR}, {"type": "null"}]},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``inferd.yaml``, for editors."""
    model = _object(ModelSpec)
    own = {"path": {"type": "string"}, "namespace": {"type": "string", "pattern": NAME_PATTERN}}
    entry = {**model, "properties": {**own, **model["properties"]}, "required": ["path"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "inferd.yaml",
        "type": "object",
        "properties": {
            "server": _object(ServerSpec),
            "defaults": _object(ModelSpec, scope="all"),
            "models": {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, entry]}},
            "pipelines": {"type": "array", "items": _object(Pipeline)},
        },
        "required": ["models"],
        "additionalProperties": False,
    }


def reference() -> str:
    """Return every setting as Markdown tables: name, flag, default, meaning, and the reason for the default."""
    parts = []
    for title, spec in (
        ("Settings of the server", ServerSpec),
        ("Settings of a model", ModelSpec),
        ("Settings of a pipeline", Pipeline),
        ("Settings of a pipeline's step", Step),
    ):
        rows = [
            f"## {title}",
            "",
            "| setting | flag | default | meaning | why this default |",
            "|---|---|---|---|---|",
        ]
        for setting in settings_of(spec).values():
            flag = f"`{flag_of(setting)}`" if setting.flag else ""
            cells = [
                f"`{setting.key}`",
                flag,
                "" if setting.required else f"`{show(setting, setting.default)}`",
                setting.meaning,
                setting.why,
            ]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def flag_of(setting: Setting) -> str:
    """Return the command-line flag, e.g. ``--batch-rows-max``."""
    return "--" + setting.key.replace("_", "-")


def show(setting: Setting, value: Any) -> str:  # noqa: PLR0911 (one for each form)
    """Format ``value`` as YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Objective):
        latency = format_duration(value.latency_s)
        return latency if value.percentile == 99 else f"{{latency: {latency}, percentile: {value.percentile:g}}}"
    if isinstance(value, Versions):
        return _show_versions(value)
    if setting.kind == "duration":
        return format_duration(value)
    if setting.kind == "size":
        return format_size(value)
    return str(value)


def _show_versions(versions: Versions) -> str:
    if versions.listed:
        return str(list(versions.listed))
    if versions.latest is None:
        return "all"
    return "latest" if versions.latest == 1 else f"{{latest: {versions.latest}}}"


def _object(spec: type[msgspec.Struct], scope: str = "one") -> dict[str, Any]:
    settings = settings_of(spec).values()
    properties = {setting.key: _property(setting) for setting in settings if scope == "one" or setting.scope == "all"}
    required = [setting.key for setting in settings if setting.required]
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _property(setting: Setting) -> dict[str, Any]:
    described = {"description": f"{setting.meaning} {setting.why}"}
    if setting.kind == "steps":
        return {"type": "array", "minItems": 1, "items": _object(Step), **described}
    if not setting.required:
        described["default"] = show(setting, setting.default)
    if setting.kind != "plain":
        return {**_KINDS[setting.kind], **described}
    schema = msgspec.json.schema(setting.type)
    bounds = {"minimum": setting.ge, "maximum": setting.le, "pattern": setting.pattern}
    if not setting.required:
        described["default"] = setting.default
    return {**schema, **{key: bound for key, bound in bounds.items() if bound is not None}, **described}
