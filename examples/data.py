"""Data of the example models: reproducible, with a held-out part.

``make_models.py`` trains on it; :func:`samples` returns held-out rows for requests. Nothing is downloaded: the data is
generated with fixed seeds or ships in packages.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]


class Split(NamedTuple):
    """Training rows and held-out rows."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


def _split(x: Array, y: Array, seed: int, held_out: float = 0.25) -> Split:
    order = np.random.default_rng(seed).permutation(len(x))
    cut = round(len(x) * (1 - held_out))
    train, test = order[:cut], order[cut:]
    return Split(x[train], y[train], x[test], y[test])


# -- healthcare: is a tumour malignant? -----------------------------------------------------------------------------

DIAGNOSES = ["malignant", "benign"]


def breast_cancer() -> Split:
    """Scikit-learn's copy of the Wisconsin data: 569 biopsies, 30 measurements of cell nuclei each."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    return _split(found.data.astype(np.float32), found.target.astype(np.int64), seed=1)


# -- finance: is a card payment fraud? ------------------------------------------------------------------------------

PAYMENT = [
    "amount",
    "amount_over_usual",
    "hour",
    "seconds_since_last",
    "payments_last_hour",
    "distance_from_home_km",
    "abroad",
    "card_present",
    "merchant_risk",
    "account_age_days",
]


def fraud(rows: int = 60_000) -> Split:
    """Generated card payments; about 1 % is fraud, and no single feature separates it."""
    random = np.random.default_rng(2)
    usual = random.lognormal(3.2, 0.7, rows)
    over = random.lognormal(0.0, 0.6, rows)
    hour = np.clip(random.normal(14.5, 4.5, rows), 0, 23.99)
    gap = random.exponential(20_000, rows)
    burst = random.poisson(0.3, rows).astype(float)
    distance = random.gamma(1.2, 9.0, rows)
    abroad = random.random(rows) < 0.03
    present = random.random(rows) < 0.7
    risk = random.beta(1.5, 8.0, rows)
    age = random.gamma(2.0, 500.0, rows)

    # Legitimate behaviour that looks similar: travel, shopping sprees, online payments.
    travels, sprees = random.random(rows) < 0.04, random.random(rows) < 0.03
    distance[travels] += random.gamma(2.0, 250.0, travels.sum())
    abroad[travels] |= random.random(travels.sum()) < 0.5
    burst[sprees] += random.poisson(2.5, sprees.sum())
    gap[sprees] = random.exponential(400, sprees.sum())

    # Fraud: bursts of small payments that test a card, or large ones, far away, at night, without the card.
    takes = random.random(rows)
    testing, spending = takes < 0.005, (takes >= 0.005) & (takes < 0.011)
    burst[testing] += random.poisson(3.0, testing.sum())
    gap[testing] = random.exponential(250, testing.sum())
    over[testing] *= 0.4
    present[testing] = random.random(testing.sum()) < 0.1
    over[spending] *= random.lognormal(0.9, 0.5, spending.sum())
    distance[spending] += random.gamma(1.5, 120.0, spending.sum()) * (random.random(spending.sum()) < 0.7)
    abroad[spending] |= random.random(spending.sum()) < 0.4
    night = spending & (random.random(rows) < 0.5)
    hour[night] = random.uniform(0, 6, night.sum())
    present[spending] = random.random(spending.sum()) < 0.2
    risk[testing | spending] = random.beta(2.5, 6.0, (testing | spending).sum())

    columns = [usual * over, over, hour, gap, burst, distance, abroad, present, risk, age]
    return _split(np.column_stack(columns).astype(np.float32), (testing | spending).astype(np.int64), seed=3)


# -- industry: what is wrong with a machine, from how it shakes? ----------------------------------------------------

FAULTS = ["healthy", "unbalance", "looseness", "bearing"]
WINDOW = 512
SAMPLES_PER_S = 5_120.0


def vibration(rows: int = 4_000) -> Split:
    """Generated windows of 0.1 s from an accelerometer on a motor at 20 to 30 revolutions per second."""
    random = np.random.default_rng(4)
    labels = random.integers(0, len(FAULTS), rows)
    windows = np.stack([_window(random, FAULTS[label]) for label in labels])
    return _split(windows[:, None, :].astype(np.float32), labels.astype(np.int64), seed=5)


def _window(random: np.random.Generator, fault: str) -> Array:
    t = np.arange(WINDOW) / SAMPLES_PER_S
    speed, phase = random.uniform(20, 30), random.uniform(0, 2 * np.pi)
    severity = random.uniform(0.6, 1.6)
    turn = 2 * np.pi * speed * t + phase
    # Every machine is slightly unbalanced, with mains hum.
    wave = 0.35 * np.sin(turn) + 0.15 * np.sin(2 * turn) + 0.1 * np.sin(2 * np.pi * 100 * t)
    if fault == "unbalance":
        wave += 0.9 * severity * np.sin(turn)
    if fault == "looseness":
        # A loose part knocks once a revolution: clipped, with many harmonics.
        knock = np.clip(np.sin(turn) * 3, -1, 1) + np.sin(2 * turn) + 0.7 * np.sin(3 * turn) + 0.5 * np.sin(4.5 * turn)
        wave += 0.45 * severity * knock
    if fault == "bearing":
        # A ball passes a pit 3.6 times a revolution; each time the housing rings at about 1.2 kHz.
        passes = np.arange(random.uniform(0, 1 / (3.6 * speed)), t[-1], 1 / (3.6 * speed))
        for at in passes + random.normal(0, 1e-4, len(passes)):
            since = np.clip(t - at, 0, None)
            wave += 0.8 * severity * (t >= at) * np.exp(-since * 900) * np.sin(2 * np.pi * 1200 * since)
    return wave + random.normal(0, 0.25, WINDOW)


# -- files: what kind of file is it? --------------------------------------------------------------------------------

_HEAD = _TAIL = 1024
_BLOCK = 4096
_NOTHING = 256


def file_bytes(content: bytes) -> Array:
    """Return the input of the file-type model: the first and the last 1,024 bytes of a file, white space stripped.

    Args:
        content: the file, at least its first and last 4,096 bytes; not empty.

    Returns:
        Shape ``(2048,)``, INT32; 256 marks a missing byte.
    """
    head = content[:_BLOCK].lstrip()[:_HEAD]
    tail = content[-_BLOCK:].rstrip()[-_TAIL:]
    seen = np.full(_HEAD + _TAIL, _NOTHING, dtype=np.int32)
    seen[: len(head)] = np.frombuffer(head, dtype=np.uint8)
    seen[len(seen) - len(tail) :] = np.frombuffer(tail, dtype=np.uint8)
    return seen


def file_labels() -> list[str]:
    """Return the file types that the model distinguishes, in the order of its output."""
    return list(json.loads((magika_folder() / "config.min.json").read_text())["target_labels_space"])


def magika_folder() -> Path:
    """Return the folder of the model in the package magika."""
    # Not imported: that would load ONNX Runtime.
    found = find_spec("magika")
    if found is None or found.origin is None:
        raise SystemExit("the package magika is missing\nhelp: pip install 'inferd[examples]'")
    return next(iter(sorted((Path(found.origin).parent / "models").glob("standard_v*"))))


FILES: list[tuple[str, bytes]] = [
    (
        "python",
        b"import sys\n\n\ndef main() -> int:\n    for line in sys.stdin:\n        print(line.strip())\n"
        b"    return 0\n\n\nif __name__ == '__main__':\n    sys.exit(main())\n",
    ),
    (
        "json",
        b'{\n  "name": "inferd",\n  "ready": true,\n  "models": [\n    {"name": "fraud", "versions": [1, 2]},\n'
        b'    {"name": "vibration", "versions": [1]}\n  ],\n  "limits": {\n    "body_max_bytes": 67108864\n  }\n}\n',
    ),
    (
        "html",
        b"<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>Hello</title>\n"
        b"<style>body { color: black; }</style>\n</head>\n<body>\n<div class='page'>\n<h1>Hello</h1>\n"
        b"<p>A paragraph with a <a href='/more'>link</a>.</p>\n</div>\n</body>\n</html>\n",
    ),
    (
        "csv",
        b"id,date,amount,currency\n"
        + b"".join(b"%d,2024-03-%02d,%d.50,EUR\n" % (day, day + 1, day * 7) for day in range(28)),
    ),
    (
        "rust",
        b"use std::collections::HashMap;\n\n/// Counts words.\npub fn count(text: &str) -> HashMap<&str, usize> {\n"
        b"    let mut counts = HashMap::new();\n    for word in text.split_whitespace() {\n"
        b"        *counts.entry(word).or_insert(0) += 1;\n    }\n    counts\n}\n",
    ),
]
"""Small files of known types, for requests."""


# -- flowers: the model written in Python ---------------------------------------------------------------------------

IRISES = ["setosa", "versicolor", "virginica"]


def iris() -> Split:
    """Scikit-learn's copy of Fisher's irises. The model itself is trained in its ``load``."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return _split(found.data.astype(np.float32), found.target.astype(np.int64), seed=6)


