"""The modules of sentence-transformers: from token embeddings to one vector per text.

Reads ``modules.json`` and the folder of each module, hands on embeddings. Weights come from ``model.safetensors``,
which contains only numbers. Worker side only. Knows nothing of text and of ONNX.

Source: the ``forward`` of each module in sentence-transformers 6.2. FP16 vectors are summed in FP32.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from inferd.errors import ModelFailed
from inferd.runtimes.huggingface_config import read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.runtimes.huggingface_config import Folder, Module

__all__ = ["TOKENS", "Features", "Modules", "read_safetensors", "sigmoid"]

Features = dict[str, np.ndarray]
"""Arrays by the names that modules use."""
TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"

_PICKLES = ("pytorch_model.bin",)


class Step(Protocol):
    """One module."""

    def __call__(self, features: Features) -> None:
        """Add the module's results to ``features``."""
        ...


class Modules:
    """The modules of a folder after the first, which is the transformer.

    Args:
        folder: the folder.
        prompt_tokens: number of tokens of the prompt at the start of each text.

    Raises:
        ModelFailed: a module, or an entry of its configuration, is unknown.
    """

    def __init__(self, folder: Folder, prompt_tokens: int) -> None:
        first, *others = folder.modules
        if first.kind != "Transformer":
            raise ModelFailed(_unknown(first))
        self._steps: list[Step] = []
        for module in others:
            if module.kind not in _KINDS:
                raise ModelFailed(_unknown(module))
            self._steps.append(_KINDS[module.kind](_Spec(module, folder, prompt_tokens)))
        self._dimensions = folder.sentence.get("truncate_dim")
        cut = [] if self._dimensions is None else [f"the first {self._dimensions} dimensions"]
        self.description = ", ".join([*(module.kind for module in others), *cut])
        """Description, for operators."""

    def __call__(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return one vector per row.

        Args:
            tokens: token embeddings of shape (rows, tokens, dimensions).
            mask: 1 for a token, 0 for padding; shape (rows, tokens).

        Raises:
            ModelFailed: no module computes a vector of a text.
        """
        wide = tokens.astype(np.float32) if tokens.dtype == np.float16 else tokens
        features: Features = {TOKENS: wide, "attention_mask": mask}
        for step in self._steps:
            step(features)
        if SENTENCE not in features:
            raise ModelFailed(
                "no module in modules.json computes a sentence embedding\n"
                "help: add Pooling, or remove modules.json to serve token embeddings"
            )
        return features[SENTENCE][:, : self._dimensions]


def _unknown(module: Module) -> str:
    return (
        f"modules.json: unsupported module {module.type!r}; supported are Transformer, {', '.join(_KINDS)} of "
        "sentence-transformers\nhelp: export the whole model to ONNX, so that the graph outputs sentence_embedding"
    )


# -- modules --------------------------------------------------------------------------------------------------------

# In the order in which several modes are concatenated.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class _Spec(NamedTuple):
    """The spec in which a module is created."""

    module: Module
    folder: Folder
    prompt_tokens: int

    def config(self, *known: str) -> dict[str, Any]:
        """Return the module's configuration, if all entries are known."""
        found = read_json(self.module.folder / "config.json")
        if found is None and self.module.kind == "Pooling":
            raise ModelFailed(f"'{self.module.folder.name}/config.json' is missing, which configures Pooling")
        return self.folder.known(f"{self.module.folder.name}/config.json", found or {}, known)

    def weights(self, expected: set[str]) -> Features:
        """Return the module's weights, if they have the expected names."""
        found = _weights(self.module)
        if found.keys() != expected:
            raise ModelFailed(
                f"{self.module.kind} has weights {sorted(found)}, but its config.json needs {sorted(expected)}"
            )
        return found


class _Tokens(NamedTuple):
    """Token embeddings to pool."""

    vectors: np.ndarray
    """Shape (rows, tokens, dimensions)."""
    mask: np.ndarray
    """1 for a token that counts; shape (rows, tokens)."""
    positions: np.ndarray
    """Position in the text, 0 for the first token."""

    def summed(self, weights: np.ndarray) -> np.ndarray:
        """Return the weighted sum of each row's vectors."""
        return np.asarray((self.vectors * weights[:, :, None].astype(self.vectors.dtype)).sum(axis=1))

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Return the sum of each row's weights, at least 1e-9."""
        return np.asarray(np.maximum(weights.sum(axis=1, keepdims=True).astype(self.vectors.dtype), 1e-9))

    def at(self, index: np.ndarray) -> np.ndarray:
        """Return the vector at ``index`` of each row."""
        return np.asarray(self.vectors[np.arange(len(self.vectors)), index])


def _cls(tokens: _Tokens) -> np.ndarray:
    return tokens.at(tokens.mask.argmax(axis=1))


def _max(tokens: _Tokens) -> np.ndarray:
    return np.asarray(np.where(tokens.mask[:, :, None] > 0, tokens.vectors, -np.inf).max(axis=1))


def _mean(tokens: _Tokens) -> np.ndarray:
    return np.asarray(tokens.summed(tokens.mask) / tokens.total(tokens.mask))


def _mean_by_root(tokens: _Tokens) -> np.ndarray:
    return np.asarray(tokens.summed(tokens.mask) / np.sqrt(tokens.total(tokens.mask)))


def _weighted(tokens: _Tokens) -> np.ndarray:
    weights = tokens.mask * (tokens.positions + 1)
    return np.asarray(tokens.summed(weights) / tokens.total(weights))


def _last(tokens: _Tokens) -> np.ndarray:
    there = np.asarray(tokens.mask.any(axis=1, keepdims=True))
    last = tokens.mask.shape[1] - 1 - tokens.mask[:, ::-1].argmax(axis=1)
    return np.asarray(tokens.at(last) * there.astype(tokens.vectors.dtype))


_POOLINGS: dict[str, Callable[[_Tokens], np.ndarray]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _weighted,
    "lasttoken": _last,
}


def _pooling(spec: _Spec) -> Step:
    config = spec.config(*_MODES, "pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _MODES.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in _POOLINGS:
            raise ModelFailed(f"unknown pooling mode {mode!r}\nhelp: use one of {', '.join(_POOLINGS)}")
    left_out = 0 if config.get("include_prompt", True) else spec.prompt_tokens

    def step(features: Features) -> None:
        mask = features["attention_mask"]
        positions = np.arange(mask.shape[1])[None, :] - mask.argmax(axis=1)[:, None]
        tokens = _Tokens(features[TOKENS], np.where(positions < left_out, 0, mask), positions)
        features[SENTENCE] = np.concatenate([_POOLINGS[mode](tokens) for mode in modes], axis=1)

    return step


def _normalize(spec: _Spec) -> Step:
    source, target = _names(spec.config(*_NAMES))

    def step(features: Features) -> None:
        if source in features:
            values = features[source]
            features[target] = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)

    return step


def _dense(spec: _Spec) -> Step:
    config = spec.config("in_features", "out_features", "bias", "activation_function", "use_residual", *_NAMES)
    source, target = _names(config)
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activate = _ACTIVATIONS.get(named.rpartition(".")[2]) if named.startswith("torch.nn.") else None
    if activate is None:
        raise ModelFailed(
            f"unknown activation {named!r} of Dense\nhelp: use one of {', '.join(_ACTIVATIONS)} of torch.nn"
        )
    shape = (config["out_features"], config["in_features"])
    residual = bool(config.get("use_residual"))
    expected = {"linear.weight": True, "linear.bias": config.get("bias", True)}
    expected["residual.weight"] = residual and shape[0] != shape[1]
    weights = spec.weights({name for name, there in expected.items() if there})
    if weights["linear.weight"].shape != shape:
        raise ModelFailed(f"Dense has weights of shape {weights['linear.weight'].shape}, but config.json says {shape}")

    def step(features: Features) -> None:
        values = features[source]
        found = activate(values @ weights["linear.weight"].T + weights.get("linear.bias", np.float32(0)))
        if residual:
            found = found + (values @ weights["residual.weight"].T if "residual.weight" in weights else values)
        features[target] = found

    return step


def _layer_norm(spec: _Spec) -> Step:
    spec.config("dimension")
    weights = spec.weights({"norm.weight", "norm.bias"})

    def step(features: Features) -> None:
        values = features[SENTENCE]
        centered = values - values.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
        features[SENTENCE] = centered / scale * weights["norm.weight"] + weights["norm.bias"]

    return step


def _dropout(spec: _Spec) -> Step:
    """Return the identity: dropout acts only in training."""
    spec.config("dropout")

    def step(features: Features) -> None:
        pass

    return step


_KINDS: dict[str, Callable[[_Spec], Step]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "Normalize": _normalize,
    "LayerNorm": _layer_norm,
    "Dropout": _dropout,
}

_NAMES = ("module_input_name", "module_output_name")


def _names(config: dict[str, Any]) -> tuple[str, str]:
    source = config.get("module_input_name") or SENTENCE
    return source, config.get("module_output_name") or source


_ERF = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of each element, in its precision."""
    # Far below 0 the exponential overflows to infinity, and the result is the correct 0.
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Sigmoid": sigmoid,
    "SiLU": lambda x: x * sigmoid(x),
    "GELU": lambda x: (x * (1 + _ERF(x / math.sqrt(2))) / 2).astype(x.dtype),
}


# -- weights --------------------------------------------------------------------------------------------------------


def _weights(module: Module) -> Features:
    file = module.folder / "model.safetensors"
    if file.is_file():
        return read_safetensors(file)
    pickle = next((name for name in _PICKLES if (module.folder / name).is_file()), None)
    found = f"'{module.folder.name}/{pickle}' is a pickle, which executes code on load" if pickle else "it has none"
    raise ModelFailed(
        f"{module.kind} needs its weights from '{module.folder.name}/model.safetensors'; {found}\n"
        "help: load the model with sentence-transformers and save it with safe_serialization=True"
    )


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_safetensors(file: Path) -> Features:
    """Read a safetensors file; types narrower than FP32 are converted to FP32.

    Format: length of the header in eight bytes; the header in JSON (``dtype``, ``shape`` and ``data_offsets`` of each
    tensor); the data.

    Raises:
        ModelFailed: the file is malformed, or has an unknown type.
    """
    data = file.read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        return {name: _tensor(data[8 + length :], about) for name, about in header.items()}
    except (ValueError, KeyError, TypeError) as fault:
        raise ModelFailed(f"'{file.name}' can't be read: {fault}") from fault


def _tensor(data: bytes, about: dict[str, Any]) -> np.ndarray:
    begin, end = about["data_offsets"]
    kind = about["dtype"]
    if kind == "BF16":
        halves = np.frombuffer(data[begin:end], "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(about["shape"])
    values = np.frombuffer(data[begin:end], _DTYPES[kind]).reshape(about["shape"])
    return values.astype(np.float32) if kind == "F16" else values
