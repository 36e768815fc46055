"""FastAPI and ONNX Runtime, as a careful user writes it: one process, no thread hop, the body read once.

MODEL=model.onnx uvicorn fastapi_app:app
"""

import json
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
[model_input] = session.get_inputs()
output = session.get_outputs()[0].name
shape = [-1, *model_input.shape[1:]]
app = FastAPI()


@app.post("/infer")
async def infer(request: Request) -> Response:
    """A list of numbers in, a list of numbers out. Runs in the event loop: with one core a thread only costs."""
    row = np.asarray(json.loads(await request.body()), np.float32).reshape(shape)
    answer = session.run([output], {model_input.name: row})[0][0]
    return Response(json.dumps(answer.tolist()), media_type="application/json")
