"""LightGBM: boosters saved as text, which holds no code.

``compose`` reads the model's settings in the control plane; :class:`LightgbmRuntime` runs the booster in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.runtimes.base import Batch, Launch, Runtime, head, in_python, require

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.spec.settings import ModelSpec

__all__ = ["LightgbmRuntime", "claims", "compose", "load"]

PLATFORM = "lightgbm"


def claims(path: Path) -> bool:
    """``.lgb`` files; ``.txt``, ``.bst`` and ``.model`` files that begin like a booster."""
    if not path.is_file():
        return False
    return path.suffix == ".lgb" or (
        path.suffix in (".txt", ".bst", ".model") and head(path).startswith((b"tree\nversion=", b"tree\r\nversion="))
    )


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the booster in ``file`` is started."""
    require("lightgbm", "lightgbm", spec)
    return in_python("lightgbm", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The booster, in this process."""
    return LightgbmRuntime(settings)


class LightgbmRuntime:
    """A booster.

    Takes ``x`` (FP32, NaN where a value is missing), gives ``prediction`` (FP32): what ``Booster.predict`` gives, which
    is the probability of class 1 for ``binary`` and one of each class for ``multiclass``.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import lightgbm
        import numpy as np

        from inferd.runtimes.signatures import matrix_input, outputs_seen, with_declared

        self.booster = lightgbm.Booster(model_file=settings["file"])
        self.facts = {"runtime": f"lightgbm {lightgbm.__version__}"}
        self._threads = settings["threads"]
        inputs = matrix_input(self.booster.num_feature())
        seen = self.predict({"x": np.zeros((1, self.booster.num_feature()), np.float32)})
        self.signature = with_declared(settings, inputs, outputs_seen(seen))

    def predict(self, batch: Batch) -> Batch:
        """The booster's answers."""
        import numpy as np

        (x,) = batch.values()
        return {"prediction": np.asarray(self.booster.predict(x, num_threads=self._threads), np.float32)}

    def close(self) -> None:
        """Nothing is held but memory."""
