"""scikit-learn: estimators and pipelines, saved with skops, or in a pickle that the operator vouches for.

``compose`` reads the model's settings in the control plane; :class:`SklearnRuntime` runs the estimator in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
Does not know what is in estimators: ``sklearn_files`` reads them, ``sklearn_columns`` and ``sklearn_rows`` find out
what they take, ``sklearn_refusals`` what they refuse, ``sklearn_answers`` what they give.
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
    types="Read from the fitted estimator: FP64 of numbers; INT64 or UINT64 of integer categories beyond 2⁵³, BOOL of"
    " true and false, BYTES of texts. What only code of the user's reads is declared in `inputs:`.",
    categories="Texts and numbers as the encoders were fitted with; unknown ones as their `handle_unknown` says.",
    missing="The estimator is asked at load: what it takes reaches it as NaN or None, as it was fitted; else refused"
    " with row and column.",
    names="Those of the data frame; one matrix `x` where all columns are numbers of one type. None of arrays, whose"
    " columns are `x0`, `x1`, … Text vectorizers take `text`.",
    outputs="`label`, `probabilities` or `decision` of classifiers, `prediction` of regressors, `transformed` of"
    " transformers, in the library's own types.",
)
_EXAMPLE_ROWS = 4
# Of numbers, and within the domain of logarithms and roots; the same every time, as is what comes of them.
_PLAUSIBLE = ((0.25, 1.0, 0.5, 0.75), (0.5, 0.25, 1.0, 0.125), (1.0, 0.5, 0.375, 0.25))


def claims(path: Path) -> bool:
    """``.skops`` files, and pickles, which are refused unless they are trusted."""
    return path.is_file() and path.suffix in (".skops", *PICKLES)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the estimator in ``file`` is started."""
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
    """The estimator, in this process."""
    return SklearnRuntime(settings)


class SklearnRuntime:
    """A fitted estimator.

    Inputs: one matrix ``x`` where all columns are numbers of one type, else one input for each column; ``text`` where
    the estimator begins with a text vectorizer. Columns that no step reads are no inputs. Outputs: see
    :class:`inferd.runtimes.sklearn_answers.Answers`. Everything is in the library's own precision, FP64.

    Raises:
        Forbidden: the file would run code that nobody vouched for.
        ModelFailed: what is in it is no fitted estimator, the type of a column can't be read from it, or it answers
            none of the rows that it is tried with.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import sklearn

        from inferd.runtimes.signatures import declared, observed_outputs
        from inferd.runtimes.sklearn_answers import Answers
        from inferd.runtimes.sklearn_columns import features_of
        from inferd.runtimes.sklearn_rows import rows_of
        from inferd.types import Signature

        self.estimator = read(Path(settings["file"]), settings["trusted_sha256"])
        self.facts = {"runtime": f"scikit-learn {sklearn.__version__}", "model": type(self.estimator).__name__}
        self._answers = Answers(self.estimator)
        features = features_of(self.estimator)
        rows = rows_of(self.estimator, features, declared(settings, "inputs"))
        outputs = declared(settings, "outputs")
        # An array is given where names would change nothing.
        warnings.filterwarnings("ignore", message="X (does not have valid|has) feature names")
        try:
            self._rows, seen = self._tried(rows, features)
        except ModelFailed:
            if outputs is None:
                raise
            self._rows, seen = rows, {}
        else:
            self._rows = self._asked(features)
            self.example = self._examples()
        # What the library warns of at load is logged; of rows it would at every request.
        warnings.filterwarnings("ignore", module=r"sklearn(\.|$)")
        self.signature = Signature(self._rows.inputs, outputs or observed_outputs(seen))
        self.independent = self._independent(seen)
        self.schemas: Sequence[InputSchema] = self._rows.schemas
        self.ignored_columns: Sequence[str] = self._rows.ignored

    def predict(self, batch: Batch) -> Batch:
        """The estimator's answers."""
        given = self._rows.given(batch)
        try:
            return self._answers(given)
        except InferdError:
            raise
        except (ValueError, LookupError) as fault:
            # Estimators say so of what they were not fitted for: negative numbers, unknown categories.
            raise InvalidInput(f"the model can't use this input: {fault}") from fault

    def close(self) -> None:
        """Nothing is held but memory."""

    def _independent(self, seen: Batch) -> str | None:
        """Why each row is answered for itself; ``None``: a probe has to find out.

        The type of a column of texts of which none is there, and that of an answer of objects, depend on all rows.
        """
        from inferd.runtimes.sklearn_independent import independent

        columns = () if self._rows.table is None else self._rows.table.columns
        if any(column.datatype == "BYTES" and column.missing for column in columns):
            return None
        if any(array.dtype == object and not name.startswith("label") for name, array in seen.items()):
            return None
        return independent(self.estimator)

    def _tried(self, rows: Rows, features: Features | None) -> tuple[Rows, Batch]:
        """Rows with an example that the estimator answers, and its answer."""
        fault: Exception | None = None
        for columns in _plausible(rows, features):
            for whole in (False, True) if rows.form == "frame" else (False,):
                tried = replace(rows.with_columns(columns), whole=whole)
                try:
                    return tried, self._answers(tried.given(tried.example(_EXAMPLE_ROWS)))
                except Exception as error:  # noqa: BLE001 (the next example may do)
                    fault = fault or error
        raise ModelFailed(
            f"{self.facts['model']} answers none of the rows that it was tried with: {type(fault).__name__}: {fault}\n"
            "help: where it only takes rows that can't be guessed, write outputs: into model.yaml"
        ) from fault

    def _examples(self) -> Batch:
        """Rows for the probe, which finds out whether rows may run together.

        Imputers from other columns answer a row without any value otherwise when it is alone.
        """
        import numpy as np

        rows, missing = self._rows.example(_EXAMPLE_ROWS), self._rows.missing()
        if missing is None or not self._answers.answers(self._rows.given(missing)):
            return rows
        return {name: np.concatenate([array[1:], missing[name]]) for name, array in rows.items()}

    def _asked(self, features: Features | None) -> Rows:
        from inferd.runtimes.sklearn_refusals import with_refusals

        rows = self._rows
        if rows.table is None:
            return rows
        known = [] if features is None else features.features
        kinds = [tuple(known[place].path) if place < len(known) else () for place in rows.places]
        row = {name: array[:1] for name, array in rows.example(1).items()}

        def answers(batch: Batch) -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._answers.answers(rows.given(batch))

        return rows.with_columns(with_refusals(rows.table, row, kinds, answers))


def _plausible(rows: Rows, features: Features | None) -> Iterator[Sequence[Column]]:
    """The columns with examples: categories that were seen, and numbers of several kinds."""
    if rows.table is None:
        yield ()
        return
    columns = rows.table.columns
    known = [] if features is None else features.features
    near = [known[place].near if place < len(known) else None for place in rows.places]
    numbers = [_PLAUSIBLE[place % len(_PLAUSIBLE)] for place in range(len(columns))]
    for examples in (numbers, near, [0.0] * len(columns), [1.0] * len(columns)):
        yield [
            replace(column, example=example) if column.example is None and column.datatype != "BYTES" else column
            for column, example in zip(columns, examples, strict=True)
        ]
