"""Convert a model to ONNX if that gives the same answers faster.

    python -m inferd.runtimes.faster < request.json

Reads load settings and a folder, hands on ``model.onnx`` in that folder and a verdict on stdout. Runs once per model in
its own process, so that the server imports no framework. Conversions are verified on rows generated to find
differences. Knows nothing of where verdicts are stored.
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
"""Runtimes with a converter, and the packages whose versions affect it, in addition to those of ONNX."""


class Verdict(msgspec.Struct, frozen=True):
    """The result of a conversion.

    Args:
        chosen: what serves the model.
        why: the reason in one sentence, with figures.
        threads: number of threads of ``onnx``.
        schemas: limits of the library, in the data plane's JSON form.
        ignored_columns: columns of data frames that the model does not read.
    """

    chosen: Literal["onnx", "library"]
    why: str
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    schemas: tuple[dict[str, Any], ...] = ()
    ignored_columns: tuple[str, ...] = ()
