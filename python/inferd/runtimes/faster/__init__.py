"""The same model as ONNX, where that gives the same answers in less time.

    python -m inferd.runtimes.faster < request.json

Reads what would load the model and a folder, hands on ``model.onnx`` in that folder and a verdict on stdout. A process
of its own, run once for each model: the server that starts after it imports no framework at all.

Whether a conversion is lossless is not believed but tried, on rows made to find differences. Knows nothing of where
verdicts are kept.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = ["CONVERTIBLE", "Verdict"]

CONVERTIBLE = {
    "sklearn": ("scikit-learn", "skl2onnx", "skops", "joblib", "scipy", "pandas"),
    "xgboost": ("xgboost", "xgboost-cpu", "pandas"),
    "lightgbm": ("lightgbm", "pandas"),
}
"""Runtimes whose models may be converted, with the packages whose versions decide how, besides those of ONNX."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a model.

    Args:
        chosen: what serves it.
        why: one sentence, with figures.
        threads: with how many ``onnx`` is served.
        schemas: what the library refuses, in the form that crosses to the data plane.
        ignored_columns: columns of clients' frames that the model does not read.
    """

    chosen: Literal["onnx", "library"]
    why: str
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    schemas: tuple[dict[str, Any], ...] = ()
    ignored_columns: tuple[str, ...] = ()
