"""A Python class, typed by its annotations, with pre- and postprocessing in separate workers."""

from typing import Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import data
import inferd


class Verdict(TypedDict):
    """The outputs."""

    verdict: list[str]
    sure: list[float]


class Cancer(inferd.Model):
    """Takes measurements as JSON objects, returns a word."""

    def preprocess(self, patient: list[dict]) -> list:
        for row, one in enumerate(patient):
            if len(one.get("measurements", ())) != 30:
                raise inferd.InvalidInput("30 measurements are needed", row=row)
        return [one["measurements"] for one in patient]

    def load(self) -> None:
        split = data.breast_cancer()
        self.model = LogisticRegression(max_iter=5000).fit(split.train_x, split.train_y)

    def predict(self, x: Annotated[NDArray[np.float32], inferd.Shape(30)]) -> NDArray[np.float64]:
        return self.model.predict_proba(x)

    def postprocess(self, scores: Annotated[NDArray[np.float64], inferd.Shape(2)]) -> Verdict:
        return {
            "verdict": ["benign" if row[1] > 0.5 else "malignant" for row in scores],
            "sure": [float(row.max()) for row in scores],
        }


if __name__ == "__main__":
    import json

    split = data.breast_cancer()
    patients = [json.dumps({"measurements": row.tolist()}) for row in split.test_x[:20]]
    with inferd.Server(__file__, name="cancer", slo="50ms") as server, inferd.Client(server.url) as client:
        found = client.infer("cancer", patients)
        print(found["verdict"][:5], found["sure"][:5])
        try:
            client.infer("cancer", [patients[0], "{}"])
        except inferd.InvalidInput as error:
            print(error)
