"""Postprocess the outputs of a Hugging Face folder's ONNX graph.

Reads the graph's outputs and the folder's files, hands on embeddings, class scores, or the outputs unchanged. Worker
side only. Knows nothing of text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from inferd.errors import ModelFailed
from inferd.runtimes.huggingface_config import read_json
from inferd.runtimes.huggingface_modules import TOKENS, Modules, sigmoid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inferd.runtimes.base import Batch
    from inferd.runtimes.huggingface_config import Folder, Head
    from inferd.runtimes.huggingface_graph import Graph
    from inferd.runtimes.huggingface_text import Texts

__all__ = ["Postprocessor", "postprocessor_of"]

Pairs = Literal["none", "optional", "required"]


class Postprocessor(Protocol):
    """Postprocessing of the outputs of one run."""

    description: str
    """Description, for operators."""
    served: frozenset[str]
    """The graph's outputs that it reads."""
    added: frozenset[str]
    """``attention_mask`` if outputs have the length of the text."""
    pairs: Pairs
    """Whether texts come in pairs."""

    def __call__(self, found: Batch, mask: np.ndarray) -> Batch:
        """Return the outputs to serve.

        Args:
            found: the graph's outputs by name, each ``(rows, ...)``.
            mask: 1 for a token, 0 for padding; shape (rows, tokens).
        """
        ...


def postprocessor_of(folder: Folder, graph: Graph, texts: Texts) -> Postprocessor:
    """Return the postprocessing that the folder's files describe.

    Raises:
        ModelFailed: it is unsupported, or needs an output that the graph lacks.
    """
    if len(folder.modules) > 1:
        return Embedding(folder, graph.outputs, texts)
    outputs = graph.outputs
    logits = "logits" if "logits" in outputs else next(iter(outputs)) if len(outputs) == 1 else None
    if logits is not None:
        classes = graph.size(logits)
        head = folder.head(classes[0], named=logits == "logits") if len(classes) == 1 else None
        if head is not None:
            return Classes(logits, head, "required" if folder.is_cross_encoder else "optional")
    return Passthrough(graph, "required" if folder.is_cross_encoder or "start_logits" in outputs else "none")


class Embedding:
    """One vector per text, computed by the modules of sentence-transformers."""

    pairs: Pairs = "none"
    added: frozenset[str] = frozenset()
    _IN_GRAPH = "sentence_embedding"

    def __init__(self, folder: Folder, outputs: Mapping[str, Sequence[object]], texts: Texts) -> None:
        self._modules: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        if self._IN_GRAPH in outputs:
            _refuse_prompt_left_out(folder, texts)
            self._name, self.description = self._IN_GRAPH, f"{self._IN_GRAPH} of the graph"
        else:
            self._name = _vectors(outputs)
            modules = Modules(folder, texts.prompt_tokens)
            self._modules, self.description = modules, f"{self._name}, then {modules.description}"
        self.served = frozenset({self._name})

    def __call__(self, found: Batch, mask: np.ndarray) -> Batch:
        """Return the output ``embedding`` of shape (rows, dimensions)."""
        values = found[self._name]
        return {"embedding": values if self._modules is None else self._modules(values, mask)}


def _vectors(outputs: Mapping[str, Sequence[object]]) -> str:
    usual = [name for name in ("last_hidden_state", TOKENS) if name in outputs]
    names = usual[:1] or [name for name, shape in outputs.items() if len(shape) == 3]
    if len(names) != 1:
        what = f"several candidates: {', '.join(names)}" if names else f"only {', '.join(outputs)}"
        raise ModelFailed(
            f"modules.json needs token embeddings, but the ONNX model has {what}\n"
            "help: export it with the task feature-extraction, so that it outputs last_hidden_state"
        )
    return names[0]


def _refuse_prompt_left_out(folder: Folder, texts: Texts) -> None:
    files = (module.folder / "config.json" for module in folder.modules if module.kind == "Pooling")
    if texts.prompt and not all((read_json(file) or {}).get("include_prompt", True) for file in files):
        raise ModelFailed(
            "the graph outputs sentence_embedding, but the Pooling of modules.json excludes the prompt, which a "
            "graph can't do\nhelp: export the transformer alone, so that it outputs last_hidden_state"
        )


class Classes:
    """Class scores of a text, as in transformers' ``TextClassificationPipeline`` or in ``CrossEncoder``."""

    added: frozenset[str] = frozenset()

    def __init__(self, name: str, head: Head, pairs: Pairs) -> None:
        self._name, self._head, self.pairs = name, head, pairs
        self._labels = np.array([label.encode() for label in head.labels], dtype=object)
        function = {"none": "unchanged", "softmax": "softmax", "sigmoid": "sigmoid"}[head.function]
        self.description = f"{name}, {function}; classes {', '.join(head.labels)}"
        self.served = frozenset({name})

    def __call__(self, found: Batch, mask: np.ndarray) -> Batch:  # noqa: ARG002 (others need it)
        """Return ``scores`` of shape (rows, classes) and, with several classes, ``label``: the best one."""
        logits = found[self._name]
        scores = logits.astype(np.float32) if logits.dtype == np.float16 else logits
        if self._head.function == "sigmoid":
            scores = sigmoid(scores)
        elif self._head.function == "softmax":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
        if len(self._labels) == 1:
            return {"scores": scores}
        return {"label": self._labels[scores.argmax(axis=1)], "scores": scores}


class Passthrough:
    """The graph's outputs, unchanged.

    Those of the length of the text are 0 in padding, which ``attention_mask`` marks.
    """

    def __init__(self, graph: Graph, pairs: Pairs) -> None:
        self.pairs = pairs
        self.served = frozenset(graph.outputs)
        self._axes = {name: axes for name, axes in graph.token_axes.items() if axes}
        self.added = frozenset({"attention_mask"} if self._axes else ())
        per_token = f"; attention_mask marks the tokens of {', '.join(self._axes)}" if self._axes else ""
        self.description = f"{', '.join(graph.outputs)} of the graph, unchanged{per_token}"

    def __call__(self, found: Batch, mask: np.ndarray) -> Batch:
        """Return the outputs by name, and ``attention_mask``."""
        answers = dict(found)
        for name, axes in self._axes.items():
            for axis in axes:
                shape = [len(mask), *(mask.shape[1] if at == axis else 1 for at in range(1, found[name].ndim))]
                zero = np.zeros((), answers[name].dtype)
                answers[name] = np.where(mask.reshape(shape) > 0, answers[name], zero)
        return {**answers, "attention_mask": mask} if self._axes else answers
