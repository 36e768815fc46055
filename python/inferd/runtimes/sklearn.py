"""scikit-learn: estimators and pipelines, saved with skops or in a trusted pickle.

``compose`` reads the model's settings in the control plane; :class:`SklearnRuntime` runs the estimator in a worker. If
ONNX gives the same answers faster, :mod:`inferd.runtimes.faster` replaces it. Knows nothing of the inside of
estimators: ``sklearn_files`` loads them, ``sklearn_columns`` and ``sklearn_rows`` derive their inputs,
``sklearn_limits`` what they reject, ``sklearn_outputs`` their outputs.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InferdError, InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, python_launch, require
from inferd.runtimes.sklearn_files import PICKLES, read
from inferd.runtimes.trust import refuse_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inferd.runtimes.sklearn_columns import Features
    from inferd.runtimes.sklearn_rows import Rows
    from inferd.runtimes.tables import Column
    from inferd.spec.settings import ModelSpec
    from inferd.types import InputSchema

__all__ = ["TAKES", "SklearnRuntime", "claims", "compose", "load"]

PLATFORM = "sklearn"
TAKES = Takes(
    title="scikit-learn",
    types="Read from the fitted estimator: FP64 for numbers; INT64 or UINT64 for integer categories beyond 2⁵³, BOOL"
    " for booleans, BYTES for texts. Columns that only user code reads are declared in `inputs:`.",
    categories="Texts and numbers as the encoders were fitted with; unknown ones as their `handle_unknown` says.",
    missing="Found by trying at load: accepted ones reach the estimator as NaN or None, as fitted; others are refused"
    " with row and column.",
    names="Those of the data frame; one matrix `x` where all columns are numbers of one type. None of arrays, whose"
    " columns are `x0`, `x1`, … Text vectorizers take `text`.",
    outputs="`label`, `probabilities` or `decision` of classifiers, `prediction` of regressors, `transformed` of"
    " transformers, in the library's own types.",
)
_EXAMPLE_ROWS = 4
# Deterministic numbers within the domain of logarithms and roots.
_PLAUSIBLE = ((0.25, 1.0, 0.5, 0.75), (0.5, 0.25, 1.0, 0.125), (1.0, 0.5, 0.375, 0.25))


def claims(path: Path) -> bool:
    """Claims ``.skops`` files, and pickles, which are refused unless trusted."""
    return path.is_file() and path.suffix in (".skops", *PICKLES)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the estimator in ``file``."""
    if file.suffix in PICKLES:
        refuse_untrusted(
            file,
            spec.trusted_sha256,
            "is a pickle",
            'save the model with skops (skops.io.dump(model, "model.skops")), or as ONNX',
        )
    else:
        require("skops", "sklearn", spec)
    require("sklearn", "sklearn", spec)
    return python_launch("sklearn", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the estimator in this process."""
    return SklearnRuntime(settings)


class SklearnRuntime:
    """A fitted estimator.

    Inputs: one matrix ``x`` if all columns are numbers of one type, else one input per column; ``text`` if the
    estimator starts with a text vectorizer. Columns that no step reads are omitted. Outputs: see
    :class:`inferd.runtimes.sklearn_outputs.Outputs`. Everything has the library's own precision, FP64.

    Raises:
        Forbidden: the file would execute untrusted code.
        ModelFailed: the file has no fitted estimator, the type of a column can't be derived, or the estimator rejects
            every trial row.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import sklearn

        from inferd.runtimes.signatures import declared, observed_outputs
        from inferd.runtimes.sklearn_columns import features_of
        from inferd.runtimes.sklearn_outputs import Outputs
        from inferd.runtimes.sklearn_rows import rows_of
        from inferd.types import Signature

        self.estimator = read(Path(settings["file"]), settings["trusted_sha256"])
        self.facts = {"runtime": f"scikit-learn {sklearn.__version__}", "model": type(self.estimator).__name__}
        self._outputs = Outputs(self.estimator)
        features = features_of(self.estimator)
        rows = rows_of(self.estimator, features, declared(settings, "inputs"))
        outputs = declared(settings, "outputs")
        # An array is passed where names make no difference.
        warnings.filterwarnings("ignore", message="X (does not have valid|has) feature names")
        try:
            self._rows, outputs_seen = self._trial(rows, features)
        except ModelFailed:
            if outputs is None:
                raise
            self._rows, outputs_seen = rows, {}
        else:
            self._rows = self._with_limits(features)
            self.example = self._examples()
        # Warnings at load are logged; warnings about rows would repeat on every request.
        warnings.filterwarnings("ignore", module=r"sklearn(\.|$)")
        self.signature = Signature(self._rows.inputs, outputs or observed_outputs(outputs_seen))
        self.independent = self._independent(outputs_seen)
        self.schemas: Sequence[InputSchema] = self._rows.schemas
        self.ignored_columns: Sequence[str] = self._rows.ignored

    def predict(self, batch: Batch) -> Batch:
        """Run the estimator over a batch."""
        given = self._rows.given(batch)
        try:
            return self._outputs(given)
        except InferdError:
            raise
        except (ValueError, LookupError) as fault:
            # Raised for values that it was not fitted for: negative numbers, unknown categories.
            raise InvalidInput(f"the model can't use this input: {fault}") from fault

    def close(self) -> None:
        """Nothing to release."""

    def _independent(self, outputs_seen: Batch) -> str | None:
        """Return why rows are independent; ``None``: the probe decides.

        The dtype of a text column without any text, and that of an output of objects, depend on all rows of the batch.
        """
        from inferd.runtimes.sklearn_independent import independent

        columns = () if self._rows.table is None else self._rows.table.columns
        if any(column.datatype == "BYTES" and column.missing for column in columns):
            return None
        if any(array.dtype == object and not name.startswith("label") for name, array in outputs_seen.items()):
            return None
        return independent(self.estimator)

    def _trial(self, rows: Rows, features: Features | None) -> tuple[Rows, Batch]:
        """Return rows with an example that the estimator accepts, and its outputs."""
        fault: Exception | None = None
        for columns in _plausible(rows, features):
            for whole in (False, True) if rows.form == "frame" else (False,):
                tried = replace(rows.with_columns(columns), whole=whole)
                try:
                    return tried, self._outputs(tried.given(tried.example(_EXAMPLE_ROWS)))
                except Exception as error:  # noqa: BLE001 (the next example may work)
                    fault = fault or error
        raise ModelFailed(
            f"{self.facts['model']} rejects all trial rows: {type(fault).__name__}: {fault}\n"
            "help: if it accepts only special rows, set outputs: in model.yaml"
        ) from fault

    def _examples(self) -> Batch:
        """Return rows for the batching probe.

        Includes a row without any value if accepted: imputers from other columns handle it differently alone.
        """
        import numpy as np

        rows, missing = self._rows.example(_EXAMPLE_ROWS), self._rows.missing()
        if missing is None or not self._outputs.accepts(self._rows.given(missing)):
            return rows
        return {name: np.concatenate([array[1:], missing[name]]) for name, array in rows.items()}

    def _with_limits(self, features: Features | None) -> Rows:
        from inferd.runtimes.sklearn_limits import with_limits

        rows = self._rows
        if rows.table is None:
            return rows
        known = [] if features is None else features.features
        kinds = [tuple(known[index].path) if index < len(known) else () for index in rows.places]
        row = {name: array[:1] for name, array in rows.example(1).items()}

        def accepts(batch: Batch) -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._outputs.accepts(rows.given(batch))

        return rows.with_columns(with_limits(rows.table, row, kinds, accepts))


def _plausible(rows: Rows, features: Features | None) -> Iterator[Sequence[Column]]:
    """Yield the columns with examples: known categories, and numbers of several kinds."""
    if rows.table is None:
        yield ()
        return
    columns = rows.table.columns
    known = [] if features is None else features.features
    near = [known[index].near if index < len(known) else None for index in rows.places]
    numbers = [_PLAUSIBLE[index % len(_PLAUSIBLE)] for index in range(len(columns))]
    for examples in (numbers, near, [0.0] * len(columns), [1.0] * len(columns)):
        yield [
            replace(column, example=example) if column.example is None and column.datatype != "BYTES" else column
            for column, example in zip(columns, examples, strict=True)
        ]
