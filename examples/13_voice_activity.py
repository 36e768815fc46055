"""Sequences: audio comes in pieces, and a stateful model detects in which of them somebody speaks.

    python 13_voice_activity.py [--keep]

Needs ``pip install --no-deps silero-vad``, for its model. Many callers send audio concurrently; pieces of different
callers share batches, each with its own state. ``--keep`` leaves the folder ``voice`` for ``inferd serve voice``.
"""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import files
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import inferd

RATE = 16_000
PIECE, BEFORE = 512, 64

SETTINGS = """
sequence:
  idle_max: 10s
  state: {hidden: hidden_out, before: before_out}
"""


def shipped() -> Path:
    """Return the model's file without importing its package, which would need PyTorch."""
    name = "silero_vad_16k_op15.onnx"
    return next(Path(file.locate()) for file in files("silero-vad") or () if str(file).endswith(name))


def make(folder: Path) -> None:
    """Move the rows first, so that the model can be batched, and add the end of the last piece to its state."""
    model = onnx.load(shipped())
    graph = model.graph
    inner = {"input": "samples", "state": "hidden_rows", "stateN": "hidden_rows_out"}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
        for branch in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            for within in branch.node:
                within.input[:] = [inner.get(name, name) for name in within.input]
    constants = {"sr": np.array(RATE), "start": np.array([-BEFORE]), "end": np.array([PIECE]), "axis": np.array([1])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        helper.make_node("Concat", ["before", "piece"], ["samples"], axis=1),
        helper.make_node("Transpose", ["hidden"], ["hidden_rows"], perm=[1, 0, 2]),
        *graph.node,
        helper.make_node("Transpose", ["hidden_rows_out"], ["hidden_out"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["piece", "start", "end", "axis"], ["before_out"]),
    ]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    shapes = {"piece": ["n", PIECE], "before": ["n", BEFORE], "hidden": ["n", 2, 128], "output": ["n", 1]}
    shapes |= {"before_out": shapes["before"], "hidden_out": shapes["hidden"]}
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph.input.extend(info[name] for name in ("piece", "before", "hidden"))
    graph.output.extend(info[name] for name in ("output", "before_out", "hidden_out"))
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "model.yaml").write_text(SETTINGS)


def sound(seed: int, seconds: float = 3.0) -> tuple[np.ndarray, slice]:
    """Return noise with a synthetic voice in its middle: glottal pulses through formants."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = random.uniform(100, 160) * (1 + 0.05 * np.sin(2 * np.pi * 3 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        at = harmonic * pitch
        loudness = sum(np.exp(-(((at - formant) / 150) ** 2)) for formant in (700, 1200, 2500)) + 0.02
        voice += loudness * np.sin(harmonic * phase) / harmonic**0.5
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    middle = slice(len(time) // 3, 2 * len(time) // 3)
    heard = 0.002 * random.standard_normal(len(time))
    heard[middle] += 0.2 * (voice * syllables)[middle]
    return heard.astype(np.float32), middle


def pieces(heard: np.ndarray) -> np.ndarray:
    """Split audio into consecutive pieces."""
    return heard[: len(heard) // PIECE * PIECE].reshape(-1, 1, PIECE)


def listen(url: str, caller: int, heard: np.ndarray) -> list[float]:
    """Return the probability of speech in each piece; the server keeps this caller's state in between."""
    found = []
    every = pieces(heard)
    with httpx.Client(timeout=30) as client:
        for number, piece in enumerate(every):
            tensor = {"name": "piece", "datatype": "FP32", "shape": [1, PIECE], "data": piece.reshape(-1).tolist()}
            place = {"sequence_id": caller, "sequence_start": number == 0, "sequence_end": number == len(every) - 1}
            answer = client.post(url, json={"inputs": [tensor], "parameters": place})
            found.append(answer.raise_for_status().json()["outputs"][0]["data"][0])
    return found


def alone(session: onnxruntime.InferenceSession, heard: np.ndarray) -> list[float]:
    """Compute the same in a loop over the package's own model."""
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros((1, BEFORE), np.float32)
    found = []
    for piece in pieces(heard):
        samples = np.concatenate([before, piece], axis=1)
        output, state = session.run(None, {"input": samples, "state": state, "sr": np.array(RATE)})
        before = piece[:, -BEFORE:]
        found.append(float(output[0, 0]))
    return found


if __name__ == "__main__":
    folder = Path("voice")
    make(folder)
    sounds = [sound(seed) for seed in range(8)]
    with inferd.Server(folder, threads=1) as server, ThreadPoolExecutor(len(sounds)) as pool:
        url = f"{server.url}/v2/models/voice/infer"
        heard = list(pool.map(lambda one: listen(url, one, sounds[one - 1][0]), range(1, len(sounds) + 1)))
        stats = httpx.get(f"{server.url}/v2/models/voice/stats").json()["model_stats"][0]
    session = onnxruntime.InferenceSession(str(shipped()))
    for (samples, middle), found in zip(sounds, heard, strict=True):
        expected = alone(session, samples)
        assert np.abs(np.array(found) - expected).max() < 1e-4
        inside = found[middle.start // PIECE + 2 : middle.stop // PIECE - 2]
        outside = found[: middle.start // PIECE - 1]
        print(f"a voice at {middle.start / RATE:.1f} s: {np.mean(inside):.2f} there, {np.mean(outside):.2f} before")
        assert np.mean(inside) > 0.3 > 3 * np.mean(outside)
    print(f"{stats['inference_count']} pieces in {stats['execution_count']} runs")
    if "--keep" not in sys.argv:
        shutil.rmtree(folder)
