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
    "half", "BYTES", "free", "texts", "scalar", "two", "long", "strict", "taking", "numbers", "words",
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
    plain_values()
    worker_frames()


def plain_values() -> None:
    """Plain JSON for models of tables: rows by position and by column, with values that are missing."""
    seeds = {
        "strict": ['{"age":1,"income":2,"id":3}', '[{"income":2,"age":1},{"age":3,"income":null}]', "[[1,null]]"],
        "taking": ['["a",null]', '{"instances":["a",null]}', "null"],
        "numbers": ['{"age":[1,null],"income":[2,3]}', '{"instances":[{"age":1,"income":2}]}', '{"x":[1,2]}'],
        "words": ['[{"age":"a","income":{"b64":"YQ=="}}]', '[["a",null]]'],
    }
    folder = HERE / "corpus" / "rest_body"
    folder.mkdir(parents=True, exist_ok=True)
    for name, bodies in seeds.items():
        for number, body in enumerate(bodies):
            (folder / f"plain-{name}-{number}").write_bytes(bytes([SIGNATURES.index(name)]) + body.encode())


def worker_frames() -> None:
    """Control messages behind an even byte; behind an odd one the rows and a descriptor (see ``descriptor.rs``)."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    signature = {"inputs": [tensor], "outputs": [tensor], "batching": {"off": {"reason": "told so"}}}
    schema = {"input": "x", "columns": ["a", "b", "c"], "missing": True, "largest": 1.5}
    extras = {"schemas": [schema], "ignored_columns": ["d"]}
    frames = [
        {"loaded": {"signature": signature, "facts": {"runtime": "none"}}},
        {"loaded": {"signature": {**signature, "extras": extras}}},
        {"failed": {"message": "no such file", "detail": "line 7"}},
        {"room": {"slot": 1, "generation": 7, "bytes": 4096}},
    ]
    seeds = [b"\0" + json.dumps(frame).encode() for frame in frames]
    # Two rows of three elements, 640 bytes into the arena, of each datatype that has a fixed size.
    for choice, size in enumerate([1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2]):
        descriptor = struct.pack("<IIIIQQ8Q", choice + 1, 2, 0, 0, 640, 6 * size, 2, 3, 0, 0, 0, 0, 0, 0)
        seeds.append(bytes([2 * choice + 1, 2]) + descriptor)
    folder = HERE / "corpus" / "worker_frames"
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"sample-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
