"""Hugging Face folders: texts become the tokens that their files say, alone and in company."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import normalizers

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes import huggingface
from inferd.worker.batching import decide_batching
from outside import texts
from outside.hub import (
    BERT,
    BERT_TOKENS,
    SENTENCES,
    TRANSFORMER,
    ask,
    make,
    module,
    same_tokens,
    served,
    settings_of,
)
from outside.texts import Encoder


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
    "an end that is not put": (texts.word_level(), {"add_eos_token": True, "eos_token": "the"}, "does not add 'the'"),
    "an end that is put": (
        texts.wordpiece(),
        {**BERT_TOKENS, "tokenizer_class": "LlamaTokenizer", "add_eos_token": False, "eos_token": "[SEP]"},
        "adds '[SEP]'",
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
    with pytest.raises(InvalidInput, match=r"row 1: .*9002 tokens; the maximum is 8192"):
        ask(model, "a", "the " * 9000)
    assert "8192" in model.facts["tokens"]


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
    assert decide_batching(model, settings_of(tmp_path)).batching_off is None


def test_a_mask_that_the_graph_does_not_heed_is_found_out(tmp_path):
    encoder = Encoder(texts.word_level(), np.random.default_rng(9), inputs=("input_ids",))
    folder = make(tmp_path, encoder, config={}, tokenizer_config=None)
    unheeded(folder / "onnx" / "model.onnx")
    model = padded(folder)
    wanted = [encoder.run(*encoder.tokens(text))["last_hidden_state"].mean(axis=0) for text in SENTENCES]
    np.testing.assert_allclose(ask(model, *SENTENCES)["embedding"], wanted, rtol=1e-5, atol=1e-6)
    assert "padding changes the outputs" in model.facts["batches"]


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
    assert decide_batching(model, settings_of(tmp_path)).batching_off is None


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
