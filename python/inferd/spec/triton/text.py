"""Parse the text of a ``config.pbtxt`` into plain values, with the line of every field.

Reads the file, hands on a :class:`Config`. Knows nothing of what fields mean.

protobuf's parser checks the syntax. It keeps no lines, so a second pass over the tokens records them and reports every
unknown field, not only the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.spec.convert import Path, Source, nearest
from inferd.spec.triton.schema import config_class

if TYPE_CHECKING:
    from pathlib import Path as FilePath

__all__ = ["Config", "Mention", "load_config", "read_config"]

_CLOSING = {"{": "}", "<": ">"}
_QUOTES = ("'", '"')
# Values that equal an unset field.
_NOTHING = frozenset({"0", "0.0", "false", "False", "f", ""})


class Mention(NamedTuple):
    """A field in the text."""

    names: tuple[str, ...]
    """Names of the enclosing fields, and its own."""
    path: Path
    """The same with the positions of repeated fields."""
    line: int
    idle: bool
    """Whether its value is the default."""


class Config(NamedTuple):
    """The content of a ``config.pbtxt``."""

    values: dict[str, Any]
    """By name. Every scalar is present, messages only if the text has them; enumerations by name."""
    mentions: list[Mention]
    source: Source

    def says(self, *names: str) -> bool:
        """Whether the text has the field ``names``."""
        return any(mention.names == names for mention in self.mentions)


def load_config(file: FilePath, faults: list[str]) -> Config | None:
    """Read ``config.pbtxt``; None if unreadable. Appends faults to ``faults``."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as fault:
        faults.append(f"{file}: {fault.strerror}")
        return None
    except UnicodeDecodeError:
        faults.append(f"{file}: not UTF-8 text")
        return None
    return read_config(text, str(file), faults)


def read_config(text: str, name: str, faults: list[str]) -> Config | None:
    """Parse the text of the file ``name``; None if it is malformed."""
    message = config_class()()
    from google.protobuf import text_format

    try:
        # Unknown fields are reported below, with their nearest names.
        text_format.Parse(text, message, allow_unknown_field=True)
        walk = _Walk(text_format.Tokenizer(text.splitlines()), name, faults)
        walk.message(message.DESCRIPTOR, (), (), "")
    except text_format.ParseError as fault:
        where = f"{name}:{fault.GetLine()}" if fault.GetLine() else name
        faults.append(f"{where}: {_in_words(str(fault))}")
        return None
    except RecursionError:
        faults.append(f"{name}: nested too deep")
        return None
    return Config(_plain(message), walk.mentions, Source(name, walk.lines))


def _in_words(fault: str) -> str:
    # Strips the place from "3:7 : 'the whole line': what"; the caller has added its own.
    what = fault.split(" : ", 1)[-1].replace("inferd_triton.", "").replace("DataTypeScope.", "")
    return what.rsplit("': ", 1)[-1] if what.startswith("'") else what


class _Walk:
    """Walks the tokens of well-formed text."""

    def __init__(self, tokens: Any, name: str, faults: list[str]) -> None:
        self.mentions: list[Mention] = []
        self.lines: dict[Path, int] = {}
        self._tokens = tokens
        self._name = name
        self._faults = faults

    def message(self, kind: Any, names: tuple[str, ...], path: Path, end: str) -> None:
        """Walk the fields up to ``end``. ``kind``: the message's descriptor, None inside unknown fields."""
        counts: dict[str, int] = {}
        while not (self._tokens.AtEnd() or self._passed(end)):
            line = self._line()
            name = self._take()
            field = None if kind is None else kind.fields_by_name.get(name)
            if field is None and kind is not None:
                known = [field.name for field in kind.fields]
                self._faults.append(f"{self._name}:{line}: unknown field '{name}'{nearest(name, known)}")
            self._passed(":")
            more = True
            listed = self._passed("[")
            while more and not (listed and self._passed("]")):
                place: Path = (*path, name)
                if field is not None and _repeated(field):
                    place = (*place, counts.setdefault(name, 0))
                    counts[name] += 1
                self._value(field, (*names, name), place, self._line() if listed else line)
                self._passed(",")
                more = listed
            self._passed(",", ";")

    def _value(self, field: Any, names: tuple[str, ...], path: Path, line: int) -> None:
        """Walk one value, starting at the current token."""
        position = len(self.mentions)
        text = self._take()
        if text in _CLOSING:
            self.message(None if field is None else field.message_type, names, path, _CLOSING[text])
            idle = False
        else:
            text = self._scalar(text)
            first = "" if field is None or field.enum_type is None else field.enum_type.values[0].name
            idle = text in _NOTHING or text == first
        if field is not None:
            self.mentions.insert(position, Mention(names, path, line, idle))
            self.lines[path] = line
            if isinstance(path[-1], int):
                self.lines.setdefault(path[:-1], line)

    def _scalar(self, first: str) -> str:
        """Return the scalar's text without quotes."""
        if first[0] not in _QUOTES:
            return first
        text = first[1:-1]
        while self._tokens.token.startswith(_QUOTES):
            text += self._take()[1:-1]
        return text

    def _take(self) -> str:
        taken: str = self._tokens.token
        self._tokens.NextToken()
        return taken

    def _passed(self, *marks: str) -> bool:
        """Skip the current token if it is one of ``marks``; return whether it was."""
        if self._tokens.token in marks and not self._tokens.AtEnd():
            self._take()
            return True
        return False

    def _line(self) -> int:
        line: int = self._tokens.ParseError("").GetLine()
        return line


def _plain(message: Any) -> dict[str, Any]:
    """Return the fields by name."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of_messages = field.message_type.fields_by_name["value"].message_type is not None
            values[field.name] = {key: _plain(value[key]) if of_messages else value[key] for key in sorted(value)}
        elif _repeated(field):
            values[field.name] = [_one(field, item) for item in value]
        elif field.message_type is None or message.HasField(field.name):
            values[field.name] = _one(field, value)
    return values


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


def _repeated(field: Any) -> bool:
    # ``label`` is deprecated; older releases of protobuf have only that.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)
