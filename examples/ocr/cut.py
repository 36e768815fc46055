"""Cuts lines of text out of pages, by the detector's heat map.

A page can have any number of lines, so input and output differ in rows: the model is not batched, and `page` is each
line's page. Lines are horizontal: a box is a connected region of the heat map, grown by as much as the detector was
trained to shrink it (Liao et al., "Real-time scene text detection with differentiable binarization", 2020).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

HEIGHT = 48
WARM, HOT = 0.3, 0.6
SMALLEST = 4
GROWTH = 1.6
"""How far a box grows to each side, as a multiple of area over perimeter."""


class Cut:
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        {"name": "heat", "datatype": "FP32", "shape": [-1, 1, -1, -1]},
    ]
    outputs = [
        {"name": "lines", "datatype": "FP32", "shape": [-1, 3, HEIGHT, -1]},
        {"name": "box", "datatype": "INT64", "shape": [-1, 4]},
        {"name": "page", "datatype": "INT64", "shape": [-1]},
        {"name": "count", "datatype": "INT64", "shape": [1]},
        {"name": "no_text", "datatype": "BYTES", "shape": [-1]},
        {"name": "no_confidence", "datatype": "FP32", "shape": [-1]},
    ]
    example = {"image": np.full((1, 64, 64, 3), 255, np.uint8), "heat": np.zeros((1, 1, 64, 64), np.float32)}

    def load(self) -> None:
        pass

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = [(page, box) for page, heat in enumerate(batch["heat"]) for box in boxes(heat[0])]
        lines = [level(batch["image"][page], box) for page, box in found]
        width = max((line.shape[1] for line in lines), default=HEIGHT)
        # Padded with the grey that is zero to the recogniser.
        together = np.zeros((len(lines), 3, HEIGHT, width), np.float32)
        for row, line in zip(together, lines, strict=True):
            row[:, :, : line.shape[1]] = line.transpose(2, 0, 1)
        return {
            "lines": together,
            "box": np.array([box for _, box in found], np.int64).reshape(-1, 4),
            "page": np.array([page for page, _ in found], np.int64),
            "count": np.array([len(found)], np.int64),
            "no_text": np.array([], dtype=object),
            "no_confidence": np.array([], np.float32),
        }


def boxes(heat: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return (top, left, bottom, right) of each line, from the top down."""
    regions, _ = ndimage.label(heat > WARM)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < SMALLEST or heat[regions == number].mean() < HOT:
            continue
        by = round(GROWTH * height * width / (2 * (height + width)))
        bottom, right = min(rows.stop + by, heat.shape[0]), min(columns.stop + by, heat.shape[1])
        found.append((max(rows.start - by, 0), max(columns.start - by, 0), bottom, right))
    return sorted(found)


def level(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the box's pixels, scaled to the recogniser's height, between -1 and 1."""
    top, left, bottom, right = box
    cut = image[top:bottom, left:right].astype(np.float32) / 127.5 - 1
    scale = HEIGHT / cut.shape[0]
    width = max(1, round(cut.shape[1] * scale))
    return ndimage.zoom(cut, (scale, width / cut.shape[1], 1), order=1)[:HEIGHT, :width]
