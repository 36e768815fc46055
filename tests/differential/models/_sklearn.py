"""How cases of scikit-learn are made: saving, answers of the library, rows with extremes.

Hands on what :mod:`differential.models.sklearn` is made of. Knows no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import skops.io

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from differential.case import Maker

CASES: dict[str, Maker] = {}
FRACTIONS = (np.nan, np.inf, -np.inf, 1e300, -1e300, 3.4e38, 3.5e38, 5e-324, -0.0, 2.0**53)
CITIES = ("Łódź", "São Paulo", "Kyoto", "Oslo")
WORDS = ("good", "bad", "fine", "awful", "long", "short", "story", "naïve", "日本")


def case(name: str) -> Callable[[Maker], Maker]:
    """Add a maker to the cases."""

    def add(maker: Maker) -> Maker:
        CASES[name] = maker
        return maker

    return add


def saved(folder: Path, model: Any, rows: pd.DataFrame, answer: Callable[[Any], dict[str, Any]], **about: Any) -> Case:
    """A case of a model in a skops file."""
    skops.io.dump(model, folder / "model.skops")
    return Case(folder / "model.skops", rows, answer, **about)


def classes(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    """Label and probabilities of rows in the form that the model was fitted with."""
    return lambda rows: {"label": model.predict(form(rows)), "probabilities": model.predict_proba(form(rows))}


def decisions(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {"label": model.predict(form(rows)), "decision": model.decision_function(form(rows))}


def numbers(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {"prediction": model.predict(form(rows))}


def dense(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        found = model.transform(form(rows))
        return {"transformed": found.toarray() if hasattr(found, "toarray") else found}

    return answer


def array(rows: pd.DataFrame) -> np.ndarray:
    return rows.to_numpy()


def texts(rows: pd.DataFrame) -> list[Any]:
    return rows.iloc[:, 0].tolist()


def table(random: np.random.Generator, rows: int = ROWS) -> pd.DataFrame:
    """Numbers, whole numbers, texts, and true or false."""
    return pd.DataFrame(
        {
            "age": random.uniform(18, 90, rows),
            "income": random.lognormal(10, 1, rows),
            "store": random.integers(0, 12, rows),
            "city": random.choice(CITIES, rows),
            "plan": random.choice(["free", "team", "null"], rows),
            "active": random.random(rows) < 0.5,
        }
    )


def target(frame: pd.DataFrame) -> np.ndarray:
    """A class for each row."""
    return (np.log(frame["income"]) + 0.02 * frame["age"] > 11).to_numpy().astype(int)


def sentences(random: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    lengths = random.integers(1, 8, rows)
    return np.array([" ".join(random.choice(WORDS, length)) for length in lengths], object)


def extreme(frame: pd.DataFrame, random: np.random.Generator, unknown: bool = True) -> pd.DataFrame:
    """The rows, some of them with a value that is missing, extreme or unknown in one column."""
    frame = frame.copy()
    places = iter(random.permutation(len(frame)))
    for name in frame.columns:
        if frame[name].dtype.kind == "f":
            for value in FRACTIONS:
                frame.loc[next(places), name] = value
        elif frame[name].dtype.kind == "i":
            frame.loc[[next(places) for _ in range(3)], name] = [-1, 2**31, 2**53]
        elif frame[name].dtype.kind != "b":
            values = [None, "", *(["Atlantis", "null", "NaN", "x" * 300] if unknown else ())]
            frame.loc[[next(places) for _ in values], name] = values
    return frame


def matrix(random: np.random.Generator, columns: int = 5, rows: int = ROWS) -> pd.DataFrame:
    """Numbers, whose columns are called by their positions, as an array's are."""
    return pd.DataFrame(random.normal(size=(rows, columns)), columns=[f"x{place}" for place in range(columns)])
