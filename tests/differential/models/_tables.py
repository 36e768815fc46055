"""Tables to train boosters on and to ask them about.

Hands on data frames whose columns are of every kind that people have, and targets that depend on all of them.
Knows no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from differential.case import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "CITIES",
    "TRAINED",
    "as_asked",
    "asked_like",
    "identifiers",
    "missing",
    "mixed",
    "numbers",
    "on_edges",
    "placed",
    "seconds",
    "target",
]

TRAINED = 400
"""Rows that models are trained on."""
CITIES = ("Oslo", "Rome", "Lima", "New York", "São Paulo", "東京", "")
"""Categories with all that texts can have."""
GREAT = (0.0, -0.0, 1e-45, -1e-300, 1e6, -1e6, 1e30, -1e38, 3e38)


def numbers(random: np.random.Generator, columns: int = 4, rows: int = TRAINED, scale: float = 1.0) -> pd.DataFrame:
    """Doubles that no FP32 has, in columns named a, b, and so on."""
    names = [chr(97 + place) if columns <= 26 else f"c{place}" for place in range(columns)]
    return pd.DataFrame(random.normal(size=(rows, columns)) * scale, columns=names)


def identifiers(random: np.random.Generator, first: int, rows: int = TRAINED) -> pd.DataFrame:
    """Integers that follow each other from ``first`` on, and a number beside them."""
    values = first + random.integers(0, 40, rows)
    return pd.DataFrame({"id": values.astype(np.int64), "amount": random.normal(size=rows)})


def seconds(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """Times within five minutes, in seconds since 1970, as doubles and as integers."""
    times = 1.7e9 + random.uniform(0, 300, rows)
    return pd.DataFrame({"time": times, "day": (times // 60).astype(np.int64), "load": random.normal(size=rows)})


def mixed(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """Booleans, integers of every size and floats of both."""
    return pd.DataFrame(
        {
            "flag": random.integers(0, 2, rows).astype(bool),
            "tiny": random.integers(-9, 9, rows).astype(np.int8),
            "small": random.integers(0, 60_000, rows).astype(np.uint16),
            "count": random.integers(0, 9, rows),
            "single": random.normal(size=rows).astype(np.float32),
            "double": random.normal(size=rows),
        }
    )


def target(frame: pd.DataFrame) -> np.ndarray:
    """A number for each row that depends on every column, categories by their codes; missing values count as zero."""
    total = np.zeros(len(frame))
    for place, name in enumerate(frame.columns):
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column.dtype):
            values = pd.factorize(column, sort=True)[0].astype(float) % 5
        else:
            values = np.nan_to_num(column.to_numpy(dtype=float, na_value=0.0))
            values = (values - values.mean()) / (values.std() or 1)
        total += values * (1.5 if place % 2 else -1) + (values > values.mean()) * 2
    return total


def asked_like(frame: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """``ROWS`` rows of what ``frame`` has, columns independent of each other."""
    return pd.DataFrame(
        {name: frame[name].iloc[random.integers(0, len(frame), ROWS)].reset_index(drop=True) for name in frame.columns}
    )


def as_asked(rows: pd.DataFrame, trained: object) -> Any:
    """The rows as a model takes them: one that was trained on an array knows no names."""
    return {"x": rows.to_numpy(np.float64)} if isinstance(trained, np.ndarray) else rows


def placed(frame: pd.DataFrame, values: Sequence[Any], random: np.random.Generator, share: float = 0.2) -> pd.DataFrame:
    """The frame with some of its floats replaced by ``values``."""
    changed = frame.copy()
    for name in changed.columns:
        if changed[name].dtype.kind == "f":
            chosen = random.random(len(changed)) < share
            changed.loc[chosen, name] = random.choice(np.array(values, changed[name].dtype), int(chosen.sum()))
    return changed


def missing(frame: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """The frame with a fifth of its floats missing."""
    return placed(frame, [np.nan], random)


def on_edges(
    frame: pd.DataFrame, thresholds: Callable[[str], Sequence[float]], random: np.random.Generator
) -> pd.DataFrame:
    """The frame with most of its floats on the values at which a model decides, or next to them.

    Args:
        frame: rows.
        thresholds: those of a column.
        random: chooses.
    """
    changed = frame.copy()
    for name in changed.columns:
        edges = np.unique(np.array(thresholds(name), np.float64))
        if changed[name].dtype.kind == "f" and len(edges):
            near = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
            near = np.concatenate([near, near.astype(np.float32).astype(np.float64)])
            chosen = random.random(len(changed)) < 0.7
            changed.loc[chosen, name] = random.choice(near, int(chosen.sum())).astype(changed[name].dtype)
    return changed
