"""CatBoost: models saved in its own binary form or JSON, which hold no code.

``compose`` reads the model's settings in the control plane; :class:`CatboostRuntime` runs the model in a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.runtimes.base import Batch, Launch, Runtime, head, in_python, require

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["CatboostRuntime", "claims", "compose", "load"]

PLATFORM = "catboost"


def claims(path: Path) -> bool:
    """``.cbm`` and ``.cb`` files, and ``.json`` files that begin like a model of CatBoost."""
    if not path.is_file():
        return False
    return path.suffix in (".cbm", ".cb") or (path.suffix == ".json" and b'"features_info"' in head(path))


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the model in ``file`` is started."""
    require("catboost", "catboost", spec)
    return in_python("catboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The model, in this process."""
    return CatboostRuntime(settings)


class CatboostRuntime:
    """A model.

    Takes ``x`` (FP32), or one input for each feature where some are categories (BYTES, FP32 the others). Gives
    ``label`` and ``probabilities`` of classifiers, ``prediction`` of the others.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import catboost

        from inferd.runtimes.signatures import outputs_seen, with_declared

        file = Path(settings["file"])
        model = catboost.CatBoost()
        model.load_model(str(file), format="json" if file.suffix == ".json" else "cbm")
        loss = str(model.get_all_params().get("loss_function", ""))
        self._classes = loss.startswith(("Logloss", "CrossEntropy", "MultiClass"))
        self.model = model
        self._threads = settings["threads"]
        self.facts = {"runtime": f"catboost {catboost.__version__}"}
        inputs = self._inputs()
        self._by_feature = len(inputs) > 1
        row = {spec.name: _plausible(spec) for spec in inputs}
        self.signature = with_declared(settings, inputs, outputs_seen(self.predict(row)))

    def predict(self, batch: Batch) -> Batch:
        """The model's answers."""
        import numpy as np

        x = self._rows(batch) if self._by_feature else next(iter(batch.values()))
        if not self._classes:
            predicted = self.model.predict(x, thread_count=self._threads)
            return {"prediction": np.asarray(predicted, np.float32)}
        probabilities = np.asarray(
            self.model.predict(x, prediction_type="Probability", thread_count=self._threads), np.float32
        )
        labels = np.asarray(self.model.predict(x, prediction_type="Class", thread_count=self._threads))
        return {"label": labels.reshape(len(labels)), "probabilities": probabilities}

    def close(self) -> None:
        """Nothing is held but memory."""

    def _inputs(self) -> tuple[TensorSpec, ...]:
        from inferd.runtimes.signatures import matrix_input
        from inferd.types import TensorSpec

        names = [str(name) for name in self.model.feature_names_]
        categories = set(self.model.get_cat_feature_indices()) | set(self.model.get_text_feature_indices())
        if not categories:
            return matrix_input(len(names))
        return tuple(
            TensorSpec(name, "BYTES" if position in categories else "FP32", (-1,))
            for position, name in enumerate(names)
        )

    def _rows(self, batch: Batch) -> Any:
        from inferd.runtimes.signatures import as_text

        columns = [as_text(array) if array.dtype == object else array for array in batch.values()]
        return [list(row) for row in zip(*columns, strict=True)]


def _plausible(spec: TensorSpec) -> Any:
    import numpy as np

    if spec.datatype == "BYTES":
        return np.array([b"none"], dtype=object)
    return np.zeros([max(1, dim) for dim in spec.shape], np.float32)
