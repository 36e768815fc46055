"""Hugging Face folders: what becomes of logits is what their files say."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.errors import ModelFailed
from inferd.worker.batching import decide_batching
from outside import texts
from outside.hub import BERT, SENTENCES, ask, classifier, logits, make, served, settings_of, sigmoid, softmax
from outside.texts import Encoder

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
    assert "padded and masked" in model.facts["batches"]
    assert ("label" in found) == (classes > 1)
    if classes > 1:
        names = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(classes)}
        assert found["label"].tolist() == [names[str(index)].encode() for index in wanted.argmax(axis=1)]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"id2label": {"0": "a", "2": "c"}}, "has the classes [0, 2], but the model has 3"),
        ({"id2label": {"0": "a", "1": "b"}}, "has the classes [0, 1]"),
        ({"num_labels": 3, "problem_type": "ordinal"}, "unknown problem_type 'ordinal'"),
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
    assert "of the graph, unchanged" in model.facts["answers"]


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
    assert "attention_mask marks the tokens of logits" in model.facts["answers"]
    assert decide_batching(model, settings_of(tmp_path)).batching_off is not None
