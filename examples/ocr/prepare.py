"""Scales pixels as in the detector's training."""

from __future__ import annotations

import numpy as np


class Prepare:
    inputs = [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    outputs = [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    example = {"image": np.full((1, 64, 64, 3), 255, np.uint8)}

    def load(self) -> None:
        pass

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = batch["image"].astype(np.float32) / 127.5 - 1
        return {"pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
