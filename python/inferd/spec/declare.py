"""Declaration of settings, and access to what is declared.

Reads the annotations of the structs in :mod:`inferd.spec.settings`, hands on one :class:`Setting` for each. Knows
nothing of where values come from.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import msgspec

__all__ = ["Kind", "Scope", "Setting", "about", "settings_of"]

Kind = Literal[
    "plain",
    "duration",
    "size",
    "objective",
    "versions",
    "batching",
    "padding",
    "sequence",
    "tensors",
    "shares",
    "sources",
    "when",
    "steps",
    "values",
    "warmup",
]
"""How a value is written. ``plain``: as its type says."""

Scope = Literal["all", "one"]
"""``one``: applies to a single model only, not allowed in ``defaults:``."""


class Setting(NamedTuple):
    """One declared setting."""

    name: str
    """Name in Python, in the data plane and in its errors; differs from :attr:`key` where that is a keyword."""
    key: str
    """Name in YAML. The flag is the same with hyphens."""
    type: Any
    default: Any
    required: bool
    meaning: str
    why: str
    unit: str | None
    kind: Kind
    scope: Scope
    flag: bool
    ge: float | None
    le: float | None
    pattern: str | None


def about(  # noqa: PLR0913 (the columns of a declaration, each by name)
    meaning: str,
    *,
    why: str,
    unit: str | None = None,
    kind: Kind = "plain",
    scope: Scope = "all",
    flag: bool = True,
    ge: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
) -> msgspec.Meta:
    """Declare what a setting's name, type and default do not say.

    Args:
        meaning: what it is, and what zero or None does.
        why: the reason for the default.
        unit: the unit, where the name does not say it.
        kind: how the value is written.
        scope: whether it may be a default for all models.
        flag: whether the command line has a flag for it.
        ge: minimum.
        le: maximum.
        pattern: regular expression that text must match.
    """
    # msgspec rejects bounds on types that may be None, and on text that is converted to a number here.
    bounds = {"ge": ge, "le": le, "pattern": pattern}
    return msgspec.Meta(
        description=meaning,
        extra={"why": why, "unit": unit, "kind": kind, "scope": scope, "flag": flag, **bounds},
    )


@cache
def settings_of(spec: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return every setting that ``spec`` declares, by its key."""
    return {setting.key: setting for setting in map(_setting, msgspec.structs.fields(spec))}


def _setting(field: msgspec.structs.FieldInfo) -> Setting:
    metas = [meta for meta in _metadata(field.type) if isinstance(meta, msgspec.Meta) and meta.extra]
    if not metas:
        raise TypeError(f"setting '{field.name}' is declared without about()")
    meta = metas[-1]
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return Setting(
        name=field.name,
        key=field.encode_name,
        type=field.type,
        default=default,
        required=field.required,
        meaning=meta.description or "",
        **(meta.extra or {}),
    )


def _metadata(annotated: Any) -> tuple[Any, ...]:
    return get_args(annotated)[1:]
