"""A model of :class:`inferd.Model` as a runtime: one of its stages in one worker.

Reads a class, hands on what :class:`inferd.runtimes.base.Runtime` asks for. Knows nothing of files.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Literal

from inferd.errors import ModelFailed
from inferd.sdk.calls import Call
from inferd.sdk.constants import constants_of
from inferd.types import InputSchema, Signature

if TYPE_CHECKING:
    from collections.abc import Generator

    from inferd.sdk.model import Model

__all__ = ["STAGES", "Stage", "StageRuntime"]

Stage = Literal["preprocess", "predict", "postprocess"]
STAGES: tuple[Stage, ...] = ("preprocess", "predict", "postprocess")
"""In the order in which a request passes them."""


class StageRuntime:
    """One stage of a model, set up and loaded.

    What lies between two stages is typed by the later one: ``preprocess`` gives what the arguments of ``predict`` are,
    ``predict`` what those of ``postprocess`` are, by their names.

    Args:
        model: an instance, not yet set up.
        stage: which of its methods runs here.
        parameters: arguments for ``load``.
    """

    def __init__(self, model: Model, stage: Stage, parameters: dict[str, Any]) -> None:
        self._model = model
        self.facts = {"runtime": f"python {platform.python_version()}"}
        model.setup()
        if stage == "predict":
            model.load(**parameters)
        hooks = [name for name in STAGES if name == "predict" or hasattr(model, name)]
        follower = next(iter(hooks[hooks.index(stage) + 1 :]), None)
        # Only where it is not called is the later stage needed for its annotations alone.
        outputs = None if follower is None else Call.columns_of(getattr(model, follower))
        first = stage == hooks[0]
        self.call = Call(getattr(model, stage), outputs, model.example if first else None, zero_copy=model.zero_copy)
        stated = {schema.input: schema for schema in model.schemas} if first else {}
        self.call.take_missing({name for name, schema in stated.items() if schema.missing})
        for column in self.call.inputs:
            if column.codec.missing:
                stated.setdefault(column.name, InputSchema(column.name))
        self.schemas = tuple(stated.values())
        self.ignored_columns = tuple(model.ignored_columns) if first else ()
        self.independent = f"{stage}() takes one row at a time" if self.call.by_row else None
        self.streams = self.call.streams
        if self.streams and len(hooks) > 1:
            raise ModelFailed(
                f"{stage}() streams, and a model that streams has no preprocess() or postprocess()\n"
                "help: do their work in predict()"
            )
        contexts = self.call.contexts
        self.controls = contexts.controls if contexts else {}
        self.sequence = model.sequence if stage == "predict" else None
        if self.sequence is not None and len(hooks) > 1:
            raise ModelFailed(
                "a model that answers sequences has no preprocess() or postprocess()\nhelp: do their work in predict()"
            )
        seen = tuple(column.spec for column in self.call.inputs)
        given = tuple(column.spec for column in self.call.outputs)
        self.signature = Signature(seen + (contexts.specs if contexts else ()), given)
        self.example = self.call.sample
        self.constants = constants_of(model)
        self.defaults = self.call.defaults if first else {}

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the stage's method over a whole batch."""
        return self.call(batch)

    def stream(self, batch: dict[str, Any]) -> Generator[dict[str, Any]]:
        """Run a method that yields over one request."""
        return self.call.stream(batch)

    def close(self) -> None:
        """End what ``async`` methods run in, and call the model's own ``close``."""
        self.call.close()
        self._model.close()


def stages_of(model_class: type) -> tuple[Stage, ...]:
    """The stages that a class has.

    Raises:
        ModelFailed: it has no ``predict``.
    """
    if not callable(getattr(model_class, "predict", None)):
        raise ModelFailed(f"class '{model_class.__name__}' has no method predict()")
    return tuple(stage for stage in STAGES if hasattr(model_class, stage))
