"""Python before and after a tiny ONNX model: what the hooks of every server here do."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape


class Hooks(Model):
    def preprocess(self, x: Annotated[NDArray[np.float32], Shape(4)]) -> NDArray[np.float32]:
        return np.clip(x, -1e6, 1e6)

    def load(self, file: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def predict(self, clipped: Annotated[NDArray[np.float32], Shape(4)]) -> NDArray[np.float32]:
        return self.session.run(["y"], {"x": clipped})[0]

    def postprocess(self, scores: Annotated[NDArray[np.float32], Shape(3)]) -> Annotated[NDArray[np.float32], Shape(3)]:
        return np.clip(scores, -1e6, 1e6)
