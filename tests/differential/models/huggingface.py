"""Hugging Face folders: each text alone, by the published formulas, against texts of every length together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from differential.case import ROWS, Case
from outside import texts
from outside.texts import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from differential.case import Maker

__all__ = ["CASES", "SLICE"]

BERT = {"model_type": "bert", "max_position_embeddings": 64, "vocab_size": 200}
BERT_TOKENS = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]", "model_max_length": 64}
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
LIMIT = 64


def _module(kind: str) -> dict[str, Any]:
    return {"idx": 1, "name": "1", "path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"}


def _cut(ids: list[int], types: list[int], limit: int = LIMIT) -> tuple[list[int], list[int]]:
    """As a tokenizer that puts one token at the end cuts a text."""
    if len(ids) <= limit:
        return ids, types
    return [*ids[: limit - 1], ids[-1]], [*types[: limit - 1], types[-1]]


def _case(
    folder: Path,
    random: np.random.Generator,
    of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    pairs: float = 0,
    **more: Any,
) -> Case:
    """A case whose rows are answered one by one.

    Args:
        folder: the model's.
        random: makes the texts.
        of: the outputs of one row.
        pairs: the part of the rows that have a second text; 0: the model takes none.
        more: of the case.
    """

    def answer(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        one_by_one = [of({name: array[row] for name, array in rows.items()}) for row in range(len(rows["text"]))]
        return {name: _together([one[name] for one in one_by_one]) for name in one_by_one[0]}

    asked = {"text": _column(texts.random_texts(random, ROWS, empty=more.pop("empty", True)))}
    if pairs:
        asked["text_pair"] = _column(texts.random_texts(random, ROWS, longest=10))
        asked["text_pair"][random.random(ROWS) > pairs] = None
    settings = {"faster": False, **more.pop("settings", {})}
    return Case(folder, asked, answer, relative=2e-5, absolute=2e-6, settings=settings, **more)


def _together(rows: list[Any]) -> np.ndarray:
    """The answers to texts of different lengths: zeros behind the end of each."""
    arrays = [np.asarray(row) for row in rows]
    if arrays[0].dtype.kind in "SUO":
        return np.array([array.item() for array in arrays], dtype=object)
    whole = np.zeros((len(arrays), *np.max([array.shape for array in arrays], axis=0).astype(int)), arrays[0].dtype)
    for place, array in enumerate(arrays):
        whole[place][tuple(slice(size) for size in array.shape)] = array
    return whole


def _column(values: list[str]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _write(folder: Path, encoder: Encoder, *outputs: str, **files: Any) -> Path:
    encoder.save(folder / "onnx" / "model.onnx", outputs or ("last_hidden_state",))
    usual = {"config": BERT, "tokenizer_config": BERT_TOKENS, "tokenizer": encoder.tokenizer, **files}
    return texts.write(folder, {f"{name}.json": content for name, content in usual.items() if content is not None})


# -- classifiers ----------------------------------------------------------------------------------------------------


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _classifier(config: dict[str, Any], classes: int, function: Callable[[np.ndarray], np.ndarray]) -> Maker:
    def make(folder: Path, random: np.random.Generator) -> Case:
        encoder = Encoder(texts.wordpiece(), random, heads={"logits": classes})
        names = config.get("id2label") or {str(place): f"LABEL_{place}" for place in range(classes)}

        def of(row: Mapping[str, Any]) -> dict[str, Any]:
            scores = function(encoder.run(*_cut(*encoder.tokens(row["text"], row["text_pair"])))["logits"])
            if classes == 1:
                return {"scores": scores}
            return {"label": names[str(int(scores.argmax()))], "scores": scores}

        path = _write(folder, encoder, "logits", config={**BERT, **config})
        outputs = {"label": "scores"} if classes > 1 else {}
        return _case(path, random, of, pairs=1 if "sbert" in str(config) else 0.5, outputs=outputs)

    return make


def _token_classifier(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(texts.wordpiece(), random, heads={"logits": 3}, per_token=("logits",))

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        ids, types = _cut(*encoder.tokens(row["text"]))
        return {"logits": encoder.run(ids, types)["logits"], "attention_mask": np.ones(len(ids), np.int64)}

    config = {**BERT, "architectures": ["BertForTokenClassification"], "num_labels": 3}
    return _case(_write(folder, encoder, "logits", config=config), random, of)


# -- sentences ------------------------------------------------------------------------------------------------------


def _embedder(modes: list[str], **encoding: Any) -> Maker:
    def make(folder: Path, random: np.random.Generator) -> Case:
        encoder = Encoder(texts.wordpiece(), random, **encoding)

        def of(row: Mapping[str, Any]) -> dict[str, Any]:
            vectors = encoder.run(*_cut(*encoder.tokens(row["text"])))["last_hidden_state"]
            pooled = np.concatenate([texts.pooling(mode, vectors) for mode in modes])
            return {"embedding": pooled / np.linalg.norm(pooled)}

        files = {
            "modules": [TRANSFORMER, _module("Pooling"), _module("Normalize")],
            "1_Pooling/config": {"pooling_mode": modes, "embedding_dimension": encoder.size},
        }
        return _case(_write(folder, encoder, **files), random, of)

    return make


def _dense(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(texts.wordpiece(), random)
    weight, bias = random.normal(size=(5, 8)).astype(np.float32), random.normal(size=5).astype(np.float32)

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        vectors = encoder.run(*_cut(*encoder.tokens(row["text"])))["last_hidden_state"]
        return {"embedding": np.tanh(weight @ vectors.mean(axis=0) + bias)}

    files = {
        "modules": [TRANSFORMER, _module("Pooling"), _module("Dense")],
        "1_Pooling/config": {"pooling_mode_mean_tokens": True},
        "1_Dense/config": {"in_features": 8, "out_features": 5, "bias": True},
    }
    path = _write(folder, encoder, **files)
    (path / "1_Dense" / "model.safetensors").write_bytes(
        texts.safetensors({"linear.weight": weight, "linear.bias": bias})
    )
    return _case(path, random, of)


def _prompted(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(texts.wordpiece(), random)
    prompt = "the dog , "

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        ids, types = _cut(*encoder.tokens(prompt + row["text"]))
        # [CLS] and the three words of the prompt.
        return {"embedding": encoder.run(ids, types)["last_hidden_state"][4:].mean(axis=0)}

    files = {
        "modules": [TRANSFORMER, _module("Pooling")],
        "1_Pooling/config": {"pooling_mode_mean_tokens": True, "include_prompt": False},
        "config_sentence_transformers": {"prompts": {"query": prompt}, "default_prompt_name": "query"},
    }
    return _case(_write(folder, encoder, **files), random, of)


# -- tokens ---------------------------------------------------------------------------------------------------------


def _no_padding(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(texts.word_level(), random, inputs=("input_ids",), heads={"score": 2})

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        ids, types = encoder.tokens(row["text"])
        if not ids:
            raise ValueError("no tokens")
        return {"score": encoder.run(ids, types)["score"]}

    return _case(_write(folder, encoder, "score", config={}, tokenizer_config=None), random, of)


def _cased_by_configuration(folder: Path, random: np.random.Generator) -> Case:
    """``tokenizer.json`` does not lowercase; ``tokenizer_config.json`` says to."""
    encoder = Encoder(texts.wordpiece(lowercase=False), random, heads={"score": 2})
    right = texts.wordpiece(lowercase=True)

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        encoded = right.encode(row["text"])
        return {"score": encoder.run(*_cut(encoded.ids, encoded.type_ids))["score"]}

    return _case(_write(folder, encoder, "score"), random, of)


def _roberta(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(
        texts.byte_level(), random, inputs=("input_ids", "attention_mask", "position_ids"), heads={"score": 2}
    )
    right = texts.byte_level(prefix=True)

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        encoded = right.encode(row["text"])
        return {"score": encoder.run(*_cut(encoded.ids, encoded.type_ids, 60), first_position=2)["score"]}

    files = {
        "config": {"model_type": "roberta", "max_position_embeddings": 62, "pad_token_id": 1, "vocab_size": 300},
        "tokenizer_config": {
            "tokenizer_class": "RobertaTokenizer",
            "add_prefix_space": True,
            "pad_token": "<pad>",
            "model_max_length": 512,
        },
    }
    return _case(_write(folder, encoder, "score", **files), random, of)


def _left_cut(folder: Path, random: np.random.Generator) -> Case:
    encoder = Encoder(texts.wordpiece(), random, heads={"score": 2})

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        ids, types = encoder.tokens(row["text"])
        if len(ids) > 9:
            ids, types = [ids[0], *ids[-8:]], types[:9]
        return {"score": encoder.run(ids, types)["score"]}

    tokens = {**BERT_TOKENS, "model_max_length": 9, "truncation_side": "left", "padding_side": "left"}
    return _case(_write(folder, encoder, "score", tokenizer_config=tokens), random, of)


def _quantized(folder: Path, random: np.random.Generator) -> Case:
    """Quantized by what runs: rows that run together would change each other. One text alone is the library's answer."""
    import onnxruntime

    encoder = Encoder(texts.wordpiece(), random, heads={"score": 2}, quantized=True)
    path = _write(folder, encoder, "score")
    session = onnxruntime.InferenceSession(str(path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])

    def of(row: Mapping[str, Any]) -> dict[str, Any]:
        ids, types = (np.array([values]) for values in _cut(*encoder.tokens(row["text"])))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        return {"score": session.run(["score"], feeds)[0][0]}

    return _case(path, random, of)


