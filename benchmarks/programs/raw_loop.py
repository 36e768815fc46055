"""The limit: ONNX Runtime on one thread, the same batch again and again, nothing else.

    python raw_loop.py MODEL.onnx BATCH SECONDS

Prints as JSON how many rows a second went through, and the median seconds of one run.
"""

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    path, batch, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [model_input] = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]
    feed = {model_input.name: np.random.default_rng(7).normal(size=(batch, *model_input.shape[1:])).astype(np.float32)}
    for _ in range(5):
        session.run(outputs, feed)
    runs: list[float] = []
    begin = last = time.perf_counter()
    cpu = time.process_time()
    while last - begin < seconds:
        session.run(outputs, feed)
        now = time.perf_counter()
        runs.append(now - last)
        last = now
    print(
        json.dumps(
            {
                "rows_per_s": len(runs) * batch / (last - begin),
                "p50_s": statistics.median(runs),
                "cpu_per_row_s": (time.process_time() - cpu) / (len(runs) * batch),
            }
        )
    )


main()
