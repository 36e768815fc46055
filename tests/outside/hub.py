"""Folders of Hugging Face to load, and what is asked of them in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inferd.runtimes import huggingface
from outside import texts
from outside.texts import Encoder

__all__ = [
    "BERT",
    "BERT_TOKENS",
    "SENTENCES",
    "TRANSFORMER",
    "ask",
    "classifier",
    "hidden",
    "logits",
    "make",
    "module",
    "same_tokens",
    "served",
    "settings_of",
    "sigmoid",
    "softmax",
]


BERT = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 64, "vocab_size": 200}
BERT_TOKENS = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]", "model_max_length": 64}
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
SENTENCES = ["the cat sleeps", "a dog", "the bird sings fast , slowly in the house !", "cats"]


def module(kind: str) -> dict[str, Any]:
    return {"idx": 1, "name": "1", "path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"}


def settings_of(folder: Path, graph: str = "onnx/model.onnx", **parameters: Any) -> dict[str, Any]:
    return {
        "file": str(folder),
        "graph": str(folder / graph),
        "parameters": parameters,
        "threads": 1,
        "tolerance": {"absolute": 1e-5, "relative": 1e-3},
        "signature": {"inputs": None, "outputs": None},
        "batching": "auto",
        "batch_rows_max": 32,
    }


def served(folder: Path, **parameters: Any) -> huggingface.HuggingfaceRuntime:
    return huggingface.HuggingfaceRuntime(settings_of(folder, **parameters))


def ask(model: huggingface.HuggingfaceRuntime, *rows: str | None, **more: list[str | None]) -> dict[str, np.ndarray]:
    def column(values: Any) -> np.ndarray:
        array = np.empty(len(values), dtype=object)
        array[:] = [None if value is None else value.encode() for value in values]
        return array

    return model.predict({"text": column(rows), **{name: column(values) for name, values in more.items()}})


def make(folder: Path, encoder: Encoder, *outputs: str, **files: Any) -> Path:
    """A folder of BERT's kind; ``files`` replace or add, by their names without ``.json``."""
    encoder.save(folder / "onnx" / "model.onnx", outputs or ("last_hidden_state",))
    usual = {"config": BERT, "tokenizer_config": BERT_TOKENS, "tokenizer": encoder.tokenizer, **files}
    return texts.write(folder, {f"{name}.json": content for name, content in usual.items() if content is not None})


def classifier(classes: int) -> Encoder:
    return Encoder(texts.wordpiece(), np.random.default_rng(2), heads={"logits": classes})


def logits(encoder: Encoder, rows: list[str]) -> np.ndarray:
    return np.array([encoder.run(*encoder.tokens(row))["logits"] for row in rows])


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def hidden(model: huggingface.HuggingfaceRuntime, text: str) -> np.ndarray:
    found = ask(model, text)
    return found["last_hidden_state"][0][: found["attention_mask"].sum()]


def same_tokens(model: huggingface.HuggingfaceRuntime, encoder: Encoder, text: str, ids: list[int]) -> None:
    wanted = encoder.run(ids, [0] * len(ids))["last_hidden_state"]
    np.testing.assert_allclose(hidden(model, text), wanted, rtol=1e-5, atol=1e-6)
