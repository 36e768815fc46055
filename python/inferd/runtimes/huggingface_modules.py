"""What sentence-transformers does with the vectors of the tokens: one vector for each text.

Reads ``modules.json`` and the folder of each module, hands on embeddings. Weights come from ``model.safetensors``,
which holds nothing but numbers. Worker side only. Knows nothing of text and of ONNX.

Source: the ``forward`` of each module in sentence-transformers 6.2. Sums are made in FP32 where vectors are FP16.
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
"""Arrays by the names that modules have for them."""
TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"

_PICKLES = ("pytorch_model.bin",)


class Step(Protocol):
    """One module."""

    def __call__(self, features: Features) -> None:
        """Add to ``features`` what the module computes of them."""
        ...


class Modules:
    """The modules of a folder behind the first, which is the transformer.

    Args:
        folder: the folder.
        prompt_tokens: tokens at the beginning of each text that are the prompt's.

    Raises:
        ModelFailed: a module, or an entry of its configuration, is not known.
    """

    def __init__(self, folder: Folder, prompt_tokens: int) -> None:
        first, *others = folder.modules
        if first.kind != "Transformer":
            raise ModelFailed(_unknown(first))
        self._steps: list[Step] = []
        for module in others:
            if module.kind not in _KINDS:
                raise ModelFailed(_unknown(module))
            self._steps.append(_KINDS[module.kind](_Site(module, folder, prompt_tokens)))
        self._dimensions = folder.sentence.get("truncate_dim")
        cut = [] if self._dimensions is None else [f"the first {self._dimensions} dimensions"]
        self.said = ", ".join([*(module.kind for module in others), *cut])
        """What is done, for people."""

    def __call__(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """One vector for each row.

        Args:
            tokens: vectors of shape (rows, tokens, dimensions).
            mask: 1 where there is a token, 0 where the row is filled up; shape (rows, tokens).

        Raises:
            ModelFailed: no module makes one vector of a text.
        """
        wide = tokens.astype(np.float32) if tokens.dtype == np.float16 else tokens
        features: Features = {TOKENS: wide, "attention_mask": mask}
        for step in self._steps:
            step(features)
        if SENTENCE not in features:
            raise ModelFailed(
                "no module in modules.json makes one vector of a text\n"
                "help: add Pooling, or remove modules.json to serve the vectors of the tokens"
            )
        return features[SENTENCE][:, : self._dimensions]


def _unknown(module: Module) -> str:
    return (
        f"modules.json names {module.type!r}, which is not done here; Transformer, {', '.join(_KINDS)} of "
        "sentence-transformers are\nhelp: export the whole model to ONNX, so that the graph gives sentence_embedding"
    )


# -- modules --------------------------------------------------------------------------------------------------------

# In the order in which several are put side by side.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class _Site(NamedTuple):
    """Where a module is made."""

    module: Module
    folder: Folder
    prompt_tokens: int

    def config(self, *known: str) -> dict[str, Any]:
        """The module's configuration, if all its entries are known."""
        found = read_json(self.module.folder / "config.json")
        if found is None and self.module.kind == "Pooling":
            raise ModelFailed(f"there is no '{self.module.folder.name}/config.json', which says how Pooling is done")
        return self.folder.known(f"{self.module.folder.name}/config.json", found or {}, known)

    def weights(self, expected: set[str]) -> Features:
        """The module's weights, if they are those that are expected."""
        found = _weights(self.module)
        if found.keys() != expected:
            raise ModelFailed(
                f"{self.module.kind} has the weights {sorted(found)}, but its config.json needs {sorted(expected)}"
            )
        return found


class _Tokens(NamedTuple):
    """The vectors of tokens that are pooled."""

    vectors: np.ndarray
    """Shape (rows, tokens, dimensions)."""
    mask: np.ndarray
    """1 where a token counts; shape (rows, tokens)."""
    places: np.ndarray
    """0 at the first token of the text."""

    def summed(self, weights: np.ndarray) -> np.ndarray:
        """The weighted sum of a row's vectors."""
        return np.asarray((self.vectors * weights[:, :, None].astype(self.vectors.dtype)).sum(axis=1))

    def total(self, weights: np.ndarray) -> np.ndarray:
        """The sum of a row's weights, never 0."""
        return np.asarray(np.maximum(weights.sum(axis=1, keepdims=True).astype(self.vectors.dtype), 1e-9))

    def at(self, place: np.ndarray) -> np.ndarray:
        """The vector at ``place`` of each row."""
        return np.asarray(self.vectors[np.arange(len(self.vectors)), place])


