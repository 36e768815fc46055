"""OpenVINO: serve a network in its intermediate representation, here built from the weights of a trained model."""

import numpy as np
import openvino
from openvino import opset13
from sklearn.linear_model import LogisticRegression

import data
import inferd

split = data.breast_cancer()
trained = LogisticRegression(max_iter=5000).fit(split.train_x, split.train_y)

x = opset13.parameter([-1, split.train_x.shape[1]], np.float32, name="x")
logits = opset13.add(
    opset13.matmul(x, trained.coef_.T.astype(np.float32), False, False), trained.intercept_.astype(np.float32)
)
probability = opset13.sigmoid(logits)
x.output(0).set_names({"x"})
probability.output(0).set_names({"probability"})
openvino.save_model(openvino.Model([probability], [x], "cancer"), "cancer.xml", compress_to_fp16=False)

with inferd.Server("cancer.xml", slo="20ms") as server, inferd.Client(server.url) as client:
    print(server.models[0].facts["runtime"])
    found = client.infer("cancer", split.test_x)["probability"][:, 0]
    assert np.abs(found - trained.predict_proba(split.test_x)[:, 1]).max() < 1e-4
    print(f"accuracy {np.mean((found > 0.5) == split.test_y):.3f}")
