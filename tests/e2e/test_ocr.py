"""The example that reads text in images, as its user would run it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "ocr"
sys.path.insert(0, str(EXAMPLE))

from make import PAGES  # noqa: E402 (found beside the example)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ocr") / "ocr"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("models", "pages", "__pycache__"))
    subprocess.run([sys.executable, str(folder / "make.py")], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def server(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    with Inferd(tmp_path_factory.mktemp("run"), example / "inferd.yaml") as running:
        yield running


def pixels(example: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(example / "pages" / f"{name}.png").convert("RGB"))


def letters(texts: np.ndarray) -> list[str]:
    """Without spaces: the recogniser, trained on a script that has none, drops narrow ones."""
    return [text.decode().replace(" ", "") for text in texts]


def test_each_page_is_read_line_by_line_over_http(example: Path, server: Inferd) -> None:
    with tritonclient.http.InferenceServerClient(server.address) as client:
        for name, lines in PAGES.items():
            image = tritonclient.http.InferInput("image", [1, *pixels(example, name).shape], "UINT8")
            image.set_data_from_numpy(pixels(example, name)[None])
            answer = client.infer("ocr", [image])
            assert letters(answer.as_numpy("text")) == [line.replace(" ", "") for line in lines]
            assert len(answer.as_numpy("box")) == len(lines)


def test_several_pages_at_once_over_grpc_say_which_line_is_whose(example: Path, server: Inferd) -> None:
    names = list(PAGES)
    together = np.stack([pixels(example, name) for name in names])
    with tritonclient.grpc.InferenceServerClient(server.address) as client:
        image = tritonclient.grpc.InferInput("image", together.shape, "UINT8")
        image.set_data_from_numpy(together)
        answer = client.infer("ocr", [image])
        expected = [line.replace(" ", "") for name in names for line in PAGES[name]]
        assert letters(answer.as_numpy("text")) == expected
        whose = [names[page] for page in answer.as_numpy("page")]
        assert whose == [name for name in names for _ in PAGES[name]]
        assert answer.as_numpy("confidence").min() > 0.8
