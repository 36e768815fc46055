"""LiteRT: serve a ``.tflite`` file. Usually TensorFlow converts to it; here the schema that ships with LiteRT writes
it, from the weights of a trained model.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from sklearn.linear_model import LogisticRegression

import data
import inferd

split = data.breast_cancer()
columns = split.train_x.shape[1]
trained = LogisticRegression(max_iter=5000).fit(split.train_x, split.train_y)


def made(kind, **fields):
    one = kind()
    for name, value in fields.items():
        setattr(one, name, value)
    return one


def tensor(name, shape, buffer):
    return made(schema.TensorT, name=name, shape=shape, buffer=buffer, type=schema.TensorType.FLOAT32)


def operator(builtin):
    return made(schema.OperatorCodeT, builtinCode=builtin, deprecatedBuiltinCode=builtin, version=1)


def constant(values):
    return made(schema.BufferT, data=list(values.astype(np.float32).tobytes()))


dense = made(
    schema.OperatorT,
    opcodeIndex=0,
    inputs=[0, 1, 2],
    outputs=[3],
    builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
    builtinOptions=schema.FullyConnectedOptionsT(),
)
sigmoid = made(schema.OperatorT, opcodeIndex=1, inputs=[3], outputs=[4])
graph = made(
    schema.SubGraphT,
    tensors=[
        tensor("x", [1, columns], 0),
        tensor("weights", [1, columns], 1),
        tensor("bias", [1], 2),
        tensor("logit", [1, 1], 0),
        tensor("probability", [1, 1], 0),
    ],
    inputs=[0],
    outputs=[4],
    operators=[dense, sigmoid],
)
model = made(
    schema.ModelT,
    version=3,
    subgraphs=[graph],
    operatorCodes=[operator(schema.BuiltinOperator.FULLY_CONNECTED), operator(schema.BuiltinOperator.LOGISTIC)],
    buffers=[schema.BufferT(), constant(trained.coef_), constant(trained.intercept_)],
)
builder = flatbuffers.Builder(1024)
builder.Finish(model.Pack(builder), b"TFL3")
with open("cancer.tflite", "wb") as file:
    file.write(builder.Output())

with inferd.Server("cancer.tflite", slo="20ms") as server, inferd.Client(server.url) as client:
    # The file has a batch dimension of 1; requests of several rows are served all the same.
    print(*server.models[0].signature.inputs, server.models[0].facts["runtime"])
    found = client.infer("cancer", split.test_x)["probability"][:, 0]
    assert np.abs(found - trained.predict_proba(split.test_x)[:, 1]).max() < 1e-4
    print(f"accuracy {np.mean((found > 0.5) == split.test_y):.3f}")
