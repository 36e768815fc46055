"""Read the files of a Hugging Face folder: every entry is read, known to be harmless, or refused.

Reads ``config.json``, ``tokenizer_config.json``, ``special_tokens_map.json`` and the files of sentence-transformers;
hands on :class:`Folder`. Knows nothing of tokenizers, ONNX Runtime and numpy.

``config.json`` describes the architecture, which the ONNX graph already contains. Only its entries about later stages
are read: the head, its labels, and the maximum length. Sources: ``PreTrainedTokenizerBase.from_pretrained`` and
``TextClassificationPipeline`` of transformers 4.57 and 5.24, ``Transformer`` and ``CrossEncoder`` of
sentence-transformers 5.1 and 6.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.errors import ModelFailed
from inferd.runtimes.huggingface_names import (
    OFFSET_POSITIONS,
    SENTENCE_HARMLESS,
    SENTENCE_READ,
    TOKENIZER_HARMLESS,
    TOKENIZER_READ,
    TRANSFORMER_HARMLESS,
    TRANSFORMER_READ,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

__all__ = ["Folder", "Head", "Module", "read_json", "refuse_unknown"]

_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Tokenizers without a limit have a number of thirty digits.
_NO_LIMIT = 10**6

_FUNCTIONS = ("softmax", "sigmoid", "none")
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
    "torch.nn.Identity": "none",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.Softmax": "softmax",
}


class Module(NamedTuple):
    """An entry of ``modules.json``."""

    type: str
    """The qualified class: ``sentence_transformers.models.Pooling``."""
    folder: Path

    @property
    def kind(self) -> str:
        """The class name within sentence-transformers, e.g. ``Pooling``; empty for other packages."""
        package, _, rest = self.type.partition(".")
        return rest.rpartition(".")[2] if package == "sentence_transformers" else ""


class Head(NamedTuple):
    """Postprocessing of a text classifier's logits."""

    function: str
    """``softmax``, ``sigmoid`` or ``none``."""
    labels: tuple[str, ...]
    """Class names, in order."""


