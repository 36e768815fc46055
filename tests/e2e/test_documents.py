"""What documents show is run: every fenced block below a line ``<!-- tested -->``.

``bash`` blocks run line by line in a folder with ``fraud.onnx`` and ``models/``. A line that begins with ``inferd
serve`` is left running until the block ends, and the next line waits for its readiness. ``python`` blocks run as they
are; a file that a document shows is written by a block of any language below ``<!-- tested: NAME -->``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from outside.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MARKED = re.compile(
    r"^<!-- tested(?:: (?P<name>\S+))? -->\n+```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    document: Path
    language: str
    text: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.text.splitlines()[0]}"


def blocks() -> list[Block]:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [
        Block(document, found["language"], found["text"], found["name"])
        for document in sorted(documents)
        for found in MARKED.finditer(document.read_text())
    ]


RUN = [block for block in blocks() if block.file is None]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("block", RUN, ids=str)
def test_what_a_document_shows_works(block: Block, folder: Path) -> None:
    for shown in blocks():
        if shown.file is not None and shown.document == block.document:
            (folder / shown.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / shown.file).write_text(shown.text)
    if block.language == "python":
        subprocess.run([sys.executable, "-c", block.text], cwd=folder, env=environment(), check=True, timeout=120)
        return
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for line in logical_lines(block.text):
            if line.startswith("inferd serve"):
                servers.append(start(line, folder))
            else:
                subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=environment(), check=True, timeout=120
                )
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def logical_lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def start(line: str, folder: Path) -> subprocess.Popen[bytes]:
    printed = folder / "printed"
    with printed.open("wb") as output:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT
        )
    wait_for(lambda: server.poll() is not None or "ready in" in printed.read_text(), line, 60)
    assert server.poll() is None, printed.read_text()
    return server


def test_every_marked_block_is_found() -> None:
    marks = sum(
        document.read_text().count("\n<!-- tested") for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    )
    assert marks == len(blocks())