def _cls(tokens: _Tokens) -> np.ndarray:
    return tokens.at(tokens.mask.argmax(axis=1))


def _max(tokens: _Tokens) -> np.ndarray:
    return np.asarray(np.where(tokens.mask[:, :, None] > 0, tokens.vectors, -np.inf).max(axis=1))


def _mean(tokens: _Tokens) -> np.ndarray:
    return np.asarray(tokens.summed(tokens.mask) / tokens.total(tokens.mask))


def _mean_by_root(tokens: _Tokens) -> np.ndarray:
    return np.asarray(tokens.summed(tokens.mask) / np.sqrt(tokens.total(tokens.mask)))


def _weighted(tokens: _Tokens) -> np.ndarray:
    weights = tokens.mask * (tokens.places + 1)
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


def _pooling(site: _Site) -> Step:
    config = site.config(*_MODES, "pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _MODES.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in _POOLINGS:
            raise ModelFailed(f"the pooling mode {mode!r} is not known\nhelp: known are {', '.join(_POOLINGS)}")
    left_out = 0 if config.get("include_prompt", True) else site.prompt_tokens

    def step(features: Features) -> None:
        mask = features["attention_mask"]
        places = np.arange(mask.shape[1])[None, :] - mask.argmax(axis=1)[:, None]
        tokens = _Tokens(features[TOKENS], np.where(places < left_out, 0, mask), places)
        features[SENTENCE] = np.concatenate([_POOLINGS[mode](tokens) for mode in modes], axis=1)

    return step


def _normalize(site: _Site) -> Step:
    source, target = _names(site.config(*_NAMES))

    def step(features: Features) -> None:
        if source in features:
            values = features[source]
            features[target] = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)

    return step


def _dense(site: _Site) -> Step:
    config = site.config("in_features", "out_features", "bias", "activation_function", "use_residual", *_NAMES)
    source, target = _names(config)
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activate = _ACTIVATIONS.get(named.rpartition(".")[2]) if named.startswith("torch.nn.") else None
    if activate is None:
        raise ModelFailed(
            f"the activation {named!r} of Dense is not known\nhelp: known are {', '.join(_ACTIVATIONS)} of torch.nn"
        )
    shape = (config["out_features"], config["in_features"])
    residual = bool(config.get("use_residual"))
    expected = {"linear.weight": True, "linear.bias": config.get("bias", True)}
    expected["residual.weight"] = residual and shape[0] != shape[1]
    weights = site.weights({name for name, there in expected.items() if there})
    if weights["linear.weight"].shape != shape:
        raise ModelFailed(f"Dense has weights of shape {weights['linear.weight'].shape}, its config.json says {shape}")

    def step(features: Features) -> None:
        values = features[source]
        found = activate(values @ weights["linear.weight"].T + weights.get("linear.bias", np.float32(0)))
        if residual:
            found = found + (values @ weights["residual.weight"].T if "residual.weight" in weights else values)
        features[target] = found

    return step


def _layer_norm(site: _Site) -> Step:
    site.config("dimension")
    weights = site.weights({"norm.weight", "norm.bias"})

    def step(features: Features) -> None:
        values = features[SENTENCE]
        centered = values - values.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
        features[SENTENCE] = centered / scale * weights["norm.weight"] + weights["norm.bias"]

    return step


def _dropout(site: _Site) -> Step:
    """Only in training anything is dropped."""
    site.config("dropout")

    def step(features: Features) -> None:
        pass

    return step


_KINDS: dict[str, Callable[[_Site], Step]] = {
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
    """The logistic function of each element, in its precision."""
    # Of numbers far below 0 the power is infinite, and the result the 0 that is meant.
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
    found = f"'{module.folder.name}/{pickle}' is a pickle, which runs code when it is read" if pickle else "it has none"
    raise ModelFailed(
        f"{module.kind} needs its weights from '{module.folder.name}/model.safetensors'; {found}\n"
        "help: load the model with sentence-transformers and save it with safe_serialization=True"
    )


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_safetensors(file: Path) -> Features:
    """The tensors of a file in the format of safetensors, FP32 where they are narrower.

    The format: eight bytes of length, as many of JSON (``dtype``, ``shape`` and ``data_offsets`` of each tensor), the
    numbers.

    Raises:
        ModelFailed: it is no such file, or holds types that are not known.
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
