"""Folders of sentence-transformers: every module that they name is applied, or the load ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import ModelFailed
from outside import texts
from outside.hub import (
    BERT,
    BERT_TOKENS,
    SENTENCES,
    TRANSFORMER,
    ask,
    classifier,
    make,
    module,
    served,
    sigmoid,
)
from outside.texts import Encoder

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
OLD_NAMES = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}


def sentence_model(folder: Path, encoder: Encoder, *kinds: str, **files: Any) -> Path:
    usual = {"modules": [TRANSFORMER, *map(module, kinds)], "1_Pooling/config": {"pooling_mode_mean_tokens": True}}
    return make(folder, encoder, **{**usual, **files})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["old", "new"])
def test_every_mode_of_pooling_is_done(mode, form, encoder, tmp_path):
    old = {f"pooling_mode_{OLD_NAMES.get(mode, mode)}": True, "word_embedding_dimension": 8}
    config = old if form == "old" else {"pooling_mode": mode, "embedding_dimension": 8, "include_prompt": True}
    model = served(sentence_model(tmp_path, encoder, "Pooling", **{"1_Pooling/config": config}))
    wanted = [texts.pooling(mode, encoder.run(*encoder.tokens(text))["last_hidden_state"]) for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)


def test_several_modes_of_pooling_stand_side_by_side(encoder, tmp_path):
    config = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_lasttoken": True}
    model = served(sentence_model(tmp_path, encoder, "Pooling", **{"1_Pooling/config": config}))
    vectors = [encoder.run(*encoder.tokens(text))["last_hidden_state"] for text in SENTENCES]
    wanted = [np.concatenate([texts.pooling(mode, one) for mode in ("cls", "mean", "lasttoken")]) for one in vectors]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)


def erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf as function

    return function(x)


ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.Sigmoid": sigmoid,
    "torch.nn.modules.activation.GELU": lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    "torch.nn.modules.activation.SiLU": lambda x: x * sigmoid(x),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_layers_are_applied(activation, bias, encoder, tmp_path):
    random = np.random.default_rng(4)
    weights = {"linear.weight": random.normal(size=(5, 8)), "linear.bias": random.normal(size=5)}
    if not bias:
        del weights["linear.bias"]
    config = {"in_features": 8, "out_features": 5, "bias": bias, "activation_function": activation}
    folder = sentence_model(tmp_path, encoder, "Pooling", "Dense", **{"1_Dense/config": config})
    (folder / "1_Dense" / "model.safetensors").write_bytes(texts.safetensors(weights))
    model = served(folder)
    means = [encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in SENTENCES]
    wanted = ACTIVATIONS[activation](np.array(means) @ weights["linear.weight"].T + weights.get("linear.bias", 0))
    found = ask(model, *SENTENCES)["embedding"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32
    assert "Pooling, Dense" in model.facts["answers"]


def test_norms_and_a_shorter_vector_come_in_the_order_of_the_files(encoder, tmp_path):
    random = np.random.default_rng(5)
    weights = {"norm.weight": random.normal(size=8), "norm.bias": random.normal(size=8)}
    folder = sentence_model(
        tmp_path,
        encoder,
        "Pooling",
        "LayerNorm",
        "Dropout",
        "Normalize",
        **{"1_LayerNorm/config": {"dimension": 8}, "1_Dropout/config": {"dropout": 0.5}},
        config_sentence_transformers={"truncate_dim": 3, "similarity_fn_name": "cosine", "prompts": {}},
    )
    (folder / "1_LayerNorm" / "model.safetensors").write_bytes(texts.safetensors(weights))
    means = np.array([encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in SENTENCES])
    centered = means - means.mean(axis=1, keepdims=True)
    scaled = centered / np.sqrt(means.var(axis=1, keepdims=True) + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
    wanted = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True))[:, :3]
    np.testing.assert_allclose(ask(served(folder), *SENTENCES)["embedding"], wanted, rtol=1e-4, atol=1e-5)


def test_weights_in_a_pickle_are_refused_with_the_way_out(encoder, tmp_path):
    config = {"in_features": 8, "out_features": 5, "bias": True}
    files = {"1_Dense/config": config}
    folder = sentence_model(tmp_path, encoder, "Pooling", "Dense", **files)
    (folder / "1_Dense" / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelFailed, match=r"is a pickle.*\nhelp: .*safe_serialization=True"):
        served(folder)


UNKNOWN_FILES = {
    "a module": ({"modules": [TRANSFORMER, module("WordWeights")]}, "WordWeights"),
    "somebody's own module": (
        {"modules": [TRANSFORMER, {"type": "custom_st.Pooling", "path": "x"}]},
        "custom_st.Pooling",
    ),
    "a line of modules.json": ({"modules": [{**TRANSFORMER, "when": "x"}, module("Pooling")]}, "'when'"),
    "a mode of pooling": ({"1_Pooling/config": {"pooling_mode": "median"}}, "'median'"),
    "an entry of pooling": ({"1_Pooling/config": {"pooling_mode_median_tokens": True}}, "'pooling_mode_median_tokens'"),
    "an entry of the tokenizer": ({"tokenizer_config": {**BERT_TOKENS, "do_upper_case": True}}, "'do_upper_case'"),
    "an entry of special tokens": ({"special_tokens_map": {"glue": "##"}}, "'glue'"),
    "an entry of the transformer": ({"sentence_bert_config": {"max_seq_length": 8, "window": 2}}, "'window'"),
    "an entry of the model": ({"config_sentence_transformers": {"prefix": "query: "}}, "'prefix'"),
    "a query's own length": ({"sentence_bert_config": {"query_length": 32}}, "query_length"),
    "an activation": (
        {"1_Dense/config": {"in_features": 8, "out_features": 8, "activation_function": "own.Act"}},
        "own.Act",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN_FILES)
def test_what_is_not_known_ends_the_load_and_is_named(what, encoder, tmp_path):
    files, words = UNKNOWN_FILES[what]
    kinds = ("Pooling", "Dense") if "1_Dense/config" in files else ("Pooling",)
    with pytest.raises(ModelFailed) as raised:
        served(sentence_model(tmp_path, encoder, *kinds, **files))
    assert words in str(raised.value)
    assert "help: " in str(raised.value)


def test_an_entry_that_the_operator_knows_to_change_nothing_is_passed_over_and_said(encoder, tmp_path):
    folder = sentence_model(tmp_path, encoder, "Pooling", tokenizer_config={**BERT_TOKENS, "made_by": "me"})
    model = served(folder, ignore=["made_by"])
    assert "made_by" in model.facts["left_out"]


def test_a_graph_that_makes_the_embedding_itself_is_taken_at_its_word(tmp_path):
    encoder = Encoder(texts.wordpiece(), np.random.default_rng(6), heads={"sentence_embedding": 4})
    lines = [TRANSFORMER, {"type": "custom_st.Pooling", "path": ""}]
    model = served(make(tmp_path, encoder, "last_hidden_state", "sentence_embedding", modules=lines))
    wanted = [encoder.run(*encoder.tokens(text))["sentence_embedding"] for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert "sentence_embedding of the graph" in model.facts["answers"]
    assert "last_hidden_state" in model.facts["left_out"]


PROMPTS = {"prompts": {"query": "the dog , ", "document": ""}, "default_prompt_name": "query"}


@pytest.mark.parametrize("included", [True, False])
def test_the_default_prompt_is_put_before_every_text(included, encoder, tmp_path):
    config = {"pooling_mode_mean_tokens": True, "include_prompt": included}
    files = {"1_Pooling/config": config, "config_sentence_transformers": PROMPTS}
    model = served(sentence_model(tmp_path, encoder, "Pooling", **files))
    # [CLS] the dog , … [SEP]: sentence-transformers counts what stands before the first token of the text.
    skipped = 0 if included else 4
    runs = [encoder.run(*encoder.tokens("the dog , " + text))["last_hidden_state"][skipped:] for text in SENTENCES]
    wanted = [texts.pooling("mean", vectors) for vectors in runs]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert "'the dog , '" in model.facts["prompt"]


def test_prompts_without_a_default_are_left_to_a_setting(encoder, tmp_path):
    config = {"prompts": {"query": "the dog , ", "passage": "a bird , "}, "default_prompt_name": None}
    folder = sentence_model(tmp_path, encoder, "Pooling", config_sentence_transformers=config)
    assert "prompt_name" in served(folder).facts["prompt"]
    plain = ask(served(folder), "a bird , fast")["embedding"]
    assert ask(served(folder, prompt_name="passage"), "fast")["embedding"] == pytest.approx(plain)
    assert ask(served(folder, prompt="a bird , "), "fast")["embedding"] == pytest.approx(plain)
    with pytest.raises(ModelFailed, match=r"unknown prompt 'none'\nhelp: .*'passage', 'query'"):
        served(folder, prompt_name="none")


def test_a_function_that_is_none_of_those_is_refused(tmp_path):
    folder = make(tmp_path, classifier(2), "logits", config={**BERT, "num_labels": 2})
    with pytest.raises(ModelFailed, match=r"'relu'\nhelp: softmax, sigmoid, none"):
        served(folder, function_to_apply="relu")