# -- real requests --------------------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """Held-out rows and their labels."""

    input: str
    """Name of the model's input."""
    rows: Array
    """One sample each along the first dimension."""
    output: str
    """Name of the output to read."""
    read: Callable[[Array], list[str]]
    """Turns outputs into words."""
    right: list[str]


def samples(model: str, count: int = 8) -> Samples:
    """Return held-out rows for ``model``."""
    if model == "file-type":
        return _files(count)
    split, names, source, answer = {
        "breast-cancer": (breast_cancer, DIAGNOSES, "measurements", "label"),
        "fraud": (fraud, ["honest", "fraud"], "payment", "probabilities"),
        "vibration": (vibration, FAULTS, "window", "fault"),
        "iris-python": (iris, IRISES, "flower", "species"),
    }[model]
    found = split()
    # Balanced classes, so that rare ones appear.
    groups = [np.flatnonzero(found.test_y == label) for label in range(len(names))]
    chosen_rows = [groups[index % len(groups)][index // len(groups)] for index in range(count)]

    def words(labels: Array) -> list[str]:
        if labels.ndim == 2:
            # With 1 % fraud, a score of 0.1 is suspicious enough to ask back.
            labels = labels[:, 1] > 0.1
        return [names[int(label)] for label in labels]

    return Samples(source, found.test_x[chosen_rows], answer, words, words(found.test_y[chosen_rows]))


def _files(count: int) -> Samples:
    chosen = [FILES[index % len(FILES)] for index in range(count)]
    kinds = file_labels()

    def words(scores: Array) -> list[str]:
        return [kinds[index] for index in np.argmax(scores, axis=1)]

    rows = np.stack([file_bytes(content) for _, content in chosen])
    return Samples("bytes", rows, "target_label", words, [kind for kind, _ in chosen])
