"""mosec: preprocess → model → postprocess, each stage a worker that batches, between them pickled arrays."""

import json
import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

# 1: no batching, which is best for a single connection. In trials of 1, 2 and 5 ms, a wait of 1 was best otherwise.
ROWS_MAX, WAIT_MS = int(os.environ["ROWS_MAX"]), 1


class Preprocess(Worker):
    def deserialize(self, data: bytes):
        return json.loads(data)

    def forward(self, data):
        if ROWS_MAX == 1:
            return np.clip(np.asarray(data, np.float32).reshape(-1), -1e6, 1e6)
        return list(np.clip(np.asarray(data, np.float32).reshape(len(data), -1), -1e6, 1e6))


class Predict(Worker):
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def forward(self, data):
        if ROWS_MAX == 1:
            return self.session.run(["y"], {"x": data[None]})[0][0]
        return list(self.session.run(["y"], {"x": np.stack(data)})[0])


class Postprocess(Worker):
    def forward(self, data):
        return np.clip(data if ROWS_MAX == 1 else np.stack(data), -1e6, 1e6).tolist()

    def serialize(self, data) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    for stage in (Preprocess, Predict, Postprocess):
        if ROWS_MAX == 1:
            server.append_worker(stage, num=1)
        else:
            server.append_worker(stage, num=1, max_batch_size=ROWS_MAX, max_wait_time=WAIT_MS)
    server.run()
