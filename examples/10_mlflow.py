"""MLflow: serve a model folder as it was logged. Its content decides which library runs it."""

import mlflow.xgboost
import numpy as np
import xgboost

import data
import inferd

split = data.breast_cancer()
trained = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(split.train_x, split.train_y), 50)
mlflow.xgboost.save_model(trained, "cancer", model_format="json")

with inferd.Server("cancer", slo="20ms") as server, inferd.Client(server.url) as client:
    print(server.models[0].facts["faster"])
    found = client.infer("cancer", split.test_x)["prediction"]
    assert np.abs(found - trained.inplace_predict(split.test_x)).max() < 1e-5
    print(f"accuracy {np.mean((found > 0.5) == split.test_y):.3f}")
