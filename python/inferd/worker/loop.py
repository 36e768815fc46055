"""The life of a Python worker: load, decide on batching, answer batches until the channel closes.

Reads batches from the channel, hands them to the runtime and its outputs back.
Knows nothing of requests: a batch is rows.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from inferd.errors import InferdError, InvalidInput, ModelFailed
from inferd.runtimes.base import Controlled, Tabular
from inferd.runtimes.kept import Lost, changes, entered, inodes, located
from inferd.runtimes.registry import runtime
from inferd.worker.batching import decide_batching
from inferd.worker.channel import Channel, ModelInfo, WorkerBatch
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.runtimes.base import Runtime, Streaming
    from inferd.types import Signature

__all__ = ["main", "users_traceback"]

_OWN = str(Path(__file__).parents[1])


def main(descriptor: int) -> int:
    """Serve the channel ``descriptor`` to its end.

    Returns:
        The exit status: 0 when the gateway closed the channel, 1 when the model could not be loaded.
    """
    channel = Channel(descriptor)
    try:
        load, check = _located(channel.load)
        model = runtime(load["runtime"]).load(load)
        check()
        signature = decide_batching(model, load)
    except (Exception, SystemExit) as fault:  # noqa: BLE001 (whatever the model raises is told, and ends this worker)
        channel.failed(_load_message(fault), users_traceback(fault))
        return 1
    told = ModelInfo({**model.facts, **load.get("facts", {})}, getattr(model, "defaults", {}))
    if isinstance(model, Controlled):
        sequence = None if model.sequence is None else model.sequence.to_json(batched=signature.batched)
        told = told._replace(controls=model.controls, sequence=sequence)
    if isinstance(model, Tabular):
        told = told._replace(schemas=model.schemas, ignored_columns=model.ignored_columns)
    for batch in channel.batches(signature, told):
        answer(batch, model, signature)
    with contextlib.suppress(Exception):
        model.close()
    return 0


def _located(load: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
    """The settings with the model where it is as it was when the server first read it.

    Returns:
        The settings, and what is to be called once the model is loaded: it refuses a model that was replaced meanwhile,
        of which some files may be old and others new.
    """
    kept = load.get("kept")
    if kept is None:
        return load, lambda: None
    before = inodes(kept)
    folder = entered(kept)
    if folder != kept["folder"]:
        return located(load, folder), lambda: None

    def check() -> None:
        if inodes(kept) != before and changes(kept):
            raise ModelFailed("its files were replaced while they were loaded\nhelp: replace them before or after that")

    return load, check


def answer(batch: WorkerBatch, model: Runtime, signature: Signature) -> None:
    """Run ``batch`` and answer it, whatever the model does."""
    try:
        if signature.decoupled:
            answer_stream(batch, cast("Streaming", model), signature)
            return
        inputs = batch.inputs()
        started = time.perf_counter()
        outputs = model.predict(inputs)
        execution_s = time.perf_counter() - started
        arrays = checked_outputs(outputs, signature, batch.rows if signature.batched else None)
        batch.finish(arrays, execution_s)
    except InvalidInput as fault:
        batch.fail("InvalidInput", str(fault), users_traceback(fault))
    except InferdError as fault:
        batch.fail("ModelFailed", str(fault), users_traceback(fault))
    except (Exception, SystemExit) as fault:  # noqa: BLE001 (a model's error fails its batch, never the worker)
        # The text of a foreign exception may hold data of another request or a path: the class must do.
        batch.fail("ModelFailed", f"the model raised {type(fault).__name__}", users_traceback(fault))


def answer_stream(batch: WorkerBatch, model: Streaming, signature: Signature) -> None:
    """Give every response of ``model`` to the one request in ``batch``, as long as somebody wants them."""
    execution_s = 0.0
    with contextlib.closing(model.stream(batch.inputs())) as responses:
        while True:
            started = time.perf_counter()
            outputs = next(responses, None)
            execution_s += time.perf_counter() - started
            if outputs is None or not batch.respond(checked_outputs(outputs, signature, None)):
                break
    batch.end(execution_s)


def users_traceback(fault: BaseException) -> str:
    """The traceback from the first frame on that is not inferd's own; all of it where every frame is."""
    frames = fault.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OWN):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(fault), fault, frames or fault.__traceback__))


def _load_message(fault: BaseException) -> str:
    if isinstance(fault, InferdError | Lost):
        return str(fault)
    return f"loading raised {type(fault).__name__}: {fault}"