IDENTITY = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity", "id2label": {"0": "LABEL_0"}}
CASES: dict[str, Maker] = {
    "softmax over named classes": _classifier({"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}, 3, _softmax),
    "two classes that nobody named": _classifier({"architectures": ["BertForSequenceClassification"]}, 2, _softmax),
    "several labels at once": _classifier({"num_labels": 3, "problem_type": "multi_label_classification"}, 3, _sigmoid),
    "one logit": _classifier({"id2label": {"0": "LABEL_0"}}, 1, _sigmoid),
    "regression": _classifier({"num_labels": 1, "problem_type": "regression"}, 1, lambda logits: logits),
    "a cross-encoder of pairs": _classifier(IDENTITY, 1, lambda logits: logits),
    "logits of every token": _token_classifier,
    "mean pooling, normalised": _embedder(["mean"]),
    "several modes of pooling": _embedder(["cls", "max", "weightedmean", "lasttoken"]),
    "pooling over positions": _embedder(
        ["mean_sqrt_len_tokens"], inputs=("input_ids", "attention_mask", "position_ids")
    ),
    "a dense layer behind pooling": _dense,
    "a prompt that is not pooled": _prompted,
    "no padding token and no mask": _no_padding,
    "a case that only the configuration says": _cased_by_configuration,
    "bytes with a space before, positions behind the padding": _roberta,
    "long texts cut on the left": _left_cut,
    "quantized as it runs": _quantized,
}
SLICE = (
    "several labels at once",
    "a cross-encoder of pairs",
    "several modes of pooling",
    "no padding token and no mask",
)
