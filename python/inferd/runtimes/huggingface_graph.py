"""Run the ONNX graph of a Hugging Face folder over rows of different lengths, so that rows don't influence each other.

Reads tokens, hands on the graph's outputs. Rows are padded only if the graph takes an attention mask and a test at load
shows that padding changes nothing; else rows of equal length run together, or each alone. Worker side only. Knows
nothing of text and of the meaning of outputs.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.errors import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch
    from inferd.runtimes.huggingface_text import Texts

    After = Callable[[Batch, np.ndarray], Batch]
    """Postprocessing of the outputs of one run, given the mask of its rows."""

__all__ = ["Graph", "Row"]

# Lengths of test rows in tokens: two of the same length, and two that need padding.
_PROBE_LENGTHS = (3, 7, 5, 7)

_DTYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class Row(NamedTuple):
    """The tokens of one text."""

    ids: Sequence[int]
    type_ids: Sequence[int]


class _Strategy(NamedTuple):
    """A strategy to batch rows."""

    description: str
    pads: bool
    left: bool = False
    alone: bool = False


_ALONE = _Strategy("each row runs alone: batching changes the outputs", pads=False, alone=True)


class Graph:
    """A loaded graph.

    Args:
        file: the ONNX file.
        threads: threads per run.
        position_offset: the position id of the first token.

    Raises:
        ModelFailed: the graph has an input that no tokenizer provides.
    """

    def __init__(self, file: Path, threads: int, position_offset: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name: node.type for node in self._session.get_inputs()}
        self.outputs = {node.name: node.shape for node in self._session.get_outputs()}
        """The declared shape of each output."""
        self._offset = position_offset
        known = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        unknown = [name for name, kind in self._inputs.items() if name not in known or kind not in _DTYPES]
        if unknown:
            raise ModelFailed(
                f"the ONNX model needs {', '.join(unknown)}, which a tokenizer does not provide\n"
                "help: export it for a task with text input only, or serve the .onnx file by itself"
            )
        shape = next((node.shape for node in self._session.get_inputs() if node.name == "input_ids"), [None, None])
        self.width = shape[1] if isinstance(shape[1], int) else None
        """Fixed length of rows in tokens; None: dynamic."""
        self._one_row = shape[0] == 1
        self._strategy, self._pad_id = _ALONE, 0

    @property
    def batching(self) -> str:
        """Description of the batching strategy, for operators."""
        return self._strategy.description

    @cached_property
    def token_axes(self) -> dict[str, tuple[int, ...]]:
        """The axes of each output that have the length of the rows."""
        lengths = _PROBE_LENGTHS[:2] if self.width is None else (self.width,) * 2
        one, other = ({name: array.shape for name, array in self._trial_run(length).items()} for length in lengths)
        return {
            name: tuple(
                axis
                for axis in range(1, len(one[name]))
                if (one[name][axis], other[name][axis]) == lengths and not isinstance(self.outputs[name][axis], int)
            )
            for name in self.outputs
        }

    def size(self, name: str) -> tuple[int, ...]:
        """Return the dimensions of an output except the first, from a run if not declared."""
        declared = self.outputs[name][1:]
        if all(isinstance(dim, int) for dim in declared):
            return tuple(declared)
        return tuple(self._trial_run(self.width or _PROBE_LENGTHS[0])[name].shape[1:])

    def _trial_run(self, length: int) -> Batch:
        feeds, _ = self._feeds([Row([0] * length, [0] * length)])
        return dict(zip(self.outputs, self._session.run(None, feeds), strict=True))

    def choose_batching(self, texts: Texts, after: After, *, per_token: bool, tolerance: dict[str, float]) -> None:
        """Choose the first batching strategy under which rows don't influence each other.

        Args:
            texts: the folder's tokenizer.
            after: postprocessing of the outputs.
            per_token: whether outputs have the length of the text; requires padding on the right.
            tolerance: ``absolute`` and ``relative`` difference that counts as equal.
        """
        self._pad_id = texts.pad_id or 0
        if self._one_row:
            self._strategy = _Strategy("each row runs alone: the graph's batch size is 1", pads=False, alone=True)
            return
        random = np.random.default_rng(0)
        lengths = [min(length, self.width or length) for length in _PROBE_LENGTHS]
        rows = [Row(random.integers(0, max(texts.vocabulary, 1), n).tolist(), [0] * n) for n in lengths]
        alone = [self.run([row], after) for row in rows]
        strategies = self._strategies((False,) if per_token else (texts.pad_left, not texts.pad_left))
        for self._strategy in strategies:
            together: Batch = {}
            # A graph may raise anything if rows don't fit together.
            with contextlib.suppress(Exception):
                together = self.run(rows, after)
            if together and all(_same(together, row, one, tolerance) for row, one in enumerate(alone)):
                return
        self._strategy = _ALONE

    def _strategies(self, sides: tuple[bool, ...]) -> list[_Strategy]:
        if self.width is not None:
            return [_Strategy(f"rows are padded to {self.width} tokens, the fixed length of the graph", pads=True)]
        if "attention_mask" not in self._inputs:
            return [_Strategy("rows of equal length run together: the model takes no attention_mask", pads=False)]
        padded = [_Strategy("shorter rows are padded and masked", pads=True, left=left) for left in sides]
        return [*padded, _Strategy("rows of equal length run together: padding changes the outputs", pads=False)]

    def run(self, rows: Sequence[Row], after: After) -> Batch:
        """Return the outputs for all rows, in order, zero-padded to the longest row."""
        parts = []
        for group in self._groups(rows):
            feeds, mask = self._feeds([rows[index] for index in group])
            found = self._session.run(None, {name: feeds[name] for name in self._inputs})
            parts.append((group, after(dict(zip(self.outputs, found, strict=True)), mask)))
        return _merged(parts, len(rows))

    def _groups(self, rows: Sequence[Row]) -> list[list[int]]:
        if self._strategy.alone:
            return [[index] for index in range(len(rows))]
        if self._strategy.pads:
            return [list(range(len(rows)))]
        groups: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(len(row.ids), []).append(index)
        return list(groups.values())

    def _feeds(self, rows: Sequence[Row]) -> tuple[Batch, np.ndarray]:
        width = self.width or max(len(row.ids) for row in rows)
        ids = np.full((len(rows), width), self._pad_id, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for index, row in enumerate(rows):
            filled = slice(width - len(row.ids), None) if self._strategy.left else slice(len(row.ids))
            ids[index, filled], mask[index, filled], types[index, filled] = row.ids, 1, row.type_ids
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0) + self._offset
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "position_ids": positions}
        return {name: feeds[name].astype(_DTYPES[kind]) for name, kind in self._inputs.items()}, mask


def _same(together: Batch, row: int, alone: Batch, tolerance: dict[str, float]) -> bool:
    for name, one in alone.items():
        other = together[name][row : row + 1][tuple(slice(size) for size in one.shape)]
        if one.dtype == object or one.dtype.kind not in "fc":
            if not np.array_equal(one, other):
                return False
        elif not np.allclose(one, other, tolerance["relative"], tolerance["absolute"], equal_nan=True):
            return False
    return True


def _merged(parts: list[tuple[list[int], Batch]], rows: int) -> Batch:
    if len(parts) == 1 and len(parts[0][0]) == rows:
        return parts[0][1]
    merged: dict[str, Any] = {}
    for name, first in parts[0][1].items():
        arrays = [(group, np.asarray(found[name])) for group, found in parts]
        sizes = np.max([array.shape[1:] for _, array in arrays], axis=0) if first.ndim > 1 else ()
        whole = np.zeros((rows, *map(int, sizes)), first.dtype)
        for group, array in arrays:
            target: Any = (np.array(group), *(slice(size) for size in array.shape[1:]))
            whole[target] = array
        merged[name] = whole
    return merged
