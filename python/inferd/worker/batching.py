"""Decide whether requests may share a run of the model.

Reads a runtime and its settings, hands on the signature with the verdict: the decision's source and reason. Knows
nothing of channels and of how batches are assembled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.errors import InferdError
from inferd.runtimes.base import Streaming
from inferd.types import Signature, Verdict
from inferd.worker.probe import Bounds, NotIndependent, Undecided, probe

if TYPE_CHECKING:
    from inferd.runtimes.base import Runtime

__all__ = ["decide_batching"]


def decide_batching(runtime: Runtime, load: dict[str, Any]) -> Signature:
    """Return the runtime's signature, batched only if batched rows equal rows run alone.

    Args:
        runtime: the loaded model.
        load: its settings: ``batching``, ``batch_rows_max``, ``tolerance``; optional: ``repeatable`` (whether extra
            runs of the model are allowed), ``samples`` (warm-up requests) and ``runtime``.
    """
    signature = runtime.signature
    streams = isinstance(runtime, Streaming) and runtime.streams
    batched, verdict = (False, Verdict("shapes", "it streams")) if streams else _decide(runtime, load)
    off = None if batched else verdict.why
    return Signature(signature.inputs, signature.outputs, off, decoupled=streams, verdict=verdict)


def _decide(runtime: Runtime, load: dict[str, Any]) -> tuple[bool, Verdict]:
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
    return _probe(runtime, load)


def _probe(runtime: Runtime, load: dict[str, Any]) -> tuple[bool, Verdict]:
    once = not load.get("repeatable", True)
    # Only Python reliably raises an exception for an index beyond a vocabulary; libraries may crash.
    unbounded = load.get("runtime", "python") == "python"
    try:
        samples = load.get("samples", ())
        bounds = Bounds(load["batch_rows_max"], load["tolerance"], samples, once=once, unbounded=unbounded)
        found = probe(runtime, bounds)
    except Undecided as finding:
        # With batching: verify, live rows decide instead.
        return load["batching"] == "verify", Verdict("probe", str(finding))
    except NotIndependent as finding:
        return False, Verdict("probe", str(finding))
    except Exception as fault:  # noqa: BLE001 (a model may raise anything on generated input)
        message = f" ({str(fault).partition(chr(10))[0]})" if isinstance(fault, InferdError) else ""
        return load["batching"] == "verify", Verdict(
            "probe",
            f"the probe failed with {type(fault).__name__}{message}; give the class an example, or set batching: on",
        )
    why = f"each of {found.rows} rows gave in {found.batches} batches what it gave alone (a probe, no proof"
    return True, Verdict("probe", f"{why}; {found.incomplete})" if found.incomplete else f"{why})", found.rows)
