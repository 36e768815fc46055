"""LitServe: decode, predict in batches, encode, as its documents show."""

import os
import sys

import litserve
import numpy as np
import onnxruntime


class Hooks(litserve.LitAPI):
    def setup(self, device) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.clip(np.asarray(request, np.float32).reshape(-1), -1e6, 1e6)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.session.run(["y"], {"x": x})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return np.clip(output, -1e6, 1e6).tolist()


if __name__ == "__main__":
    api = Hooks(max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="warning")
