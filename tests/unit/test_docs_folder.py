"""Where the page's files are looked for."""

from __future__ import annotations

import sys

from inferd.control.docs import docs_folder


def package(folder, *names):
    dist = folder / "flask_swagger_ui" / "dist"
    dist.mkdir(parents=True)
    (folder / "flask_swagger_ui" / "__init__.py").write_text("raise RuntimeError('it is not imported')\n")
    for name in names:
        (dist / name).touch()
    return dist


def test_the_files_are_found_without_importing_their_package(tmp_path, monkeypatch):
    dist = package(tmp_path, "swagger-ui.css", "swagger-ui-bundle.js")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert docs_folder() == dist
    assert "flask_swagger_ui" not in sys.modules


def test_a_package_without_the_files_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert docs_folder() is None
    package(tmp_path, "swagger-ui.css")
    assert docs_folder() is None
