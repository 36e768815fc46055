"""The life of a Python worker: load, probe, answer batches until the channel closes.

Reads batches from the channel, hands them to the runtime and its outputs back.
Knows nothing of requests: a batch is rows, whoever sent them.
"""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from typing import TYPE_CHECKING

from inferd.errors import InferdError, InvalidInput
from inferd.runtimes.python import PythonRuntime
from inferd.runtimes.triton import TritonRuntime, is_triton
from inferd.worker.channel import Channel, WorkerBatch
from inferd.worker.probe import earned_signature
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from inferd.runtimes.base import Runtime
    from inferd.types import Signature

__all__ = ["main"]


def main(descriptor: int) -> int:
    """Serve the channel ``descriptor`` to its end.

    Returns:
        The exit status: 0 when the gateway closed the channel, 1 when the model could not be loaded.
    """
    channel = Channel(descriptor)
    try:
        load = channel.load
        runtime: Runtime
        if is_triton(load):
            runtime = TritonRuntime(load)
            load = runtime.completed(load)
        else:
            runtime = PythonRuntime(load)
        signature = earned_signature(runtime, load)
    except (Exception, SystemExit) as fault:  # noqa: BLE001 (whatever the model raises is told, and ends this worker)
        channel.failed(_load_message(fault), traceback.format_exc())
        return 1
    for batch in channel.batches(signature, {"runtime": f"python {platform.python_version()}"}):
        answer(batch, runtime, signature)
    with contextlib.suppress(Exception):
        runtime.close()
    return 0


def answer(batch: WorkerBatch, runtime: Runtime, signature: Signature) -> None:
    """Run ``batch`` and answer it, whatever the model does."""
    try:
        inputs = batch.inputs()
        started = time.perf_counter()
        outputs = runtime.predict(inputs)
        execution_s = time.perf_counter() - started
        arrays = checked_outputs(outputs, signature, batch.rows if signature.batched else None)
        batch.finish(arrays, execution_s)
    except InvalidInput as fault:
        batch.fail("InvalidInput", str(fault), traceback.format_exc())
    except InferdError as fault:
        batch.fail("ModelFailed", str(fault), traceback.format_exc())
    except (Exception, SystemExit) as fault:  # noqa: BLE001 (a model's error fails its batch, never the worker)
        # The text of a foreign exception may hold data of another request or a path: the class must do.
        batch.fail("ModelFailed", f"the model raised {type(fault).__name__}", traceback.format_exc())


def _load_message(fault: BaseException) -> str:
    if isinstance(fault, InferdError):
        return str(fault)
    return f"loading raised {type(fault).__name__}: {fault}"
