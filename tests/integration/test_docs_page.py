"""The page at /docs, with the files of the package that brings them."""

from __future__ import annotations

import re

import httpx
import pytest

import inferd
from outside import models


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = models.identity(tmp_path_factory.mktemp("docs") / "four.onnx", "FP32", ["n", 4])
    with inferd.Server(file, threads=1) as server:
        yield server


def test_the_page_and_every_file_that_it_names_are_served(server):
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/page.js", "openapi.json"} <= set(named)
    for name in named:
        answer = httpx.get(page.url.join(name))
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].partition(";")[0] in (
            "text/css",
            "text/javascript",
            "image/png",
            "application/json",
        )
    assert "SwaggerUIBundle" in httpx.get(f"{server.url}/docs/swagger-ui-bundle.js").text


def test_nothing_refers_to_another_host(server):
    page = httpx.get(f"{server.url}/docs")
    own = page.text + httpx.get(f"{server.url}/docs/page.js").text
    assert "//" not in re.sub(r"^ *//.*$", "", own, flags=re.MULTILINE)
    styles = httpx.get(f"{server.url}/docs/swagger-ui.css").text
    assert all(target.strip("\"'").startswith("data:") for target in re.findall(r"url\(([^)]*)", styles))
    assert "@import" not in styles
    # Whatever the script would ask for elsewhere, the browser does not.
    policy = dict(one.strip().split(" ", 1) for one in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy["script-src"], policy["connect-src"]} == {"'self'"}
    assert not any("http" in sources or "*" in sources for sources in policy.values())


def test_a_file_is_sent_once_over_http2_as_well(server):
    with httpx.Client(http1=False, http2=True) as client:
        first = client.get(f"{server.url}/docs/swagger-ui-bundle.js")
        assert first.headers["content-encoding"] == "gzip"
        again = client.get(first.url, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = client.head(first.url, headers={"Accept-Encoding": "identity"})
        assert (head.content, int(head.headers["content-length"])) == (b"", len(first.content))


def test_it_can_be_left_out(tmp_path):
    file = models.identity(tmp_path / "four.onnx", "FP32", ["n", 4])
    with inferd.Server(file, threads=1, docs=False) as server:
        answer = httpx.get(f"{server.url}/docs")
    assert answer.status_code == 404
    assert "leave the setting docs at true" in answer.json()["error"]
