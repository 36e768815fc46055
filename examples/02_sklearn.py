"""scikit-learn: save with skops, serve. Where ONNX gives the same outputs faster, it is served from ONNX."""

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier

import data
import inferd

split = data.breast_cancer()
trained = RandomForestClassifier(100, random_state=0).fit(split.train_x, split.train_y)
skops.io.dump(trained, "forest.skops")

with inferd.Server("forest.skops", slo="20ms") as server, inferd.Client(server.url) as client:
    print(server.models[0].facts["faster"])
    found = client.infer("forest", split.test_x)
    assert (found["label"] == trained.predict(split.test_x)).all()
    print(f"accuracy {np.mean(found['label'] == split.test_y):.3f}")
