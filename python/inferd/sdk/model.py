"""The base class of user models.

Knows nothing of how a model is run: :mod:`inferd.sdk.calls` reads the annotations of its methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferd.sdk.sequences import Sequence
    from inferd.types import InputSchema

__all__ = ["Model"]


class Model:
    """A model in Python, typed by the annotations of its methods.

    ::

        from inferd import Model

        class Sentiment(Model):
            def load(self):
                self.words = {"good": 1.0, "bad": -1.0}

            def predict(self, text: list[str]) -> dict:
                return {"score": [sum(self.words.get(word, 0) for word in one.split()) for one in text]}

    ``predict`` has one argument per input. Its annotation determines the input's type:

    - ``list[str]``, ``list[bytes]``, ``list[int]``, ``list[float]``, ``list[bool]``: one value per row;
    - ``Annotated[NDArray[np.float32], Shape(3, 224, 224)]``: an array of shape ``(rows, 3, 224, 224)``; -1 is dynamic;
    - ``list[dict]``, or ``list`` of a dataclass, a ``TypedDict``, a msgspec or pydantic type: validated JSON;
    - ``list[PIL.Image.Image]``: one image file per row;
    - ``list[str | None]``, ``list[float | None]`` and so on: values may be missing (``None``). Otherwise a request with
      missing text is refused, and NaN is a number.

    Without ``list`` (``text: str``) the method is called once per row, which is simpler and slower.

    It returns a list or array, which becomes the output ``output``, or a dict of them by name. A return annotation of
    the same form types the outputs; without one (or with plain ``dict``) they are inferred from a run at load.

    A ``predict`` that yields (``async`` or not) streams: it gets the rows of one request, and each yield is a separate
    response, annotated as ``Iterator[str]`` or ``AsyncIterator[str]``. It is closed at its current yield when the
    caller cancels.

    ``preprocess`` and ``postprocess`` are optional, and run in their own workers: ``preprocess`` takes what clients
    send and returns the arguments of ``predict`` (a dict if there are several), ``postprocess`` takes the result of
    ``predict`` and returns the response. Each method may be ``async``.

    The request's context (headers, deadline, cancellation) is an argument annotated :class:`~inferd.Context`, or
    ``list[Context]`` next to other lists.

    To reject a row, raise ``InvalidInput(message, row=index)``. The caller of that row gets the message; the other rows
    are answered.
    """

    example: Mapping[str, Any] | None = None
    """Plausible arguments by name, two rows or more, for the first runs at load. None: generated."""

    zero_copy: bool = False
    """Whether array arguments are read-only views of the server's memory, which saves a copy. The memory is reused once
    the method has returned or its generator has ended: a model must copy arrays that it keeps. False: arguments are
    copies."""

    sequence: Sequence | None = None
    """How requests of a sequence are served. None: every request is independent."""

    schemas: Iterable[InputSchema] = ()
    """Constraints on inputs in addition to their types: column names, missing values (``None`` in lists of text, NaN in
    lists of numbers), a greatest magnitude. The server refuses requests that violate them."""

    ignored_columns: Iterable[str] = ()
    """Columns that a client's data frame may have and the model does not read."""

    def setup(self) -> None:
        """Prepare what hooks need. Called first in every worker of the model, including those of the hooks."""

    def load(self, **parameters: Any) -> None:
        """Load the model. Called once in each worker of ``predict``, with ``parameters:`` of the model's settings."""

    def close(self) -> None:
        """Release resources. Called when the worker shuts down gracefully."""
