"""Models that are a class in Python, of arrays and of typed values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from pathlib import Path

SLICE = ("a matrix",)
CODE = """
import numpy as np
from inferd import TensorSpec, InvalidInput

class Line:
    inputs = [TensorSpec("x", "FP32", (-1, 3))]
    outputs = [TensorSpec("y", "FP32", (-1, 3))]

    def load(self):
        pass

    def predict(self, batch):
        if (batch["x"] > 3).any():
            raise InvalidInput("too much")
        return {"y": batch["x"] * np.float32(2)}
"""


def matrix(folder: Path, random: np.random.Generator) -> Case:
    (folder / "model.py").write_text(CODE)
    x = random.normal(size=(ROWS, 3)).astype(np.float32)
    x[3] = np.nan
    x[4] = np.inf

    def answer(rows):
        if (rows["x"] > 3).any():
            raise ValueError
        return {"y": rows["x"] * np.float32(2)}

    return Case(folder / "model.py", {"x": x}, answer)


CASES = {"a matrix": matrix}
