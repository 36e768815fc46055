"""Hugging Face folders: a tokenizer and an ONNX model; text in, tensors out.

``compose`` reads the model's settings in the control plane; :class:`HuggingfaceRuntime` runs both in a worker.
:mod:`~inferd.runtimes.huggingface_config` reads the folder's files, ``huggingface_text`` tokenizes,
``huggingface_graph`` runs the model, ``huggingface_modules`` pools embeddings. Executes no code of the folder: knows
nothing of its ``*.py`` files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, python_launch, require

if TYPE_CHECKING:
    import numpy as np

    from inferd.runtimes.huggingface_config import Folder
    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "HuggingfaceRuntime", "claims", "compose", "load"]

PLATFORM = "huggingface"
TAKES = Takes(
    title="Hugging Face",
    types="BYTES: texts in UTF-8, of any length. Long ones are truncated as the folder's files say; without a limit"
    " there, those of more than 8192 tokens are refused.",
    categories="None.",
    missing="A text can't be missing. `text_pair` can, if it is optional.",
    names="`text`; `text_pair` for cross-encoders, question answering and, optionally, classifiers.",
    outputs="`embedding` for sentence-transformers; `scores` for classifiers, with `label` if they have several"
    " classes; else those of the graph, with `attention_mask` if they have the length of the text. Other outputs and"
    " graphs are named in `left_out`.",
    parameters={
        "prompt_name": "one of the prompts in `config_sentence_transformers.json`, prepended to every text",
        "prompt": "the prompt's text itself",
        "tokens_max": "maximum tokens of a text, beyond which it is truncated",
        "function_to_apply": "`softmax`, `sigmoid` or `none`, applied to a classifier's logits",
        "ignore": "entries of the folder's files that are known not to change answers",
    },
)
_GRAPHS = ("onnx/model.onnx", "model.onnx", "model_optimized.onnx")
TEXT, PAIR = "text", "text_pair"


def claims(path: Path) -> bool:
    """Claims folders with ``tokenizer.json`` and an ONNX model."""
    return path.is_dir() and (path / "tokenizer.json").is_file() and bool(_graphs(path))


def _graphs(folder: Path) -> list[Path]:
    """Return the ONNX models of a folder, the default first."""
    found = sorted(file for parent in (folder / "onnx", folder) for file in parent.glob("*.onnx") if file.is_file())
    first = next((folder / name for name in _GRAPHS if (folder / name).is_file()), None)
    return found if first is None else [first, *(file for file in found if file != first)]


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the folder ``file``, or for the ONNX model ``file`` in a folder.

    Raises:
        ModelFailed: the folder has several ONNX models and none has a default name.
    """
    require("tokenizers", "huggingface", spec)
    require("onnxruntime", "huggingface", spec)
    graphs = [file] if file.is_file() else _graphs(file)
    folder = _folder_of(file)
    if file.is_dir() and len(graphs) > 1 and graphs[0].relative_to(folder).as_posix() not in _GRAPHS:
        names = ", ".join(graph.relative_to(folder).as_posix() for graph in graphs)
        raise ModelFailed(
            f"'{file.name}' has several ONNX models: {names}\n"
            f"help: choose one in model.yaml: runtime: huggingface and file: {graphs[0].relative_to(folder).as_posix()}"
        )
    launch = python_launch("huggingface", PLATFORM, file, spec, threads)
    launch.load["graph"] = str(graphs[0])
    return launch


def _folder_of(file: Path) -> Path:
    if file.is_dir():
        return file
    inside = file.parent
    return inside.parent if inside.name == "onnx" and not (inside / "tokenizer.json").is_file() else inside


def load(settings: dict[str, Any]) -> Runtime:
    """Load tokenizer and model in this process."""
    return HuggingfaceRuntime(settings)


