"""Decides whether requests may share a run of the model: batching must be earned.

Reads a runtime and its settings, hands on the signature with the verdict: who decided, and why. Knows nothing of
channels, and not how rows are run together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.errors import InferdError
from inferd.runtimes.base import Streaming
from inferd.types import Signature, Verdict
from inferd.worker.probe import Bounds, NotIndependent, Undecided, probe

if TYPE_CHECKING:
    from inferd.runtimes.base import Runtime

__all__ = ["earned_signature"]


def earned_signature(runtime: Runtime, load: dict[str, Any]) -> Signature:
    """The runtime's signature, batched only where batched rows equal lone rows.

    Args:
        runtime: the loaded model.
        load: its settings: ``batching``, ``batch_rows_max``, ``tolerance``; ``repeatable``: whether the model may run
            more often than it is asked, ``samples`` of the warm-up and ``runtime``, where they are there.
    """
    signature = runtime.signature
    streams = isinstance(runtime, Streaming) and runtime.streams
    earned, verdict = (False, Verdict("shapes", "it streams")) if streams else _decided(runtime, load)
    off = None if earned else verdict.why
    return Signature(signature.inputs, signature.outputs, off, decoupled=streams, verdict=verdict)


def _decided(runtime: Runtime, load: dict[str, Any]) -> tuple[bool, Verdict]:
    if load["batching"] == "on":
        return True, Verdict("setting", "batching: on")
    if load["batching"] == "off":
        return False, Verdict("setting", "batching: off")
    if load["batch_rows_max"] == 1:
        return False, Verdict("setting", "batch_rows_max is 1")
    for spec in (*runtime.signature.inputs, *runtime.signature.outputs):
        if not spec.shape or spec.shape[0] != -1:
            return False, Verdict("shapes", f"dimension 0 of '{spec.name}' is fixed")
    proof = getattr(runtime, "independent", None)
    if proof is not None:
        return True, Verdict("analysis", proof)
    return _probed(runtime, load)


def _probed(runtime: Runtime, load: dict[str, Any]) -> tuple[bool, Verdict]:
    once = not load.get("repeatable", True)
    # Only Python answers an index beyond a vocabulary with an exception for certain.
    wild = load.get("runtime", "python") == "python"
    try:
        samples = load.get("samples", ())
        bounds = Bounds(load["batch_rows_max"], load["tolerance"], samples, once=once, wild=wild)
        found = probe(runtime, bounds)
    except Undecided as finding:
        # Requests that come may decide what made-up rows do not.
        return load["batching"] == "verify", Verdict("probe", str(finding))
    except NotIndependent as finding:
        return False, Verdict("probe", str(finding))
    except Exception as fault:  # noqa: BLE001 (whatever a model raises on made-up input says that it can't be probed)
        said = f" ({str(fault).partition(chr(10))[0]})" if isinstance(fault, InferdError) else ""
        return load["batching"] == "verify", Verdict(
            "probe",
            f"the probe failed with {type(fault).__name__}{said}; give the class an example, or set batching: on",
        )
    why = f"each of {found.rows} rows gave in {found.companies} batches what it gave alone (a probe, no proof"
    return True, Verdict("probe", f"{why}; {found.short})" if found.short else f"{why})", found.rows)
