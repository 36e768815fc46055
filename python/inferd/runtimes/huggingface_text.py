"""Text into tokens, as transformers makes them of a folder's files.

Reads ``tokenizer.json`` and what :class:`Folder` knows of the others, hands on the tokens of each text. Where the files
contradict each other, it does what transformers does; where its versions differ, the load ends. Worker side only.
Knows nothing of the model.
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
# Longer texts are refused where no file limits them: attention takes the square of the length.
_UNLIMITED_MAX = 8192


class Texts:
    """The tokenizer of a folder.

    Args:
        folder: the folder.
        width: the most tokens that the graph takes; None: any number.

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
        except Exception as fault:  # tokenizers raises nothing narrower
            raise ModelFailed(f"'{_FILE}' can't be read: {fault}") from fault
        _add_tokens(tokenizer, folder)
        tokenizer.encode_special_tokens = bool(folder.tokenizer.get("split_special_tokens"))
        side = folder.tokenizer.get("truncation_side") or str(truncation.get("direction", "right")).lower()
        limits = (folder.tokens_max(truncation.get("max_length")), width)
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        """The most tokens of a text; None: no file says."""
        if self.limit is not None:
            tokenizer.enable_truncation(self.limit, strategy="longest_first", direction=side)
        self._tokenizer = tokenizer
        self._check_ends()
        self.pad_id = self._pad_id(padding)
        """The token that fills a row up; None: no file names one."""
        self.pad_left = (
            folder.tokenizer.get("padding_side") or str(padding.get("direction", "right")).lower()
        ) == "left"
        kept = f"the first {self.limit}" if side == "right" else f"the last {self.limit}"
        self.limit_said = (
            f"{kept} tokens of a text are read"
            if self.limit is not None
            else f"no file limits them; texts of more than {_UNLIMITED_MAX} are refused"
        )
        """What becomes of long texts, for people."""
        self.prompt, source = folder.prompt
        self.prompt_said = f"{self.prompt!r} ({source})" if self.prompt else source
        """What is put before texts, for people."""
        self.prompt_tokens = self._prompt_tokens()
        """The tokens at the beginning of every text that are the prompt's."""

    @property
    def vocabulary(self) -> int:
        """Tokens that are there without those that were added."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))

    def encode(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[tokenizers.Encoding]:
        """The tokens of each text, of different lengths.

        Args:
            texts: the prompt is put before each.
            pairs: what stands beside each of them; None: nothing.

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
                    f"the text has {len(one.ids)} tokens; at most {_UNLIMITED_MAX} are taken, as the model's files "
                    "don't say how many it takes",
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
        """Sentence-transformers' count: the prompt alone, less the token at its end if that is a special one."""
        if not self.prompt:
            return 0
        ids = self._tokenizer.encode(self.prompt).ids
        special = {self._tokenizer.token_to_id(_content(token)) for token in self._folder.special_tokens}
        special |= {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return len(ids) - (bool(ids) and ids[-1] in special)

    def _check_ends(self) -> None:
        """End the load where ``add_bos_token`` or ``add_eos_token`` is not what ``tokenizer.json`` does.

        transformers 4 goes by the settings, 5 by ``tokenizer.json``.
        """
        ids = self._tokenizer.encode("a").ids
        by_settings = _class_in(self._folder, ENDS_BY_SETTINGS)
        for end, position in (("bos", 0), ("eos", -1)):
            wanted = self._folder.tokenizer.get(f"add_{end}_token")
            token = self._folder.token(f"{end}_token")
            if wanted is None or token is None:
                continue
            done = bool(ids) and ids[position] == self._tokenizer.token_to_id(token)
            if done != wanted and (wanted or by_settings):
                raise ModelFailed(
                    f"tokenizer_config.json says add_{end}_token: {json.dumps(wanted)}, but tokenizer.json "
                    f"{'puts' if done else 'does not put'} {token!r} there\n"
                    f"help: write into tokenizer_config.json what the model was trained with, or remove add_{end}_token"
                )


def _class_in(folder: Folder, names: Collection[str]) -> bool:
    name = str(folder.tokenizer.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return name in names


def _normalize_as_configured(document: dict[str, Any], folder: Folder) -> None:
    """Lowercase, and treat accents and Chinese, as transformers does by ``tokenizer_config.json``."""
    config, normalizer = folder.tokenizer, document.get("normalizer") or {}
    lower = config.get("do_lower_case")
    named = config.get("tokenizer_class") is not None
    # Without a class transformers takes that of the model, and only Bert and those like it have this normalizer.
    if normalizer.get("type") == "BertNormalizer" and (not named or _class_in(folder, BERT_LIKE)):
        if lower is None and named and not normalizer["lowercase"]:
            raise ModelFailed(
                "tokenizer.json does not lowercase, and tokenizer_config.json does not say do_lower_case, which "
                f"transformers takes for true in a {config['tokenizer_class']}\n"
                "help: write do_lower_case: false or true into tokenizer_config.json"
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
            f"tokenizer_config.json says do_lower_case: {json.dumps(lower)}, but the normalizer in tokenizer.json "
            f"{'does not lowercase' if lower else 'lowercases'}\n"
            "help: write into tokenizer_config.json what the model was trained with"
        )
    if folder.lowercases and not _lowercases(normalizer):
        before = [normalizer] if normalizer else []
        document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *before]}


def _lowercases(normalizer: dict[str, Any]) -> bool:
    inside = any(_lowercases(one) for one in normalizer.get("normalizers", ()))
    return inside or normalizer.get("type") == "Lowercase" or bool(normalizer.get("lowercase"))


def _prefix_as_configured(document: dict[str, Any], folder: Folder) -> None:
    """Put a space before the first word, or none, as ``add_prefix_space`` says."""
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
                    f"tokenizer_config.json says add_prefix_space: {json.dumps(wanted)}, but tokenizer.json has "
                    f"prepend_scheme: {scheme!r}\n"
                    "help: write into tokenizer_config.json what the model was trained with"
                )


def _add_tokens(tokenizer: tokenizers.Tokenizer, folder: Folder) -> None:
    """Make tokens special that ``tokenizer.json`` does not know to be, as transformers does.

    A token that is neither in the vocabulary nor among the model's embeddings stays unknown: the model has no vector
    for it.
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
        # Only the list overrules how a token that is there is found in a text.
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
