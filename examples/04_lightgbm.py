"""LightGBM: serve its own text file."""

import lightgbm
import numpy as np

import data
import inferd

split = data.breast_cancer()
rows = lightgbm.Dataset(split.train_x, split.train_y)
trained = lightgbm.train({"objective": "binary", "verbose": -1}, rows, 50)
trained.save_model("cancer.txt")

with inferd.Server("cancer.txt", slo="20ms") as server, inferd.Client(server.url) as client:
    print(server.models[0].facts["faster"])
    found = client.infer("cancer", split.test_x)["prediction"]
    assert np.abs(found - trained.predict(split.test_x)).max() < 1e-5
    print(f"accuracy {np.mean((found > 0.5) == split.test_y):.3f}")
