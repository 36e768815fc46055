"""Programs of PyTorch: every type of torch, all that a program can give, names, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray]

HEAVY = True
SLICE = ()

KINDS = {
    "BOOL": bool,
    "UINT8": "uint8",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
}

CODE = """
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch


class Both(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor


class Model(torch.nn.Module):
"""


def tensor(array: np.ndarray) -> Any:
    import torch

    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def array(value: Any) -> np.ndarray:
    import torch

    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            return value.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return value.detach().numpy()
    return np.array(value.encode(), object) if isinstance(value, str) else np.asarray(value)


def case(
    folder: Path,
    forward: str,
    inputs: Mapping[str, tuple[str, list[int]]],
    rows: dict[str, np.ndarray],
    unpack: Callable[[Any], Mapping[str, Any]],
    **settings: Any,
) -> Case:
    """A program whose ``forward`` is given as code, scripted; ``unpack`` names what it gives."""
    import importlib.util

    import pytest

    torch = pytest.importorskip("torch")
    file = folder / "code.py"
    lines = [f"    {line}" if line else "" for line in forward.strip().splitlines()]
    file.write_text(CODE + "\n".join(lines) + "\n")
    spec = importlib.util.spec_from_file_location(f"code_{abs(hash(folder))}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.jit.script(module.Model()).save(str(folder / "model.pt"))
    program = torch.jit.load(str(folder / "model.pt")).eval()
    declared = [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in inputs.items()]
    arguments = [argument.name for argument in program.forward.schema.arguments[1:]]
    lone = any(len(shape) < rows[name].ndim for name, (_, shape) in inputs.items())

    def answer(asked: Arrays) -> Arrays:
        given = {name: tensor(np.asarray(one[0] if lone else one)) for name, one in asked.items()}
        with torch.inference_mode():
            found = program(**given) if set(given) <= set(arguments) else program(*given.values())
        arrays = {name: array(value) for name, value in unpack(found).items()}
        return {name: one[None] for name, one in arrays.items()} if lone else arrays

    settings = {"inputs": declared, **settings}
    return Case(folder / "model.pt", rows, answer, (RuntimeError, IndexError, torch.jit.Error), settings, 1e-6, 1e-6)


def floats(random: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = random.normal(size=(ROWS, *shape)).astype(np.float32).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    extremes = [np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, -0.0]
    for row, value in enumerate(extremes):
        x[row] = np.array(value).astype(dtype)
    return x


def values(random: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "BOOL":
        return random.random((ROWS, 2)) > 0.5
    dtype = np.dtype(KINDS[kind])
    if dtype.kind not in "iu":
        return floats(random, 2, dtype=dtype)
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, 2), dtype=dtype, endpoint=True)
    x[0], x[1] = limits.min, limits.max
    return x


def every_type(folder: Path, random: np.random.Generator) -> Case:
    arguments = ", ".join(f"{kind.lower()}: torch.Tensor" for kind in KINDS)
    outputs = ", ".join(f'"{kind.lower()}_": {kind.lower()}.flip(1)' for kind in KINDS)
    forward = f"def forward(self, {arguments}):\n    return {{{outputs}}}"
    inputs = {kind.lower(): (kind, [-1, 2]) for kind in KINDS}
    rows = {kind.lower(): values(random, kind) for kind in KINDS}
    return case(folder, forward, inputs, rows, dict)


def names_out_of_order(folder: Path, random: np.random.Generator) -> Case:
    forward = "def forward(self, x, y):\n    return x - 2 * y"
    inputs = {"y": ("FP64", [-1, 2]), "x": ("FP64", [-1, 2])}
    rows = {name: floats(random, 2, dtype=np.float64) for name in inputs}
    return case(folder, forward, inputs, rows, lambda found: {"output": found})


def positions(folder: Path, random: np.random.Generator) -> Case:
    forward = "def forward(self, x, y):\n    return x - 2 * y"
    inputs = {"INPUT__0": ("FP32", [-1, 2]), "INPUT__1": ("FP32", [-1, 2])}
    rows = {name: floats(random, 2) for name in inputs}
    outputs = [{"name": "OUTPUT__0", "datatype": "FP32", "shape": [-1, 2]}]
    return case(folder, forward, inputs, rows, lambda found: {"OUTPUT__0": found}, outputs=outputs)


def nested(folder: Path, random: np.random.Generator) -> Case:
    forward = """
def forward(self, x, mask: Optional[torch.Tensor] = None) -> Tuple[Tuple[torch.Tensor, List[torch.Tensor]], Dict[str, torch.Tensor], Optional[torch.Tensor]]:
    return (x, [x * 2, x.sum(1)]), {"largest": x.max(1)[0]}, mask
"""

    def unpack(found: Any) -> Mapping[str, Any]:
        (x, (doubled, total)), by_name, _ = found
        return {"output_0_0": x, "output_0_1_0": doubled, "output_0_1_1": total, "output_1_largest": by_name["largest"]}

    return case(folder, forward, {"x": ("FP32", [-1, 3])}, {"x": floats(random, 3)}, unpack)


def named_tuple(folder: Path, random: np.random.Generator) -> Case:
    forward = "def forward(self, x) -> Both:\n    return Both(x - 1, x + 1)"
    return case(
        folder,
        forward,
        {"x": ("INT32", [-1, 3])},
        {"x": random.integers(-9, 9, (ROWS, 3)).astype(np.int32)},
        lambda found: found._asdict(),
    )


def one_row_at_a_time(folder: Path, random: np.random.Generator) -> Case:
    forward = """
def forward(self, x, k) -> Tuple[int, float, bool, str, List[int], torch.Tensor]:
    whole = int(k)
    return whole, float(x.sum()), whole > 0, "text " + str(whole), [whole, 2], x * k
"""
    names = [f"output_{place}" for place in range(6)]
    rows = {"x": random.normal(size=(ROWS, 3)).astype(np.float32), "k": random.integers(-9, 9, ROWS)}
    inputs = {"x": ("FP32", [3]), "k": ("INT64", [])}
    return case(folder, forward, inputs, rows, lambda found: dict(zip(names, found, strict=True)))


def free_length(folder: Path, random: np.random.Generator) -> Case:
    forward = "def forward(self, x):\n    return {'y': torch.softmax(x, 1), 'total': x.sum(1), 'size': torch.ones_like(x).sum(1)}"
    return case(folder, forward, {"x": ("FP64", [-1, -1])}, {"x": random.normal(size=(ROWS, 7)) * 30}, dict)


def found_length(folder: Path, random: np.random.Generator) -> Case:
    forward = "def forward(self, x):\n    return torch.nonzero(x)"
    rows = {"x": random.random((ROWS, 5)) > 0.5}
    return case(folder, forward, {"x": ("BOOL", [5])}, rows, lambda found: {"output": found})


def refused(folder: Path, random: np.random.Generator) -> Case:
    forward = """
def __init__(self):
    super().__init__()
    self.table = torch.nn.Embedding(5, 3)

def forward(self, index):
    if bool((index == 4).any()):
        raise ValueError("four")
    return self.table(index)
"""
    index = random.choice(7, ROWS, p=[0.3, 0.3, 0.2, 0.05, 0.05, 0.05, 0.05])
    return case(folder, forward, {"index": ("INT64", [-1])}, {"index": index}, lambda found: {"output": found})


def written_into(folder: Path, random: np.random.Generator) -> Case:
    forward = """
def __init__(self):
    super().__init__()
    self.weight = torch.nn.Parameter(torch.ones(3))

def forward(self, x):
    x += 1
    return x, self.weight.expand(x.shape[0], 3)
"""

    def unpack(found: Any) -> Mapping[str, Any]:
        return {"output_0": found[0], "output_1": found[1]}

    return case(folder, forward, {"x": ("FP32", [-1, 3])}, {"x": floats(random, 3)}, unpack)


CASES = {
    "every type": every_type,
    "names out of order": names_out_of_order,
    "names that are positions": positions,
    "nested outputs, one missing": nested,
    "a named tuple": named_tuple,
    "numbers and a text, one row at a time": one_row_at_a_time,
    "a free length": free_length,
    "a length that is found out": found_length,
    "rows that are refused": refused,
    "inputs that are written into": written_into,
}
