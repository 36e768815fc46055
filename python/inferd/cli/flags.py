"""Flags of the command line, derived from the declarations of settings.

Reads :mod:`inferd.spec`, hands on click options and the settings that were given through them.
Knows nothing of any single setting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import click

from inferd.spec.convert import convert_value
from inferd.spec.declare import Setting, settings_of
from inferd.spec.describe import flag_of, show
from inferd.spec.settings import ModelSpec, ServerSpec

if TYPE_CHECKING:
    from inferd.spec.files import Given

__all__ = ["given_by", "setting_flags"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Set(NamedTuple):
    """A value that was given; it may be None."""

    value: Any


class _SettingType(click.ParamType[Any]):
    """The type of one setting's flag."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.name = {"duration": "DURATION", "size": "SIZE", "objective": "DURATION"}.get(setting.kind, "") or _metavar(
            setting
        )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Set:
        if isinstance(value, _Set):
            return value
        try:
            return _Set(convert_value(self._setting, value, text=True))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


def setting_flags(command: _Command) -> _Command:
    """Add a flag for every setting that is one; they arrive as keyword arguments."""
    # click shows options in the reverse of the order in which decorators ran.
    for spec in (ModelSpec, ServerSpec):
        for setting in reversed(settings_of(spec).values()):
            if setting.flag:
                command = _option(setting)(command)
    return command


def given_by(flags: dict[str, Any]) -> tuple[Given, Given]:
    """The settings of the server and of the models that ``flags`` set."""
    sides = []
    for spec in (ServerSpec, ModelSpec):
        names = {setting.name for setting in settings_of(spec).values()}
        given = {name: value for name, value in flags.items() if name in names and value is not None}
        sides.append({name: value.value if isinstance(value, _Set) else value for name, value in given.items()})
    return sides[0], sides[1]


def _option(setting: Setting) -> Callable[[_Command], _Command]:
    flag = flag_of(setting)
    default = "" if setting.default is None else f"  [default: {show(setting, setting.default)}]"
    if bool in (setting.type.__origin__, *get_args(setting.type.__origin__)):
        names = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(names, setting.name, default=None, help=setting.meaning + default)
    return click.option(flag, setting.name, type=_SettingType(setting), default=None, help=setting.meaning + default)


def _metavar(setting: Setting) -> str:
    choices = [choice for choice in get_args(setting.type.__origin__) if isinstance(choice, str)]
    if setting.kind == "batching":
        choices = ["auto", "verify", "on", "off"]
    if choices:
        return "|".join(choices)
    return "TEXT" if "str" in str(setting.type.__origin__) else "NUMBER"
