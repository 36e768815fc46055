"""The class that users derive their models from.

Knows nothing of how it is run: :mod:`inferd.sdk.calls` reads the annotations of its methods.
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

    ``predict`` gets one argument for each input. What the annotation says decides what the input is:

    - ``list[str]``, ``list[bytes]``, ``list[int]``, ``list[float]``, ``list[bool]``: a value for each row;
    - ``Annotated[NDArray[np.float32], Shape(3, 224, 224)]``: an array of shape ``(rows, 3, 224, 224)``; -1 is any size;
    - ``list[dict]``, or ``list`` of a dataclass, a ``TypedDict``, a msgspec or pydantic type: JSON, checked;
    - ``list[PIL.Image.Image]``: an image file for each row;
    - ``list[str | None]``, ``list[float | None]`` and so on: a value may be missing, and is ``None`` then. Without it a
      request with missing text is refused, and NaN is a number.

    Without ``list`` (``text: str``) the method is called once for each row, which is simpler and slower.

    It returns a list or array, which becomes the output ``output``, or a dict of them by name. A return annotation of
    the same form types the outputs; without one (or with plain ``dict``) one run at load shows what they are.

    A ``predict`` that yields (``async`` or not) streams: it gets the rows of one request, and each yield is a response
    of its own, annotated as ``Iterator[str]`` or ``AsyncIterator[str]``. When nobody wants more it is closed where it
    yields.

    ``preprocess`` and ``postprocess`` are optional, and run in workers of their own: ``preprocess`` takes what clients
    send and returns what ``predict`` takes (a dict by argument where it takes several), ``postprocess`` takes what
    ``predict`` returns and returns what clients get. Either method may be ``async``.

    What comes with a request besides its inputs (headers, the time that its caller waits, whether it still does) is an
    argument annotated as :class:`~inferd.Context`, or ``list[Context]`` beside lists.

    A row that can't be used: raise ``InvalidInput(message, row=position)``. The caller of that row reads the message;
    the others are answered.
    """

    example: Mapping[str, Any] | None = None
    """Plausible arguments by name, two rows or more, for the first runs at load. None: made up."""

    zero_copy: bool = False
    """Whether array arguments are views of memory that the server fills, which saves a copy of each. They can't be
    written to, and hold another request's numbers once the method has returned or, where it yields, has ended: a model
    that keeps one keeps a copy. False: they are the model's own."""

    sequence: Sequence | None = None
    """How requests that belong together are answered. None: each request stands for itself."""

    schemas: Iterable[InputSchema] = ()
    """What inputs take beside their types: names of columns, missing values (``None`` in lists of text, NaN in lists of
    numbers), a greatest magnitude. The server refuses what they don't take."""

    ignored_columns: Iterable[str] = ()
    """Columns that clients' frames may have and the model does not read."""

    def setup(self) -> None:
        """Called first in every worker of the model, also in those of the hooks: what hooks need."""

    def load(self, **parameters: Any) -> None:
        """Called once in a worker that runs ``predict``, with ``parameters:`` of the model's settings."""

    def close(self) -> None:
        """Called when the worker ends in peace."""
