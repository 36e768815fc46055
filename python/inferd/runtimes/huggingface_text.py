"""Tokenize text as transformers does for a folder's files.

Reads ``tokenizer.json`` and the other files via :class:`Folder`, hands on the tokens of each text. If the files
contradict each other, follows transformers; if its versions differ, fails the load. Worker side only. Knows nothing of
the model.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.huggingface_config import read_json, refuse_unknown
from inferd.runtimes.huggingface_names import BERT_LIKE, ENDS_BY_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import tokenizers

    from inferd.runtimes.huggingface_config import Folder

__all__ = ["Texts"]

_FILE = "tokenizer.json"
_DOCUMENT = (
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
)
# Maximum if no file has a limit: attention is quadratic in the length.
_UNLIMITED_MAX = 8192


class Texts:
    """The tokenizer of a folder.

    Args:
        folder: the folder.
        width: maximum tokens of the graph; None: dynamic.

    Raises:
        ModelFailed: its files contradict each other.
    """

    def __init__(self, folder: Folder, width: int | None) -> None:
        import tokenizers

        self._folder = folder
        document = read_json(folder.path / _FILE)
        refuse_unknown(_FILE, document, {*_DOCUMENT, *folder.ignored})
        _normalize_as_configured(document, folder)
        _prefix_as_configured(document, folder)
        truncation, padding = document.get("truncation") or {}, document.get("padding") or {}
        document["truncation"] = document["padding"] = None
        try:
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(document))
        except Exception as fault:  # tokenizers raises plain Exception
            raise ModelFailed(f"'{_FILE}' can't be read: {fault}") from fault
        _add_tokens(tokenizer, folder)
        tokenizer.encode_special_tokens = bool(folder.tokenizer.get("split_special_tokens"))
        side = folder.tokenizer.get("truncation_side") or str(truncation.get("direction", "right")).lower()
        limits = (folder.tokens_max(truncation.get("max_length")), width)
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        """Maximum tokens of a text; None: no limit in any file."""
        if self.limit is not None:
            tokenizer.enable_truncation(self.limit, strategy="longest_first", direction=side)
        self._tokenizer = tokenizer
        self._check_ends()
        self.pad_id = self._pad_id(padding)
        """The padding token; None: no file names one."""
        self.pad_left = (
            folder.tokenizer.get("padding_side") or str(padding.get("direction", "right")).lower()
        ) == "left"
        kept = f"the first {self.limit}" if side == "right" else f"the last {self.limit}"
        self.limit_description = (
            f"{kept} tokens of a text are used"
            if self.limit is not None
            else f"no limit in the files; texts of more than {_UNLIMITED_MAX} are refused"
        )
        """Description of truncation, for operators."""
        self.prompt, source = folder.prompt
        self.prompt_description = f"{self.prompt!r} ({source})" if self.prompt else source
        """Description of the prompt, for operators."""
        self.prompt_tokens = self._prompt_tokens()
        """Number of tokens of the prompt at the start of every text."""

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary without added tokens."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))

    def encode(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[tokenizers.Encoding]:
        """Tokenize each text, without padding.

        Args:
            texts: the prompt is prepended to each.
            pairs: the second text of each; None: none.

        Raises:
            InvalidInput: a text has no tokens, or too many.
        """
        first = [self.prompt + text for text in texts]
        second = pairs or [None] * len(first)
        inputs = [one if other is None else (one, other) for one, other in zip(first, second, strict=True)]
        encoded = list(self._tokenizer.encode_batch(inputs))
        for row, one in enumerate(encoded):
            if not one.ids:
                raise InvalidInput("the text has no tokens", row=row)
            if self.limit is None and len(one.ids) > _UNLIMITED_MAX:
                raise InvalidInput(
                    f"the text has {len(one.ids)} tokens; the maximum is {_UNLIMITED_MAX}, as the model's files have"
                    " no limit",
                    row=row,
                )
        return encoded

    def _pad_id(self, padding: dict[str, Any]) -> int | None:
        token = self._folder.token("pad_token")
        known = None if token is None else self._tokenizer.token_to_id(token)
        if known is not None:
            return known
        found = padding.get("pad_id", self._folder.config.get("pad_token_id"))
        return int(found) if isinstance(found, int) and found >= 0 else None

    def _prompt_tokens(self) -> int:
        """Count as sentence-transformers does: the prompt's tokens, minus a special token at the end."""
        if not self.prompt:
            return 0
        ids = self._tokenizer.encode(self.prompt).ids
        special = {self._tokenizer.token_to_id(_content(token)) for token in self._folder.special_tokens}
        special |= {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return len(ids) - (bool(ids) and ids[-1] in special)

    def _check_ends(self) -> None:
        """Fail the load if ``add_bos_token`` or ``add_eos_token`` contradicts ``tokenizer.json``.

        transformers 4 follows the settings, 5 follows ``tokenizer.json``.
        """
        ids = self._tokenizer.encode("a").ids
        by_settings = _is_class_of(self._folder, ENDS_BY_SETTINGS)
        for end, position in (("bos", 0), ("eos", -1)):
            wanted = self._folder.tokenizer.get(f"add_{end}_token")
            token = self._folder.token(f"{end}_token")
            if wanted is None or token is None:
                continue
            done = bool(ids) and ids[position] == self._tokenizer.token_to_id(token)
            if done != wanted and (wanted or by_settings):
                raise ModelFailed(
                    f"tokenizer_config.json has add_{end}_token: {json.dumps(wanted)}, but tokenizer.json "
                    f"{'adds' if done else 'does not add'} {token!r}\n"
                    f"help: set in tokenizer_config.json what the model was trained with, or remove add_{end}_token"
                )


def _is_class_of(folder: Folder, names: Collection[str]) -> bool:
    name = str(folder.tokenizer.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return name in names


def _normalize_as_configured(document: dict[str, Any], folder: Folder) -> None:
    """Configure lowercasing, accents and Chinese characters by ``tokenizer_config.json``, as transformers does."""
    config, normalizer = folder.tokenizer, document.get("normalizer") or {}
    lower = config.get("do_lower_case")
    named = config.get("tokenizer_class") is not None
    # Without a class transformers uses that of the model, and only Bert-like ones have this normalizer.
    if normalizer.get("type") == "BertNormalizer" and (not named or _is_class_of(folder, BERT_LIKE)):
        if lower is None and named and not normalizer["lowercase"]:
            raise ModelFailed(
                "tokenizer.json does not lowercase, and tokenizer_config.json lacks do_lower_case, which transformers "
                f"defaults to true for a {config['tokenizer_class']}\n"
                "help: set do_lower_case: false or true in tokenizer_config.json"
            )
        settings = (
            ("do_lower_case", "lowercase"),
            ("strip_accents",) * 2,
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        )
        for key, own in settings:
            if key in config:
                normalizer[own] = config[key]
    elif lower is not None and lower != _lowercases(normalizer):
        raise ModelFailed(
            f"tokenizer_config.json has do_lower_case: {json.dumps(lower)}, but the normalizer in tokenizer.json "
            f"{'does not lowercase' if lower else 'lowercases'}\n"
            "help: set in tokenizer_config.json what the model was trained with"
        )
    if folder.lowercases and not _lowercases(normalizer):
        before = [normalizer] if normalizer else []
        document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *before]}


