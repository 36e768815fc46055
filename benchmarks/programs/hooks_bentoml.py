"""BentoML: hooks in a service that calls a batched one, as its documents show."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Predict:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def run(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["y"], {"x": x})[0]


@bentoml.service(workers=1)
class Hooks:
    model = bentoml.depends(Predict)

    @bentoml.api
    async def infer(self, row: list[float]) -> list[float]:
        x = np.clip(np.asarray(row, np.float32).reshape(1, -1), -1e6, 1e6)
        scores = await self.model.to_async.run(x)
        return np.clip(scores[0], -1e6, 1e6).tolist()
