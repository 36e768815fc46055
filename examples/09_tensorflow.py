"""TensorFlow and Keras: serve a SavedModel, or a ``.keras`` file."""

import keras
import numpy as np

import data
import inferd

split = data.breast_cancer()
normalize = keras.layers.Normalization()
normalize.adapt(split.train_x)
x = keras.Input((30,), name="x")
probability = keras.layers.Dense(1, "sigmoid", name="probability")(normalize(x))
model = keras.Model(x, probability)
model.compile("adam", "binary_crossentropy")
model.fit(split.train_x, split.train_y, epochs=30, verbose=0)
model.save("cancer.keras")
model.export("cancer", verbose=False)

for path in ("cancer.keras", "cancer"):
    with inferd.Server(path, slo="20ms") as server, inferd.Client(server.url) as client:
        (output,) = client.infer("cancer", split.test_x).outputs.values()
        assert np.abs(output - model.predict(split.test_x, verbose=0)).max() < 1e-5
        print(f"{path}: accuracy {np.mean((output[:, 0] > 0.5) == split.test_y):.3f}")
