"""The conversion process: a request on stdin, a verdict on stdout.

Reads and writes JSON. Knows nothing of how models are converted; a failure there is a verdict too.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from pathlib import Path

import msgspec

from inferd.errors import InferdError
from inferd.runtimes.faster import Verdict
from inferd.runtimes.faster.verdict import try_onnx

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve one request."""
    # A conversion takes minutes and cores. It ends with the thread that started it, which waits for it.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    request = json.load(sys.stdin)
    # Libraries print to the log; stdout carries only the verdict.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        verdict = try_onnx(request["load"], Path(request["folder"]), request["tolerance"])
    except (OSError, MemoryError):
        # Transient, not the model's fault.
        raise
    except Exception as fault:  # noqa: BLE001 (converters raise anything; the library still serves)
        message = str(fault) if isinstance(fault, InferdError) else f"{type(fault).__name__}: {fault}"
        verdict = Verdict("library", f"it can't be converted to ONNX ({' '.join(message.split())[:200]})")
    answer.write(msgspec.json.encode(verdict).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
