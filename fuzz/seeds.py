"""Writes the corpus of each fuzz target from the wire samples: ``fuzz/corpus/<target>/<number>``.

The first byte of a seed chooses the signature; ``SIGNATURES`` in ``fuzz/src/lib.rs`` has the same order.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
WIRE = HERE.parent / "tests" / "wire"
SIGNATURES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
    "half", "BYTES", "free", "texts", "scalar", "two",
]  # fmt: skip


def main() -> None:
    for file in ["rest_requests", "grpc_requests"]:
        samples = json.loads((WIRE / f"{file}.json").read_text(encoding="utf-8"))["samples"]
        for number, sample in enumerate(samples):
            choice = bytes([SIGNATURES.index(sample["signature"])])
            body = sample["body"].encode() if "body" in sample else base64.b64decode(sample["body_base64"])
            length = sample.get("header_length")
            if file == "grpc_requests":
                target = "grpc_infer"
            elif length is None:
                target = "rest_body"
            else:
                target, body = "binary_header", struct.pack("<H", length) + body
            folder = HERE / "corpus" / target
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"sample-{number:03}").write_bytes(choice + body)


if __name__ == "__main__":
    main()
