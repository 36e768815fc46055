"""``inferd new``: a project with a model that works and a test that passes.

Writes files, hands on their names. Knows nothing of servers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from inferd.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_project"]

_APP = '''\
"""What this project serves: ``inferd serve inferd.yaml``."""

from inferd import InvalidInput, Model


class {class_}(Model):
    """Replace what is here by your own model; inferd.Model says what annotations mean."""

    def load(self) -> None:
        self.words = {{"good": 1.0, "great": 2.0, "bad": -1.0, "awful": -2.0}}

    def predict(self, text: list[str]) -> list[float]:
        for row, one in enumerate(text):
            if not one.strip():
                raise InvalidInput("there is no text", row=row)
        return [sum(self.words.get(word, 0.0) for word in one.lower().split()) for one in text]
'''

_TEST = '''\
"""The model, without a server. ``python -m pytest`` runs this."""

from pathlib import Path

import pytest

from inferd import InvalidInput, testing

APP = Path(__file__).parents[1] / "{module}.py"


def test_words_are_weighed():
    with testing.loaded(APP) as model:
        assert model.predict(text=["a good day", "an awful one"]) == [1.0, -2.0]


def test_a_row_without_text_is_refused():
    with testing.loaded(APP) as model, pytest.raises(InvalidInput, match="row 1"):
        model.predict(text=["good", " "])
'''

_SPEC = """\
models:
  - path: {module}.py
    name: {name}
    slo: 20ms
"""

_README = """\
# {name}

    inferd serve inferd.yaml
    curl -s localhost:8000/v2/models/{name}/infer \\\\
      -d '{{"inputs": [{{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a good day"]}}]}}'
    python -m pytest
"""


def write_project(folder: Path) -> list[Path]:
    """Write the files of a project into ``folder``, which is new or empty.

    Returns:
        What was written.

    Raises:
        InvalidInput: the folder has something in it, or its name can't be a model's.
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise InvalidInput(f"'{name}' can't be a model's name; letters, digits, - and _ can, and a letter comes first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"'{folder}' is there already\nhelp: choose another name, or empty it")
    words = {
        "name": name,
        "module": name.replace("-", "_").lower(),
        "class_": "".join(word.capitalize() for word in re.split(r"[-_]", name)),
    }
    texts = {
        f"{words['module']}.py": _APP,
        f"tests/test_{words['module']}.py": _TEST,
        "inferd.yaml": _SPEC,
        "README.md": _README.replace("\\\\", "\\"),
    }
    written = []
    for file, text in texts.items():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.format(**words), encoding="utf-8")
        written.append(target)
    return written
