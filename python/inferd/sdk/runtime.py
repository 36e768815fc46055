"""Adapt one stage of a :class:`inferd.Model` to the runtime interface.

Reads a class, hands on the attributes of :class:`inferd.runtimes.base.Runtime`. Knows nothing of files.
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
"""In the order in which a request passes through them."""


class StageRuntime:
    """One loaded stage of a model.

    The later of two stages types the tensors between them: the outputs of ``preprocess`` are the arguments of
    ``predict``, and the outputs of ``predict`` those of ``postprocess``.

    Args:
        model: an instance, not yet set up.
        stage: the method to run.
        parameters: arguments for ``load``.
    """

    def __init__(self, model: Model, stage: Stage, parameters: dict[str, Any]) -> None:
        self._model = model
        self.facts = {"runtime": f"python {platform.python_version()}"}
        model.setup()
        if stage == "predict":
            model.load(**parameters)
        hooks = [name for name in STAGES if name == "predict" or hasattr(model, name)]
        successor = next(iter(hooks[hooks.index(stage) + 1 :]), None)
        # Only the next stage's annotations are needed here; it runs in another worker.
        outputs = None if successor is None else Call.columns_of(getattr(model, successor))
        first = stage == hooks[0]
        self.call = Call(getattr(model, stage), outputs, model.example if first else None, zero_copy=model.zero_copy)
        declared = {schema.input: schema for schema in model.schemas} if first else {}
        self.call.allow_missing({name for name, schema in declared.items() if schema.missing})
        for column in self.call.inputs:
            if column.codec.missing:
                declared.setdefault(column.name, InputSchema(column.name))
        self.schemas = tuple(declared.values())
        self.ignored_columns = tuple(model.ignored_columns) if first else ()
        self.independent = f"{stage}() takes one row at a time" if self.call.by_row else None
        self.streams = self.call.streams
        if self.streams and len(hooks) > 1:
            raise ModelFailed(
                f"{stage}() streams, and a streaming model can't have preprocess() or postprocess()\n"
                "help: do their work in predict()"
            )
        contexts = self.call.contexts
        self.controls = contexts.controls if contexts else {}
        self.sequence = model.sequence if stage == "predict" else None
        if self.sequence is not None and len(hooks) > 1:
            raise ModelFailed(
                "a model with sequences can't have preprocess() or postprocess()\nhelp: do their work in predict()"
            )
        inputs = tuple(column.spec for column in self.call.inputs) + (contexts.specs if contexts else ())
        self.signature = Signature(inputs, tuple(column.spec for column in self.call.outputs))
        self.example = self.call.sample
        self.constants = constants_of(model)
        self.defaults = self.call.defaults if first else {}

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the stage's method over a batch."""
        return self.call(batch)

    def stream(self, batch: dict[str, Any]) -> Generator[dict[str, Any]]:
        """Run a generator method over one request."""
        return self.call.stream(batch)

    def close(self) -> None:
        """Close the event loop and call the model's ``close``."""
        self.call.close()
        self._model.close()


def stages_of(model_class: type) -> tuple[Stage, ...]:
    """Return the stages that a class defines.

    Raises:
        ModelFailed: it has no ``predict``.
    """
    if not callable(getattr(model_class, "predict", None)):
        raise ModelFailed(f"class '{model_class.__name__}' has no method predict()")
    return tuple(stage for stage in STAGES if hasattr(model_class, stage))
