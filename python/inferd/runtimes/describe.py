"""The reference of the runtimes as Markdown, derived from their declarations.

Reads ``TAKES`` of the runtimes, hands on tables. Imports no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.runtimes import triton
from inferd.runtimes.registry import NAMES, runtime

if TYPE_CHECKING:
    from inferd.runtimes.base import Takes

__all__ = ["reference"]


def reference() -> str:
    """Return a table per runtime: datatypes, categories, missing values, names and outputs."""
    tables = [_table(runtime(name).TAKES, f"`runtime: {name}`") for name in NAMES]
    return "\n\n".join([*tables, _table(triton.TAKES, '`backend: "python"` in `config.pbtxt`')]) + "\n"


def _table(takes: Takes, chosen: str) -> str:
    rows = [
        ("types", takes.types),
        ("categories", takes.categories),
        ("missing values", takes.missing),
        ("names", takes.names),
        ("outputs", takes.outputs),
        ("`parameters:`", _parameters(takes)),
    ]
    lines = [f"## {takes.title}", "", f"| | {chosen} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {text} |".replace(" | None]", " \\| None]") for name, text in rows)])


def _parameters(takes: Takes) -> str:
    if isinstance(takes.parameters, str):
        return takes.parameters
    return "; ".join(f"`{name}`: {meaning}" for name, meaning in takes.parameters.items()) or "None."
