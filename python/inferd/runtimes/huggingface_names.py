"""Known names in the files of Hugging Face folders, by how they are handled.

Collected from transformers 4.57 and 5.24 and sentence-transformers 5.1 and 6.2. Unlisted names fail the load: when in
doubt, a name is not listed. Knows nothing of their values.
"""

from __future__ import annotations

__all__ = [
    "BERT_LIKE",
    "ENDS_BY_SETTINGS",
    "OFFSET_POSITIONS",
    "SENTENCE_HARMLESS",
    "SENTENCE_READ",
    "TOKENIZER_HARMLESS",
    "TOKENIZER_READ",
    "TRANSFORMER_HARMLESS",
    "TRANSFORMER_READ",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TOKENIZER_READ = _words("""
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens auto_map do_lower_case
    extra_special_tokens max_len model_max_length padding_side split_special_tokens strip_accents
    tokenize_chinese_chars tokenizer_class truncation_side
""")
"""Entries of ``tokenizer_config.json`` that are read."""

TOKENIZER_HARMLESS = _words("""
    _commit_hash _from_auto backend chat_control_tokens chat_template clean_text clean_up_tokenization_spaces
    clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output cls_token_box device_map
    do_basic_tokenize errors extra_ids files_loaded from_slow full_tokenizer_file init_inputs is_fast is_local
    keep_accents legacy local_files_only mask_token_sent max_length merges_file model_input_names name_or_path
    never_split offset only_label_first_subword pad_to_multiple_of pad_token_box pad_token_label pad_token_type_id
    processor_class remove_space response_schema response_template return_offsets_mapping return_token_type_ids
    sep_token_box sp_model_kwargs spaces_between_special_tokens special_tokens_map_file split_by_punct stride token
    tokenizer_file tokenizer_type torch_dtype transformers_version trim_offsets truncation_strategy trust_remote_code
    unk_id use_default_system_prompt use_fast verbose vocab_file vocab_size vocab_type wordpieces_prefix
""")
"""Entries of slow tokenizers, decoding, chat and provenance; ``tokenizer.json`` contains the rest."""

TRANSFORMER_READ = _words("do_lower_case max_seq_length modality_config processor_kwargs tokenizer_args")
"""Entries of ``sentence_bert_config.json`` that are read."""

TRANSFORMER_HARMLESS = _words("""
    cache_dir config_args config_kwargs model_args model_kwargs transformer_task unpad_inputs
""")
"""Entries about the graph, and the memory layout of batches on a GPU."""

SENTENCE_READ = _words("activation_fn default_prompt_name model_type prompts truncate_dim")
"""Entries of ``config_sentence_transformers.json`` that are read."""

SENTENCE_HARMLESS = _words("__version__ requirements similarity_fn_name")
"""Versions; and the similarity function, which clients apply to two vectors."""

OFFSET_POSITIONS = _words("""
    camembert data2vec-text esm longformer mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod
""")
"""Models whose position ids start after that of the padding token, which reduces the maximum length."""

BERT_LIKE = _words("""
    Bert ConvBert DPRContextEncoder DPRQuestionEncoder DPRReader DistilBert Electra Funnel LayoutLM LayoutLMv2 Lxmert
    MPNet MobileBert Realm RetriBert Splinter SqueezeBert
""")
"""Tokenizers whose normalizer transformers configures by ``tokenizer_config.json``, overriding ``tokenizer.json``."""

ENDS_BY_SETTINGS = _words("CodeLlama Cohere GPTNeoX Gemma Llama")
"""Tokenizers for which transformers 4 adds BOS and EOS by ``add_bos_token`` and ``add_eos_token``."""
