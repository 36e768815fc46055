"""Hugging Face folders of a few numbers: tokenizers, graphs, and what they give by the book.

Hands on files, and the same computed in numpy for one text alone: without padding, by the published formulas. Knows
nothing of servers, and imports nothing of inferd.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import tokenizers

__all__ = [
    "WORDS",
    "Encoder",
    "byte_level",
    "pooling",
    "random_texts",
    "safetensors",
    "word_level",
    "wordpiece",
    "write",
]

_COMMON = "the a cat dog bird runs sleeps sings fast slowly in on under house tree 5 ! , . über naïve ##s ##er ##ing"
WORDS = tuple(_COMMON.split())
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece(*, lowercase: bool = True) -> tokenizers.Tokenizer:
    """As BERT has it: ``[CLS] … [SEP]``."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: place for place, token in enumerate((*SPECIAL, *WORDS, "Cat", "DOG", "naive", "uber"))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def word_level() -> tokenizers.Tokenizer:
    """Words between spaces; no special tokens at the ends, none that fills up."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    vocabulary = {token: place for place, token in enumerate(("<unk>", *WORDS))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def byte_level(*, prefix: bool = False) -> tokenizers.Tokenizer:
    """As RoBERTa has it: bytes, a few pairs of them, ``<s> … </s>``."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("Ġ", "a")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate((*special, *alphabet, *(a + b for a, b in merges)))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


@dataclass
class Encoder:
    """A transformer of one layer: each token's vector depends on all of the text.

    ``hidden = tanh(E[ids] + T[type_ids] + P[position_ids] + mean over the text of E[ids])``, FP32.

    Args:
        tokenizer: makes the tokens.
        random: makes the numbers.
        size: dimensions of a vector.
        inputs: that the graph takes. Without ``attention_mask`` its mean is over all that it gets.
        heads: names of further outputs with their number of classes: ``logits`` of the mean vector; of each token
            where the name is in ``per_token``.
    """

    tokenizer: tokenizers.Tokenizer
    random: np.random.Generator
    size: int = 8
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    heads: dict[str, int] = field(default_factory=dict)
    per_token: tuple[str, ...] = ()
    quantized: bool = False

    def __post_init__(self) -> None:
        vocabulary = self.tokenizer.get_vocab_size()
        self.weights = {
            "E": self._numbers(vocabulary, self.size),
            "T": self._numbers(2, self.size),
            "P": self._numbers(600, self.size),
            **{f"W_{name}": self._numbers(self.size, classes) for name, classes in self.heads.items()},
        }

    def _numbers(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape).astype(np.float32)

    # -- by the book ------------------------------------------------------------------------------------------------

    def tokens(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """The ids and types of one text, uncut and without padding."""
        one = self.tokenizer.encode(text) if pair is None else self.tokenizer.encode(text, pair)
        return one.ids, one.type_ids

    def run(self, ids: list[int], types: list[int], first_position: int = 0) -> dict[str, np.ndarray]:
        """Every output for one text."""
        words = self.weights["E"][ids]
        hidden = words + words.mean(axis=0)
        if "token_type_ids" in self.inputs:
            hidden = hidden + self.weights["T"][types]
        if "position_ids" in self.inputs:
            hidden = hidden + self.weights["P"][np.arange(len(ids)) + first_position]
        hidden = np.tanh(hidden)
        found = {"last_hidden_state": hidden}
        for name in self.heads:
            of = hidden if name in self.per_token else hidden.mean(axis=0)
            found[name] = of @ self.weights[f"W_{name}"]
        return found

    # -- as a file --------------------------------------------------------------------------------------------------

    def save(self, file: Path, outputs: tuple[str, ...] = ("last_hidden_state",)) -> None:
        """The graph, opset 17."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        nodes: list[Any] = []

        def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(kind, inputs, [output], **attributes))
            return output

        words = node("Gather", ["E", "input_ids"], "words")
        if "attention_mask" in self.inputs:
            mask = node("Unsqueeze", [node("Cast", ["attention_mask"], "m", to=TensorProto.FLOAT), "last"], "mask")
            total = node("ReduceSum", [node("Mul", [words, mask], "kept"), "one"], "total")
            count = node("ReduceSum", [mask, "one"], "count")
            mean = node("Div", [total, count], "mean")
        else:
            mean = node("ReduceMean", [words], "mean", axes=[1], keepdims=1)
        hidden = node("Add", [words, mean], "h0")
        for name, table in (("token_type_ids", "T"), ("position_ids", "P")):
            if name in self.inputs:
                hidden = node("Add", [hidden, node("Gather", [table, name], f"of_{name}")], f"h_{name}")
        hidden = node("Tanh", [hidden], "last_hidden_state")
        if "attention_mask" in self.inputs:
            whole = node("Div", [node("ReduceSum", [node("Mul", [hidden, mask], "k"), "one"], "s"), count], "whole")
        else:
            whole = node("ReduceMean", [hidden], "whole", axes=[1], keepdims=1)
        pooled = node("Squeeze", [whole, "one"], "pooled")
        for name in self.heads:
            of = hidden if name in self.per_token else pooled
            if self.quantized:
                node("DynamicQuantizeLinear", [of], f"{name}_q")
                nodes[-1].output.extend([f"{name}_s", f"{name}_z"])
                of = node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], f"{name}_dq")
            node("MatMul", [of, f"W_{name}"], name)
        shapes = {name: ["n", "t", "d"] if name in self.per_token else ["n", k] for name, k in self.heads.items()}
        shapes["last_hidden_state"] = ["n", "t", self.size]
        constants = {"last": np.array([2]), "one": np.array([1])}
        graph = helper.make_graph(
            nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in self.inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in {**self.weights, **constants}.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(file))


def write(folder: Path, files: dict[str, Any]) -> Path:
    """A folder of JSON files; a tokenizer and an encoder know how to write themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if hasattr(content, "get_vocab_size"):
            content.save(str(file))
        elif isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(json.dumps(content))
    return folder


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The format: length, JSON header, numbers."""
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + data


def pooling(mode: str, vectors: np.ndarray) -> np.ndarray:
    """One vector from those of a text's tokens, as the papers have it."""
    count = len(vectors)
    places = np.arange(1, count + 1, dtype=np.float32)[:, None]
    return {
        "cls": lambda: vectors[0],
        "max": lambda: vectors.max(axis=0),
        "mean": lambda: vectors.sum(axis=0) / count,
        "mean_sqrt_len_tokens": lambda: vectors.sum(axis=0) / np.sqrt(np.float32(count)),
        "weightedmean": lambda: (vectors * places).sum(axis=0) / places.sum(),
        "lasttoken": lambda: vectors[-1],
    }[mode]()


def random_texts(random: np.random.Generator, count: int, *, longest: int = 40, empty: bool = False) -> list[str]:
    """Texts of words that are known and words that are not, of every length, some of them odd."""
    odd = [
        "The Cat",
        "DOGS",
        "x",
        "日本語 text",
        "naïve Über",
        "[MASK] [PAD]",
        "tab\tand\nline",
        "  spaces  around ",
        "😀 ok",
    ]
    words = [word for word in WORDS if not word.startswith("##")] + ["unknown", "Running", "the"]
    texts = [
        odd[place % len(odd)]
        if random.random() < 0.15
        else " ".join(random.choice(words, size=random.integers(1, longest)))
        for place in range(count)
    ]
    if empty:
        texts[3] = ""
    return [str(text) for text in texts]