class HuggingfaceRuntime:
    """A tokenizer and a model, batched so that rows don't influence each other.

    Input: ``text`` (BYTES), and ``text_pair`` for cross-encoders, question answering and, optionally, classifiers.
    Outputs: ``embedding`` of a sentence-transformers model; ``scores`` of classifiers, and ``label`` if they have
    several classes; else the outputs of the ONNX model, with ``attention_mask`` if they have the length of the text.
    """

    ignored_columns = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        import onnxruntime
        import tokenizers

        from inferd.runtimes.huggingface_config import Folder
        from inferd.runtimes.huggingface_graph import Graph
        from inferd.runtimes.huggingface_heads import postprocessor_of
        from inferd.runtimes.huggingface_text import Texts
        from inferd.runtimes.signatures import with_declared
        from inferd.types import InputSchema, TensorSpec

        file = Path(settings["graph"])
        folder = Folder(_folder_of(Path(settings["file"])), settings["parameters"])
        self._graph = Graph(file, settings["threads"], folder.position_offset)
        self._texts = Texts(folder, self._graph.width)
        self._postprocessor = postprocessor_of(folder, self._graph, self._texts)
        per_token = "attention_mask" in self._postprocessor.added
        self._graph.choose_batching(
            self._texts, self._postprocessor, per_token=per_token, tolerance=settings["tolerance"]
        )
        paired = self._postprocessor.pairs
        self._names = (TEXT,) if paired == "none" else (TEXT, PAIR)
        self.schemas = tuple(InputSchema(name, missing=name == PAIR and paired == "optional") for name in self._names)
        self.defaults = {PAIR: _column([None])} if paired == "optional" else {}
        self.example: Batch = {
            TEXT: _column([b"A short one.", b"A sentence that is a little longer than the other one."]),
            PAIR: _column([b"Another one.", None if paired == "optional" else b"And one more."]),
        }
        self.example = {name: self.example[name] for name in self._names}
        inputs = (TensorSpec(name, "BYTES", (-1,)) for name in self._names)
        self.signature = with_declared(settings, inputs, self._outputs(self.predict(self.example)))
        self.facts = {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "tokenizer": f"tokenizers {tokenizers.__version__}",
            "graph": file.relative_to(folder.path).as_posix(),
            "answers": self._postprocessor.description,
            "batches": self._graph.batching,
            "tokens": self._texts.limit_description,
            "prompt": self._texts.prompt_description,
            **_left_out(folder, file, [name for name in self._graph.outputs if name not in self._postprocessor.served]),
        }

    def predict(self, batch: Batch) -> Batch:
        """Run the model over a batch of texts."""
        from inferd.runtimes.huggingface_graph import Row

        texts = [_decoded(text, row) for row, text in enumerate(batch[TEXT])]
        pairs = None
        if PAIR in self._names:
            optional = PAIR in self.defaults
            pairs = [None if text is None and optional else _decoded(text, row) for row, text in enumerate(batch[PAIR])]
        encoded = self._texts.encode(texts, pairs)
        return self._graph.run([Row(one.ids, one.type_ids) for one in encoded], self._postprocessor)

    def close(self) -> None:
        """Nothing to release."""

    def _outputs(self, outputs: Batch) -> tuple[TensorSpec, ...]:
        """Return specifications of one run's outputs, text lengths dynamic."""
        from inferd.runtimes.signatures import observed_outputs
        from inferd.types import TensorSpec

        specs = observed_outputs(outputs)
        if "attention_mask" not in self._postprocessor.added:
            return specs
        axes = {**self._graph.token_axes, "attention_mask": (1,)}
        return tuple(
            TensorSpec(
                spec.name,
                spec.datatype,
                tuple(-1 if axis in axes[spec.name] else dim for axis, dim in enumerate(spec.shape)),
            )
            for spec in specs
        )


def _left_out(folder: Folder, graph: Path, outputs: list[str]) -> dict[str, str]:
    parts = []
    if outputs:
        parts.append(f"outputs {', '.join(outputs)} of the graph")
    others = [file.relative_to(folder.path).as_posix() for file in _graphs(folder.path) if file != graph]
    if others:
        parts.append(f"{', '.join(others)} (to serve it: runtime: huggingface and file: {others[0]} in model.yaml)")
    if "auto_map" in {**folder.config, **folder.tokenizer}:
        parts.append("changes by the code of auto_map (it is not run)")
    if folder.ignored:
        parts.append(f"entries {', '.join(folder.ignored)} (parameters: ignore)")
    return {"left_out": "; ".join(parts)} if parts else {}


def _decoded(text: bytes | None, row: int) -> str:
    if text is None:
        raise InvalidInput("a text is missing, which the model does not accept", row=row)
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidInput("the text is not UTF-8", row=row) from None


def _column(texts: list[bytes | None]) -> np.ndarray:
    import numpy as np

    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return column
