"""mosec serving an ONNX file: dynamic batching, one worker, arrays of numbers as JSON or raw bytes.

MODEL=model.onnx python mosec_app.py --port 8000 …
"""

import json
import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

BATCH_ROWS_MAX = int(os.environ.get("ROWS_MAX", "32"))
# In milliseconds. In trials of 1, 2 and 5 with this model and the MLP, 1 was best or level everywhere; 0 stands for no
# batching at all, which is best for a single connection.
WAIT_MS = int(os.environ.get("WAIT_MS", "1"))
RAW = os.environ.get("RAW") == "1"
if os.environ.get("JSON") == "msgspec":
    import msgspec

    loads, dumps = msgspec.json.Decoder(list[float]).decode, msgspec.json.encode
else:
    loads, dumps = json.loads, lambda data: json.dumps(data).encode()


class Model(Worker):
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        [model_input] = self.session.get_inputs()
        self.input = model_input.name
        self.shape = [-1, *model_input.shape[1:]]
        self.output = self.session.get_outputs()[0].name

    def deserialize(self, data: bytes):
        return np.frombuffer(data, np.float32) if RAW else loads(data)

    def serialize(self, data) -> bytes:
        return data.tobytes() if RAW else dumps(data)

    def forward(self, data):
        # mosec hands over a list of requests where batching is on, one request where it is off.
        return self.run([data])[0] if WAIT_MS == 0 else self.run(data)

    def run(self, rows):
        batch = np.asarray(rows, np.float32).reshape(self.shape)
        answers = self.session.run([self.output], {self.input: batch})[0]
        return list(answers) if RAW else answers.tolist()


if __name__ == "__main__":
    server = Server()
    if WAIT_MS == 0:
        server.append_worker(Model, num=1)
    else:
        server.append_worker(Model, num=1, max_batch_size=BATCH_ROWS_MAX, max_wait_time=WAIT_MS)
    server.run()
