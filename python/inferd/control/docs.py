"""Where the files of the page at ``/docs`` are: in a package that ships Swagger UI.

Looks up an installed package, hands on a folder. Imports nothing of it, so that its own dependencies cost nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["docs_folder"]

_PACKAGE = "flask_swagger_ui"
_NEEDED = ("swagger-ui.css", "swagger-ui-bundle.js")


def docs_folder() -> Path | None:
    """The folder of a Swagger UI distribution; None where the extra ``docs`` is not installed."""
    package = find_spec(_PACKAGE)
    for place in (package.submodule_search_locations if package is not None else None) or ():
        folder = Path(place).resolve() / "dist"
        if all((folder / name).is_file() for name in _NEEDED):
            return folder
    return None
