"""mosec: preprocess → model → postprocess, each stage a worker that batches, between them pickled arrays."""

import json
import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

ROWS_MAX, WAIT_MS = 32, 1


class Preprocess(Worker):
    def deserialize(self, data: bytes):
        return json.loads(data)

    def forward(self, data):
        return list(np.clip(np.asarray(data, np.float32).reshape(len(data), -1), -1e6, 1e6))


class Predict(Worker):
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def forward(self, data):
        return list(self.session.run(["y"], {"x": np.stack(data)})[0])


class Postprocess(Worker):
    def forward(self, data):
        return np.clip(np.stack(data), -1e6, 1e6).tolist()

    def serialize(self, data) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    for stage in (Preprocess, Predict, Postprocess):
        server.append_worker(stage, num=1, max_batch_size=ROWS_MAX, max_wait_time=WAIT_MS)
    server.run()
