"""Prints, as JSON, rows for a model and what ONNX Runtime answers to each: what every server is checked against.

python reference.py MODEL.onnx ROWS
"""

import json
import sys

import numpy as np
import onnxruntime

TYPES = {
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(int64)": ("INT64", np.int64),
}


def main() -> None:
    path, rows = sys.argv[1], int(sys.argv[2])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [model_input] = session.get_inputs()
    datatype, dtype = TYPES[model_input.type]
    # Values with few digits: what a client would send, and the same text for every server.
    numbers = np.random.default_rng(7).normal(size=(rows, *model_input.shape[1:])).round(3)
    values = numbers.astype(dtype)
    name = session.get_outputs()[0].name
    answers = [session.run([name], {model_input.name: values[i : i + 1]})[0].tolist()[0] for i in range(rows)]
    json.dump(
        {
            "input": model_input.name,
            "datatype": datatype,
            "shape": list(model_input.shape[1:]),
            "output": name,
            "rows": numbers.reshape(rows, -1).tolist(),
            "answers": answers,
        },
        sys.stdout,
    )


main()
