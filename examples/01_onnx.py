"""ONNX: train with scikit-learn, convert, serve. Python is not in the path of a request."""

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

import data
import inferd

split = data.breast_cancer()
trained = LogisticRegression(max_iter=5000).fit(split.train_x, split.train_y)
model = to_onnx(trained, split.train_x[:1], options={"zipmap": False})
with open("cancer.onnx", "wb") as file:
    file.write(model.SerializeToString())

with inferd.Server("cancer.onnx", slo="20ms") as server, inferd.Client(server.url) as client:
    found = client.infer("cancer", split.test_x)
    print(f"accuracy {np.mean(found['label'] == split.test_y):.3f} on {len(split.test_y)} rows")
    assert np.abs(found["probabilities"] - trained.predict_proba(split.test_x)).max() < 1e-4
