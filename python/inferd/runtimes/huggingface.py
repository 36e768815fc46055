"""Hugging Face folders: a tokenizer and an ONNX model; text in, tensors out.

``compose`` reads the model's settings in the control plane; :class:`HuggingfaceRuntime` runs both in a worker.
Reads ``tokenizer.json``, ``config.json``, ``onnx/model.onnx`` (or ``model.onnx``) and what sentence-transformers adds
(``modules.json``, ``1_Pooling/config.json``). Nothing of it is code, and code beside it (``*.py``) is never run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, in_python, require

if TYPE_CHECKING:
    import numpy as np

    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "HuggingfaceRuntime", "claims", "compose", "load"]

PLATFORM = "huggingface"
TAKES = Takes(
    title="Hugging Face",
    types="BYTES: texts in UTF-8.",
    categories="None.",
    missing="A text can't be missing; `text_pair` can where the model does without.",
    names="`text`, and `text_pair` of models that read two.",
    outputs="`embedding` of sentence-transformers; `scores`, and `label` of classifiers; else the graph's own.",
    parameters="Read beside the folder's files; an unknown one ends the load.",
)
_GRAPHS = ("onnx/model.onnx", "model.onnx", "model_optimized.onnx")
# Without a limit of the model's own.
_TOKENS_MAX = 512


def claims(path: Path) -> bool:
    """Folders with ``tokenizer.json`` and an ONNX model."""
    return path.is_dir() and (path / "tokenizer.json").is_file() and _graph(path) is not None


def _graph(folder: Path) -> Path | None:
    return next((folder / name for name in _GRAPHS if (folder / name).is_file()), None)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the folder ``file`` is started."""
    require("tokenizers", "huggingface", spec)
    require("onnxruntime", "huggingface", spec)
    return in_python("huggingface", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Tokenizer and model, in this process."""
    return HuggingfaceRuntime(settings)


class HuggingfaceRuntime:
    """Text of any length, padded into one batch.

    Input: ``text`` (BYTES). Outputs: ``embedding`` where the folder is a sentence-transformers model (pooled, and
    normalised where it says so); ``label`` and ``scores`` where ``config.json`` names the labels of a classifier;
    else the outputs of the ONNX model as they are.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import onnxruntime
        import tokenizers

        from inferd.runtimes.signatures import outputs_seen, with_declared
        from inferd.types import TensorSpec

        folder = Path(settings["file"])
        self._config = _json(folder / "config.json")
        self._pooling = _pooling(folder)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_tokens_max(folder, self._config))
        self._tokenizer.enable_padding(
            pad_id=int(self._config.get("pad_token_id") or 0), pad_token=_pad_token(self._tokenizer, self._config)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(_graph(folder)), options, providers=["CPUExecutionProvider"])
        self._takes = {node.name for node in self._session.get_inputs()}
        self._gives = [node.name for node in self._session.get_outputs()]
        self.facts = {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "tokenizer": f"tokenizers {tokenizers.__version__}",
        }
        self.example: Batch = {"text": _texts("A short one.", "A sentence that is a little longer than the other one.")}
        seen = self.predict(self.example)
        # Only dimension 0 and the length of the longest text are free; what one run showed of the others stands.
        outputs = tuple(
            spec if spec.name not in self._gives else TensorSpec(spec.name, spec.datatype, self._free(spec.name))
            for spec in outputs_seen(seen)
        )
        self.signature = with_declared(settings, (TensorSpec("text", "BYTES", (-1,)),), outputs)

    def predict(self, batch: Batch) -> Batch:
        """What the model says of each text."""
        texts = [_decoded(text, row) for row, text in enumerate(batch["text"])]
        tokens = self._tokenize(texts)
        answers = self._session.run(None, {name: tokens[name] for name in self._takes})
        found = dict(zip(self._gives, answers, strict=True))
        if self._pooling is not None:
            return {"embedding": _pooled(found[self._gives[0]], tokens["attention_mask"], self._pooling)}
        labels = self._config.get("id2label")
        if labels and "logits" in found and found["logits"].ndim == 2:
            return _classified(found["logits"], labels)
        return found

    def close(self) -> None:
        """Nothing is held but memory."""

    def _tokenize(self, texts: list[str]) -> dict[str, Any]:
        import numpy as np

        encoded = self._tokenizer.encode_batch(texts)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        arrays = {name: np.array([getattr(one, field) for one in encoded], np.int64) for name, field in columns.items()}
        missing = self._takes - arrays.keys()
        if missing:
            raise ModelFailed(f"the ONNX model takes {sorted(missing)}, which a tokenizer does not give")
        # The mask is what pooling needs, whether the model takes it or not.
        return arrays

    def _free(self, name: str) -> tuple[int, ...]:
        node = next(node for node in self._session.get_outputs() if node.name == name)
        return tuple(dim if isinstance(dim, int) and position else -1 for position, dim in enumerate(node.shape))


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise ModelFailed(f"'{file.name}' can't be read: {fault}") from fault
    return value if isinstance(value, dict) else {"modules": value}


def _tokens_max(folder: Path, config: dict[str, Any]) -> int:
    limits = (
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
        _json(folder / "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    )
    # Tokenizers without a limit write a number of thirty digits.
    return min((int(limit) for limit in limits if limit and limit < 10**6), default=_TOKENS_MAX)


def _pad_token(tokenizer: Any, config: dict[str, Any]) -> str:
    return tokenizer.id_to_token(int(config.get("pad_token_id") or 0)) or "[PAD]"


class _Pooling:
    """How sentence-transformers makes one vector of one for each token."""

    def __init__(self, mode: str, *, normalised: bool) -> None:
        self.mode = mode
        self.normalised = normalised


def _pooling(folder: Path) -> _Pooling | None:
    modules = _json(folder / "modules.json").get("modules", [])
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if "Pooling" not in kinds:
        return None
    config = _json(folder / "1_Pooling" / "config.json")
    prefix = "pooling_mode_"
    modes = [name.removeprefix(prefix) for name, on in config.items() if name.startswith(prefix) and on]
    if modes not in (["mean_tokens"], ["cls_token"], ["max_tokens"]):
        raise ModelFailed(f"the pooling {modes} is not known; mean_tokens, cls_token and max_tokens are")
    return _Pooling(modes[0], normalised="Normalize" in kinds)


def _pooled(tokens: np.ndarray, mask: np.ndarray, pooling: _Pooling) -> np.ndarray:
    import numpy as np

    weights = mask[:, :, None].astype(np.float32)
    if pooling.mode == "cls_token":
        vectors = tokens[:, 0]
    elif pooling.mode == "max_tokens":
        vectors = np.where(weights > 0, tokens, -np.inf).max(axis=1)
    else:
        vectors = (tokens * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    if pooling.normalised:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors.astype(np.float32)


def _classified(logits: np.ndarray, labels: dict[str, str]) -> Batch:
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    names = np.array([str(labels[str(position)]).encode() for position in range(logits.shape[1])], dtype=object)
    return {"label": names[scores.argmax(axis=1)], "scores": scores.astype(np.float32)}


def _decoded(text: bytes, row: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"row {row}: the text is not UTF-8") from None


def _texts(*texts: str) -> np.ndarray:
    import numpy as np

    return np.array([text.encode() for text in texts], dtype=object)