@dataclass
class Folder:
    """The configuration of one folder.

    Args:
        path: the folder.
        parameters: ``parameters:`` of ``model.yaml``.

    Raises:
        ModelFailed: an entry, or its value, is unknown.
    """

    path: Path
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ignored: tuple[str, ...] = tuple(self.parameters.get("ignore", ()))
        self.config = read_json(self.path / "config.json") or {}
        self.modules = self._modules()
        self.sentence = self._known("config_sentence_transformers.json", SENTENCE_READ, SENTENCE_HARMLESS)
        self._transformer = self._read_transformer()
        self.tokenizer = self._read_tokenizer()

    # -- text into tokens -------------------------------------------------------------------------------------------

    @property
    def lowercases(self) -> bool:
        """Whether text is lowercased before tokenization."""
        return bool(self._transformer.get("do_lower_case"))

    @property
    def special_tokens(self) -> list[str | dict[str, Any]]:
        """Every special token, as a text or with its properties, in the order of the files."""
        found = [value for key, value in self.tokenizer.items() if _is_special_token(key, value)]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = self.tokenizer.get(key) or []
            found += list(more.values()) if isinstance(more, dict) else list(more)
        return found

    def token(self, name: str) -> str | None:
        """Return the text of the special token ``name``, such as ``pad_token``."""
        value = self.tokenizer.get(name)
        return value["content"] if isinstance(value, dict) else value

    def tokens_max(self, built_in: int | None) -> int | None:
        """Return the maximum tokens of a text; None: no limit in any file.

        Args:
            built_in: the limit in ``tokenizer.json``, which the other files override.
        """
        if "tokens_max" in self.parameters:
            return int(self.parameters["tokens_max"])
        declared = (
            self._arguments.get("model_max_length"),
            self._transformer.get("max_seq_length"),
            self.tokenizer.get("model_max_length", self.tokenizer.get("max_len")),
        )
        limits = [int(limit) for limit in declared if limit and limit < _NO_LIMIT][:1]
        positions = self.config.get("max_position_embeddings")
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - self.position_offset)
        return min(limits, default=built_in)

    @property
    def position_offset(self) -> int:
        """The position id of the first token."""
        if self.config.get("model_type") not in OFFSET_POSITIONS:
            return 0
        return int(self.config.get("pad_token_id") or 0) + 1

    @property
    def prompt(self) -> tuple[str, str]:
        """The text prepended to every text, and its origin.

        Raises:
            ModelFailed: the requested prompt does not exist.
        """
        prompts = {name: text for name, text in (self.sentence.get("prompts") or {}).items() if text}
        if "prompt" in self.parameters:
            return str(self.parameters["prompt"]), "parameters.prompt"
        name = self.parameters.get("prompt_name")
        if name is not None and name not in prompts:
            raise ModelFailed(
                f"parameters: unknown prompt {name!r}\n"
                f"help: config_sentence_transformers.json has {sorted(prompts) or 'none'}"
            )
        if name is not None:
            return prompts[name], "parameters.prompt_name"
        default = self.sentence.get("default_prompt_name")
        if default is not None:
            return prompts.get(default, ""), f"default_prompt_name {default!r}"
        unused = f"; set parameters: {{prompt_name: …}} for one of {sorted(prompts)}" if prompts else ""
        return "", f"none{unused}"

    # -- logits into answers ----------------------------------------------------------------------------------------

    @property
    def is_cross_encoder(self) -> bool:
        """Whether sentence-transformers loads the folder as a ``CrossEncoder``, which scores pairs of texts."""
        own = self.config.get("sentence_transformers") or {}
        return (
            self.sentence.get("model_type") == "CrossEncoder"
            or "sbert_ce_default_activation_function" in self.config
            or "activation_fn" in own
        )

    def head(self, classes: int, *, named: bool = True) -> Head | None:
        """Return the postprocessing of a classifier's logits; None if the files describe no classifier.

        Args:
            classes: columns of the logits.
            named: whether the graph names them logits. Many configurations name classes that the model lacks.

        Raises:
            ModelFailed: the labels do not match the logits, or a function is unknown.
        """
        architectures = self.config.get("architectures") or []
        classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
        declares = named and any(self.config.get(key) is not None for key in ("id2label", "num_labels", "problem_type"))
        if not (classifies or declares or self.is_cross_encoder):
            return None
        return Head(self._function(classes), self._labels(classes))

    def _function(self, classes: int) -> str:
        given = self.parameters.get("function_to_apply")
        if given in _FUNCTIONS:
            return str(given)
        if given is not None:
            raise ModelFailed(f"parameters: unknown function_to_apply {given!r}\nhelp: {', '.join(_FUNCTIONS)}")
        if self.is_cross_encoder:
            own = self.config.get("sentence_transformers") or {}
            named = (
                own.get("activation_fn")
                or self.config.get("sbert_ce_default_activation_function")
                or self.sentence.get("activation_fn")
            )
            if named is None:
                return "sigmoid" if classes == 1 else "none"
            if named not in _ACTIVATIONS:
                raise ModelFailed(
                    f"unknown activation {named!r} of the cross-encoder\n"
                    "help: set parameters: {function_to_apply: sigmoid}, softmax or none"
                )
            return _ACTIVATIONS[named]
        problem = self.config.get("problem_type")
        if problem not in (None, "regression", "multi_label_classification", "single_label_classification"):
            raise ModelFailed(
                f"config.json: unknown problem_type {problem!r}\n"
                "help: set parameters: {function_to_apply: sigmoid}, softmax or none"
            )
        if problem == "regression":
            return "none"
        return "sigmoid" if problem == "multi_label_classification" or classes == 1 else "softmax"

    def _labels(self, classes: int) -> tuple[str, ...]:
        named = self.config.get("id2label")
        if named is None:
            # transformers omits default class names.
            return tuple(f"LABEL_{position}" for position in range(classes))
        found = {int(position): str(label) for position, label in named.items()}
        if found.keys() != set(range(classes)):
            raise ModelFailed(
                f"config.json: id2label has the classes {sorted(found)}, but the model has {classes}: "
                f"{', '.join(map(str, range(classes)))}\nhelp: name each of these, and no others"
            )
        return tuple(found[position] for position in range(classes))

    # -- files ------------------------------------------------------------------------------------------------------

    def known(self, name: str, found: dict[str, Any], *known: Collection[str]) -> dict[str, Any]:
        """Return ``found``, the content of the file ``name``, if all entries are known or ignored."""
        refuse_unknown(name, found, {*self.ignored, *(key for group in known for key in group)})
        return found

    def _known(self, name: str, *known: Collection[str]) -> dict[str, Any]:
        return self.known(name, read_json(self.path / name) or {}, *known)

    def _modules(self) -> tuple[Module, ...]:
        lines = read_json(self.path / "modules.json")
        if lines is None:
            return ()
        modules = []
        for line in lines:
            self.known("modules.json", line, ("idx", "name", "path", "type", "kwargs"))
            path = (self.path / str(line.get("path") or "")).resolve()
            if not path.is_relative_to(self.path.resolve()):
                raise ModelFailed(f"modules.json: folder {line['path']!r} is outside of the model's folder")
            modules.append(Module(str(line.get("type")), path))
        return tuple(modules)

    def _read_transformer(self) -> dict[str, Any]:
        folder = next((module.folder for module in self.modules if module.kind == "Transformer"), self.path)
        name = next((name for name in _TRANSFORMER_FILES if (folder / name).is_file()), _TRANSFORMER_FILES[0])
        found = read_json(folder / name) or {}
        # Entries of newer versions, with their supported values.
        usual: dict[str, tuple[Any, ...]] = {
            "document_length": (None,),
            "query_length": (None,),
            "query_expansion": (None,),
            "processing_kwargs": (None, {}),
            "module_output_name": (None, "token_embeddings", "sentence_embedding", "scores"),
        }
        self.known(name, found, TRANSFORMER_READ, TRANSFORMER_HARMLESS, usual)
        for key, values in usual.items():
            if found.get(key) not in values and key not in self.ignored:
                raise ModelFailed(f"'{name}' has an unsupported {key}: {found[key]!r}\n{_remedy([key])}")
        modalities = found.get("modality_config")
        if modalities is not None and "text" not in modalities:
            raise ModelFailed(f"'{name}' has no modality text, only {sorted(modalities)}")
        return found

    @property
    def _arguments(self) -> dict[str, Any]:
        """Arguments that sentence-transformers passes to the tokenizer in addition to its file."""
        return {**(self._transformer.get("tokenizer_args") or {}), **(self._transformer.get("processor_kwargs") or {})}

    def _read_tokenizer(self) -> dict[str, Any]:
        name = "tokenizer_config.json"
        found = {**(read_json(self.path / name) or {}), **self._arguments}
        map_name = "special_tokens_map.json"
        special = read_json(self.path / map_name) or {}
        tokens = [key for key, value in {**found, **special}.items() if _is_special_token(key, value) or value is None]
        more = ("additional_special_tokens", "extra_special_tokens")
        self.known(map_name, special, tokens, more)
        self.known(name, found, tokens, TOKENIZER_READ, TOKENIZER_HARMLESS)
        # If the newer file lists the tokens, the older one is ignored.
        return found if "added_tokens_decoder" in found else {**found, **special}


def read_json(file: Path) -> Any:
    """Return the content of ``file``; None if it does not exist.

    Raises:
        ModelFailed: it is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise ModelFailed(f"'{file.name}' can't be read: {fault}") from fault


def refuse_unknown(name: str, found: dict[str, Any], known: Collection[str]) -> None:
    """Refuse unknown entries of ``found``, the content of the file ``name``.

    Raises:
        ModelFailed: lists them, with the remedy.
    """
    if not isinstance(found, dict):
        raise ModelFailed(f"'{name}' contains {type(found).__name__}, not an object")
    unknown = sorted(found.keys() - set(known))
    if unknown:
        raise ModelFailed(
            f"'{name}' has unknown entries that may change answers: {', '.join(map(repr, unknown))}\n{_remedy(unknown)}"
        )


def _is_special_token(key: str, value: Any) -> bool:
    """Whether an entry is a special token: ``pad_token: "[PAD]"``, or with properties."""
    content = value.get("content") if isinstance(value, dict) else value
    return key.endswith("_token") and isinstance(content, str)


def _remedy(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"help: remove it from the file; or, if it does not change answers, set parameters: {{ignore: [{listed}]}}"
