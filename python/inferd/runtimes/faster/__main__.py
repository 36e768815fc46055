"""The process that converts one model: a request on stdin, a verdict on stdout.

Knows nothing of how it is decided; whatever goes wrong there is a verdict, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from inferd.errors import InferdError
from inferd.runtimes.faster import Verdict
from inferd.runtimes.faster.verdict import try_onnx


def main() -> int:
    """Serve the one request."""
    request = json.load(sys.stdin)
    # What libraries print belongs into the log; stdout has the verdict alone.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        verdict = try_onnx(request["load"], Path(request["folder"]), request["tolerance"])
    except (OSError, MemoryError):
        # Not the model's fault: it may go well another time.
        raise
    except Exception as fault:  # noqa: BLE001 (converters raise anything; the library still serves)
        message = str(fault) if isinstance(fault, InferdError) else f"{type(fault).__name__}: {fault}"
        verdict = Verdict("library", f"it can't be converted to ONNX ({' '.join(message.split())[:200]})")
    answer.write(msgspec.json.encode(verdict).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
