"""What the files of a Hugging Face folder say: each entry is read, known to change nothing, or named in a refusal.

Reads ``config.json``, ``tokenizer_config.json``, ``special_tokens_map.json`` and what sentence-transformers writes;
hands on :class:`Folder`. Knows nothing of tokenizers, ONNX Runtime and numpy.

``config.json`` describes the architecture, which the ONNX graph has in it already. Of that file only what comes after
the graph is read: the head, its labels, and the longest text. Sources: ``PreTrainedTokenizerBase.from_pretrained`` and
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
# Tokenizers without a limit write a number of thirty digits.
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
    """One line of ``modules.json``."""

    type: str
    """The class with its module: ``sentence_transformers.models.Pooling``."""
    folder: Path

    @property
    def kind(self) -> str:
        """The class of sentence-transformers, ``Pooling`` say; empty where it is somebody else's code."""
        package, _, rest = self.type.partition(".")
        return rest.rpartition(".")[2] if package == "sentence_transformers" else ""


class Head(NamedTuple):
    """What becomes of the logits of a text classifier."""

    function: str
    """``softmax``, ``sigmoid`` or ``none``."""
    labels: tuple[str, ...]
    """The names of the classes, in their order."""


@dataclass
class Folder:
    """The settings of one folder.

    Args:
        path: the folder.
        parameters: ``parameters:`` of ``model.yaml``.

    Raises:
        ModelFailed: an entry is not known, or has a value that is not.
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
        """Whether text is lowercased before the tokenizer gets it."""
        return bool(self._transformer.get("do_lower_case"))

    @property
    def special_tokens(self) -> list[str | dict[str, Any]]:
        """Every token that the files call special, as a text or with its properties, in the order of the files."""
        found = [value for key, value in self.tokenizer.items() if _names_token(key, value)]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = self.tokenizer.get(key) or []
            found += list(more.values()) if isinstance(more, dict) else list(more)
        return found

    def token(self, name: str) -> str | None:
        """The text of the special token ``name``, such as ``pad_token``."""
        value = self.tokenizer.get(name)
        return value["content"] if isinstance(value, dict) else value

    def tokens_max(self, built_in: int | None) -> int | None:
        """The longest text in tokens; longer ones are cut. None: no file says.

        Args:
            built_in: the limit that ``tokenizer.json`` has in it, which the libraries overrule.
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
        """The text before every text, and where it comes from.

        Raises:
            ModelFailed: the prompt that is asked for is not there.
        """
        prompts = {name: text for name, text in (self.sentence.get("prompts") or {}).items() if text}
        if "prompt" in self.parameters:
            return str(self.parameters["prompt"]), "parameters.prompt"
        name = self.parameters.get("prompt_name")
        if name is not None and name not in prompts:
            raise ModelFailed(
                f"parameters: there is no prompt {name!r}\n"
                f"help: those of config_sentence_transformers.json are {sorted(prompts) or 'none'}"
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
        """Whether sentence-transformers loads the folder as a ``CrossEncoder``: it scores pairs of texts."""
        own = self.config.get("sentence_transformers") or {}
        return (
            self.sentence.get("model_type") == "CrossEncoder"
            or "sbert_ce_default_activation_function" in self.config
            or "activation_fn" in own
        )

    def head(self, classes: int, *, named: bool = True) -> Head | None:
        """How a classifier's logits become scores; None where nothing says that they are a classifier's.

        Args:
            classes: columns of the logits.
            named: whether the graph calls them logits. Many configurations name classes that the model has not.

        Raises:
            ModelFailed: the labels are not those of the logits, or a function is not known.
        """
        architectures = self.config.get("architectures") or []
        classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
        says = named and any(self.config.get(key) is not None for key in ("id2label", "num_labels", "problem_type"))
        if not (classifies or says or self.is_cross_encoder):
            return None
        return Head(self._function(classes), self._labels(classes))

    def _function(self, classes: int) -> str:
        given = self.parameters.get("function_to_apply")
        if given in _FUNCTIONS:
            return str(given)
        if given is not None:
            raise ModelFailed(f"parameters: function_to_apply is {given!r}\nhelp: one of {', '.join(_FUNCTIONS)}")
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
                    f"the activation {named!r} of the cross-encoder is not known\n"
                    "help: set parameters: {function_to_apply: sigmoid}, softmax or none"
                )
            return _ACTIVATIONS[named]
        problem = self.config.get("problem_type")
        if problem not in (None, "regression", "multi_label_classification", "single_label_classification"):
            raise ModelFailed(
                f"config.json: the problem_type {problem!r} is not known\n"
                "help: set parameters: {function_to_apply: sigmoid}, softmax or none"
            )
        if problem == "regression":
            return "none"
        return "sigmoid" if problem == "multi_label_classification" or classes == 1 else "softmax"

    def _labels(self, classes: int) -> tuple[str, ...]:
        named = self.config.get("id2label")
        if named is None:
            # transformers does not write the names of two classes where nobody chose them.
            return tuple(f"LABEL_{position}" for position in range(classes))
        found = {int(position): str(label) for position, label in named.items()}
        if found.keys() != set(range(classes)):
            raise ModelFailed(
                f"config.json: id2label names the classes {sorted(found)}, but the model has {classes}: "
                f"{', '.join(map(str, range(classes)))}\nhelp: write a name for each, and no others"
            )
        return tuple(found[position] for position in range(classes))

    # -- files ------------------------------------------------------------------------------------------------------

    def known(self, name: str, found: dict[str, Any], *known: Collection[str]) -> dict[str, Any]:
        """``found``, the content of the file ``name``, if all its entries are known or to be ignored."""
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
                raise ModelFailed(f"modules.json names the folder {line['path']!r}, which is not in it")
            modules.append(Module(str(line.get("type")), path))
        return tuple(modules)

    def _read_transformer(self) -> dict[str, Any]:
        folder = next((module.folder for module in self.modules if module.kind == "Transformer"), self.path)
        name = next((name for name in _TRANSFORMER_FILES if (folder / name).is_file()), _TRANSFORMER_FILES[0])
        found = read_json(folder / name) or {}
        # What the newer library writes; empty, or the one thing that is done here.
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
                raise ModelFailed(f"'{name}' has {key}: {found[key]!r}, which is not done here\n{_remedy([key])}")
        modalities = found.get("modality_config")
        if modalities is not None and "text" not in modalities:
            raise ModelFailed(f"'{name}' takes {sorted(modalities)}, and no text")
        return found

    @property
    def _arguments(self) -> dict[str, Any]:
        """What sentence-transformers gives to the tokenizer besides its own file."""
        return {**(self._transformer.get("tokenizer_args") or {}), **(self._transformer.get("processor_kwargs") or {})}

    def _read_tokenizer(self) -> dict[str, Any]:
        name = "tokenizer_config.json"
        found = {**(read_json(self.path / name) or {}), **self._arguments}
        map_name = "special_tokens_map.json"
        special = read_json(self.path / map_name) or {}
        tokens = [key for key, value in {**found, **special}.items() if _names_token(key, value) or value is None]
        more = ("additional_special_tokens", "extra_special_tokens")
        self.known(map_name, special, tokens, more)
        self.known(name, found, tokens, TOKENIZER_READ, TOKENIZER_HARMLESS)
        # Where the newer file lists the tokens itself, the older one is not read.
        return found if "added_tokens_decoder" in found else {**found, **special}


def read_json(file: Path) -> Any:
    """What is in ``file``; None where there is none.

    Raises:
        ModelFailed: it is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise ModelFailed(f"'{file.name}' can't be read: {fault}") from fault


def refuse_unknown(name: str, found: dict[str, Any], known: Collection[str]) -> None:
    """Go on only where every entry of ``found``, the content of the file ``name``, is known.

    Raises:
        ModelFailed: it names the others, and what to do.
    """
    if not isinstance(found, dict):
        raise ModelFailed(f"'{name}' holds {type(found).__name__}, not an object")
    unknown = sorted(found.keys() - set(known))
    if unknown:
        raise ModelFailed(
            f"'{name}' has {', '.join(map(repr, unknown))}: whether answers depend on that is not known\n"
            f"{_remedy(unknown)}"
        )


def _names_token(key: str, value: Any) -> bool:
    """Whether an entry is a special token: ``pad_token: "[PAD]"``, or with its properties."""
    content = value.get("content") if isinstance(value, dict) else value
    return key.endswith("_token") and isinstance(content, str)


def _remedy(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"help: remove it from the file; or, if answers don't depend on it, set parameters: {{ignore: [{listed}]}}"
