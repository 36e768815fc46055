"""Reads images with the served pipeline: ``python examples/ocr/ask.py pages/invoice.png``."""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.http as client
from PIL import Image


def read(server: client.InferenceServerClient, image: np.ndarray) -> list[str]:
    """Return the lines of one image (height, width, 3), from the top down."""
    pixels = client.InferInput("image", [1, *image.shape], "UINT8")
    pixels.set_data_from_numpy(image[None])
    return [text.decode() for text in server.infer("ocr", [pixels]).as_numpy("text")]


if __name__ == "__main__":
    with client.InferenceServerClient("localhost:8000") as server:
        for name in sys.argv[1:]:
            print(name, *read(server, np.asarray(Image.open(name).convert("RGB"))), sep="\n  ")
