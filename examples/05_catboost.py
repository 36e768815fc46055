"""CatBoost: categories are text, and every feature is an input, so that a data frame can be sent."""

import numpy as np
import pandas as pd
from catboost import CatBoostClassifier

import inferd

random = np.random.default_rng(0)
frame = pd.DataFrame({"city": random.choice(["Oslo", "Rome", "Lima"], 600), "age": random.uniform(18, 90, 600)})
risk = (frame["city"] == "Rome") ^ (frame["age"] > 60)
trained = CatBoostClassifier(iterations=60, verbose=0, cat_features=["city"], allow_writing_files=False)
trained.fit(frame[:400], risk[:400].astype(int))
trained.save_model("risk.cbm")

with inferd.Server("risk.cbm", slo="20ms") as server, inferd.Client(server.url) as client:
    print(*server.models[0].signature.inputs, sep=", ")
    found = client.infer("risk", frame[400:])
    assert (found["label"] == trained.predict(frame[400:])).all()
    print(f"accuracy {np.mean(found['label'] == risk[400:]):.3f}")
