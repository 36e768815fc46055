"""Decodes the recogniser's scores (greedy CTC): the best character at each position, without repeats and blanks."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Decode:
    inputs = [{"name": "scores", "datatype": "FP32", "shape": [-1, -1, -1]}]
    outputs = [
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        {"name": "confidence", "datatype": "FP32", "shape": [-1]},
    ]

    def load(self) -> None:
        characters = (Path(__file__).parent / "models" / "characters.txt").read_text(encoding="utf-8")
        self.characters = ["", *characters.split("\n"), " "]
        self.example = {"scores": np.zeros((1, 8, len(self.characters)), np.float32)}

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        scores = batch["scores"]
        best = scores.argmax(axis=2)
        new = np.ones(best.shape, bool)
        new[:, 1:] = best[:, 1:] != best[:, :-1]
        kept = new & (best != 0)
        texts = ["".join(self.characters[one] for one in row[keep]) for row, keep in zip(best, kept, strict=True)]
        certain = np.where(kept, scores.max(axis=2, initial=0), 0).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
        return {
            "text": np.array([text.encode() for text in texts], dtype=object),
            "confidence": certain.astype(np.float32),
        }
