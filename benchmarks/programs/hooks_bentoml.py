"""BentoML: preprocess → model → postprocess in one batched method, which serves more than a service for each stage."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 60})
class Hooks:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def infer(self, rows: np.ndarray) -> np.ndarray:
        x = np.clip(rows.astype(np.float32), -1e6, 1e6)
        return np.clip(self.session.run(["y"], {"x": x})[0], -1e6, 1e6)
