"""XGBoost: boosters saved in its own JSON or UBJSON, which hold no code.

``compose`` reads the model's settings in the control plane; :class:`XgboostRuntime` runs the booster in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.runtimes.base import Batch, Launch, Runtime, head, in_python, require

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.spec.settings import ModelSpec

__all__ = ["XgboostRuntime", "claims", "compose", "load"]

PLATFORM = "xgboost"


def claims(path: Path) -> bool:
    """``.ubj`` files; ``.json``, ``.xgb``, ``.bst`` and ``.model`` files that begin like a booster."""
    if not path.is_file():
        return False
    if path.suffix == ".ubj":
        return True
    if path.suffix not in (".json", ".xgb", ".bst", ".model"):
        return False
    begin = head(path)
    # JSON in text, or UBJSON: an object whose first key is "learner".
    return b'"learner"' in begin or (begin.startswith(b"{L") and b"learner" in begin)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the booster in ``file`` is started."""
    require("xgboost", "xgboost", spec)
    return in_python("xgboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The booster, in this process."""
    return XgboostRuntime(settings)


class XgboostRuntime:
    """A booster.

    Takes ``x`` (FP32, NaN where a value is missing), gives ``prediction``: what ``Booster.predict`` gives, which is the
    probability of class 1 for ``binary:logistic`` and one of each class for ``multi:softprob``.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import numpy as np
        import xgboost

        from inferd.runtimes.signatures import matrix_input, outputs_seen, with_declared

        self.booster = xgboost.Booster({"nthread": settings["threads"]})
        self.booster.load_model(settings["file"])
        self.facts = {"runtime": f"xgboost {xgboost.__version__}"}
        # After early stopping the trees past the best are left out, as XGBoost's own estimators do.
        best = self.booster.attr("best_iteration")
        self._trees = (0, int(best) + 1) if best is not None else (0, 0)
        inputs = matrix_input(self.booster.num_features())
        seen = self.predict({"x": np.zeros((1, self.booster.num_features()), np.float32)})
        self.signature = with_declared(settings, inputs, outputs_seen(seen))

    def predict(self, batch: Batch) -> Batch:
        """The booster's answers."""
        (x,) = batch.values()
        return {"prediction": self.booster.inplace_predict(x, iteration_range=self._trees)}

    def close(self) -> None:
        """Nothing is held but memory."""