def _lowercases(normalizer: dict[str, Any]) -> bool:
    inside = any(_lowercases(one) for one in normalizer.get("normalizers", ()))
    return inside or normalizer.get("type") == "Lowercase" or bool(normalizer.get("lowercase"))


def _prefix_as_configured(document: dict[str, Any], folder: Folder) -> None:
    """Add a space before the first word, or not, as ``add_prefix_space`` says."""
    wanted, outer = folder.tokenizer.get("add_prefix_space"), document.get("pre_tokenizer")
    if wanted is None or outer is None:
        return
    for one in [outer, *outer.get("pretokenizers", ())]:
        if one["type"] == "ByteLevel":
            one["add_prefix_space"] = bool(wanted)
        elif one["type"] == "Metaspace":
            scheme = one.get("prepend_scheme", "always" if one.get("add_prefix_space", True) else "never")
            if (scheme != "never") != bool(wanted):
                raise ModelFailed(
                    f"tokenizer_config.json has add_prefix_space: {json.dumps(wanted)}, but tokenizer.json has "
                    f"prepend_scheme: {scheme!r}\n"
                    "help: set in tokenizer_config.json what the model was trained with"
                )


def _add_tokens(tokenizer: tokenizers.Tokenizer, folder: Folder) -> None:
    """Add special tokens that ``tokenizer.json`` does not mark as such, as transformers does.

    A token outside of the vocabulary and of the model's embeddings stays unknown: the model has no vector for it.
    """
    listed = folder.tokenizer.get("added_tokens_decoder") or {}
    numbers = {_content(token): int(number) for number, token in listed.items()}
    for name, known in (("tokenizer_config.json", numbers), ("added_tokens.json", _added_tokens(folder))):
        for content, number in known.items():
            if tokenizer.token_to_id(content) not in (None, number):
                raise ModelFailed(
                    f"{content!r} is token {number} in {name}, and token {tokenizer.token_to_id(content)} in {_FILE}\n"
                    "help: take both files from the same model"
                )
    room = int(folder.config.get("vocab_size") or 0)
    in_order = [_token(token) for _, token in sorted(listed.items(), key=lambda item: int(item[0]))]
    for token in (*in_order, *map(_token, folder.special_tokens)):
        there = {known.content: repr(known) for known in tokenizer.get_added_tokens_decoder().values()}
        # Only added_tokens_decoder overrides the properties of an existing token.
        if token.content in there and (token not in in_order or there[token.content] == repr(token)):
            continue
        if tokenizer.token_to_id(token.content) is not None or tokenizer.get_vocab_size() < room:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])


def _added_tokens(folder: Folder) -> dict[str, int]:
    return read_json(folder.path / "added_tokens.json") or {}


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _token(token: str | dict[str, Any]) -> tokenizers.AddedToken:
    import tokenizers

    if isinstance(token, str):
        return tokenizers.AddedToken(token, special=True, normalized=False)
    properties = {key: token[key] for key in ("single_word", "lstrip", "rstrip", "normalized") if key in token}
    return tokenizers.AddedToken(token["content"], special=token.get("special", True), **properties)
