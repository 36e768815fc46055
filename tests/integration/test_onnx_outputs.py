"""Outputs of ONNX models that are no tensors: what ONNX Runtime answers in this process is what clients get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import inferd
from inferd.cli import explain
from outside.clients import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from outside.process import Inferd

# Of the converters.
pytestmark = pytest.mark.filterwarnings("ignore")
X, NUMBERS = load_iris(return_X_y=True)
X = X.astype(np.float32)
TEXTS = np.array(["setosa", "versicolor", "é, virginica"])[NUMBERS]
CLASSES = {
    "numbers": NUMBERS,
    "texts": TEXTS,
    "two_numbers": np.where(NUMBERS == 1, 7, -2),
    "two_texts": np.where(NUMBERS == 1, "yes", "no"),
}
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "logistic": LogisticRegression,
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=10),
    "bayes": GaussianNB,
    "neighbours": lambda: KNeighborsClassifier(3),
    "descent": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "vectors": lambda: SVC(probability=True, random_state=0),
}
FITTED = [f"{estimator}_{classes}" for estimator in ("logistic", "forest") for classes in CLASSES] + [
    f"{estimator}_texts" for estimator in ESTIMATORS if estimator not in ("logistic", "forest")
]


def lightgbm(path: Path) -> None:
    """A classifier as onnxmltools converts it."""
    import lightgbm

    fitted = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, NUMBERS)
    onnx.save(convert_lightgbm(fitted, initial_types=[("x", FloatTensorType([None, 4]))], target_opset=15), path)


def catboost(path: Path) -> None:
    """A classifier as CatBoost itself exports it."""
    from catboost import CatBoostClassifier

    fitted = CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False, thread_count=1).fit(X, TEXTS)
    fitted.save_model(str(path), format="onnx")


EXPORTED = {"lightgbm": lightgbm, "catboost": catboost}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for name in FITTED:
        estimator, _, classes = name.partition("_")
        fitted = ESTIMATORS[estimator]().fit(X, CLASSES[classes])
        (folder / f"{name}.onnx").write_bytes(to_onnx(fitted, X[:1]).SerializeToString())
    for name, export in EXPORTED.items():
        export(folder / f"{name}.onnx")
    both = MultiOutputClassifier(LogisticRegression()).fit(X, np.stack([NUMBERS, NUMBERS == 1], 1))
    (folder / "multi_output.onnx").write_bytes(to_onnx(both, X[:1]).SerializeToString())
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[inferd.Server]:
    with inferd.Server(*sorted(folder.glob("*.onnx")), threads=1, profiling=False, warmup=False) as server:
        yield server


class Truth:
    """What ONNX Runtime answers in this process, maps as the columns of their keys."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.input = session.get_inputs()[0].name
        names = [output.name for output in session.get_outputs()]
        self.outputs: dict[str, np.ndarray] = {}
        self.labels: dict[str, list[str]] = {}
        for name, found in zip(names, session.run(None, {self.input: rows}), strict=True):
            if not isinstance(found, list):
                self.outputs[name] = found
            elif isinstance(found[0], dict):
                # A map has an order of its own: texts come sorted. The file has the order of the columns.
                self.labels[name] = keys(path, name)
                by_text = [{str(key): value for key, value in one.items()} for one in found]
                columns = [[one[key] for key in self.labels[name]] for one in by_text]
                self.outputs[name] = np.array(columns, np.float32)
            else:
                self.outputs |= {f"{name}_{part}": array for part, array in enumerate(found)}


def keys(path: Path, name: str) -> list[str]:
    node = next(node for node in onnx.load(path).graph.node if name in node.output)
    (attribute,) = node.attribute
    return [str(key.decode() if isinstance(key, bytes) else key) for key in helper.get_attribute_value(attribute)]


def plain(array: np.ndarray) -> Any:
    return [one.decode() if isinstance(one, bytes) else one for one in array.tolist()]


@pytest.mark.parametrize("name", [*FITTED, *EXPORTED, "multi_output"])
def test_every_output_is_what_the_runtime_answers(server: inferd.Server, folder: Path, name: str) -> None:
    rows = X[::3]
    truth = Truth(folder / f"{name}.onnx", rows)
    served = next(model for model in server.models if model.name == name)
    assert [spec.name for spec in served.signature.outputs] == list(truth.outputs)
    assert "left_out" not in served.facts

    body = {"name": truth.input, "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    answer = httpx.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": [body]}, timeout=30).json()
    by_json = {one["name"]: (one["shape"], one["data"]) for one in answer["outputs"]}
    by_model = httpx.post(f"{server.url}/models/{name}", json=rows.tolist(), timeout=30).json()
    for output, wanted in truth.outputs.items():
        shape, data = by_json[output]
        assert shape == list(wanted.shape)
        assert np.array(data, wanted.dtype).tolist() == wanted.ravel().tolist()
        assert np.array(by_model[output], wanted.dtype).tolist() == wanted.tolist()
    for kind in ("http", "grpc"):
        with Client(kind, server.address) as client:
            found = client.infer(name, [client.input(truth.input, rows, "FP32")])
            for output, wanted in truth.outputs.items():
                array = found.as_numpy(output)
                assert array.shape == wanted.shape
                assert plain(array) == wanted.tolist()


@pytest.mark.parametrize("name", [*FITTED, *EXPORTED])
def test_the_keys_of_a_map_are_the_names_of_classes(server: inferd.Server, folder: Path, name: str) -> None:
    truth = Truth(folder / f"{name}.onnx", X[:5])
    ((output, labels),) = truth.labels.items()
    config = httpx.get(f"{server.url}/v2/models/{name}/config", timeout=30).json()
    assert config["parameters"]["labels"]["string_value"] == f"'{output}': {', '.join(labels)}"
    with Client("grpc", server.address) as client:
        wanted = [client.output(output, class_count=2)]
        # A model whose rows run apart has one set of scores for each request.
        for row in range(5):
            given = [client.input(truth.input, X[row : row + 1], "FP32")]
            best = client.infer(name, given, outputs=wanted).as_numpy(output).ravel()[0].decode()
            scores = truth.outputs[output][row]
            value, place, label = best.split(":", 2)
            assert abs(float(value) - scores.max()) < 1e-5
            assert label == labels[int(place)]
            assert int(place) == int(scores.argmax())


@pytest.mark.parametrize("name", ["pipeline_texts", "logistic_numbers"])
def test_no_rows_have_outputs_without_rows(server: inferd.Server, folder: Path, name: str) -> None:
    truth = Truth(folder / f"{name}.onnx", X[:1])
    with Client("http", server.address) as client:
        found = client.infer(name, [client.input(truth.input, X[:0], "FP32")])
        for output, one_row in truth.outputs.items():
            assert found.as_numpy(output).shape == (0, *one_row.shape[1:])


def test_names_that_are_set_stand_above_the_keys(folder: Path) -> None:
    path = folder / "logistic_numbers.onnx"
    settings = {"labels": {"output_probability": ["a", "b", "c"]}}
    with (
        inferd.Server(path, threads=1, profiling=False, **settings) as server,
        Client("http", server.address) as client,
    ):
        given = [client.input("X", X[:1], "FP32")]
        wanted = [client.output("output_probability", class_count=1)]
        answer = client.infer("logistic_numbers", given, outputs=wanted)
        assert answer.as_numpy("output_probability").ravel()[0].endswith(b":0:a")


def test_a_dictionary_is_sent_as_the_columns_of_its_keys(tmp_path: Path) -> None:
    dictionaries = [{"age": 3.0, "city=Rome": 1.0}, {"city=Oslo": 1.0}, {"age": -4.5}]
    keys = ["age", "city=Oslo", "city=Rome"]
    node = helper.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=keys)
    kind = onnx.TypeProto()
    kind.map_type.key_type = TensorProto.STRING
    kind.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    path = save(tmp_path / "dictionary.onnx", [node], [helper.make_value_info("x", kind)], [y])
    session = onnxruntime.InferenceSession(path)
    wanted = [session.run(None, {"x": one})[0][0].tolist() for one in dictionaries]
    assert wanted == DictVectorizer(sparse=False).fit(dictionaries).transform(dictionaries).tolist()
    rows = [[one.get(key, 0.0) for key in keys] for one in dictionaries]
    with inferd.Server(path, threads=1, profiling=False) as server:
        assert httpx.post(f"{server.url}/models/dictionary", json=rows, timeout=30).json() == wanted


def test_what_is_left_out_is_said_in_table_log_metadata_and_explain(
    tmp_path: Path, serve: Callable[..., Inferd]
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y"))
    pieces = helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("SplitToSequence", ["x"], ["pieces"])]
    path = save(tmp_path / "partly.onnx", nodes, [x], [y, pieces])
    said = "'pieces' (a sequence of tensors, whose number is not fixed)"
    with serve(path) as server:
        config = httpx.get(f"http://{server.address}/v2/models/partly/config", timeout=30).json()
        assert config["parameters"]["left_out"]["string_value"] == said
        assert f"note: model 'partly' 1: clients don't see {said}" in server.output()
        line = next(line for line in server.log().splitlines() if "WARN" in line)
        assert said in line
        assert "partly" in line
        described = explain.report(explain.ask(server.metrics_url, "partly"))
        assert f"Clients don't see {said}." in " ".join(described.split())


def test_a_vocabulary_that_is_too_long_to_be_told_is_said(tmp_path: Path) -> None:
    names = [f"class {number:05}" for number in range(5000)]
    weights = numpy_helper.from_array(np.ones((2, len(names)), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_strings=names),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    kind = onnx.TypeProto()
    kind.map_type.key_type = TensorProto.STRING
    kind.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(kind))
    path = save(tmp_path / "wide.onnx", nodes, [x], [maps], [weights])
    with inferd.Server(path, threads=1, profiling=False) as server:
        (model,) = server.models
        assert model.signature.outputs[0].shape == (-1, 5000)
        assert model.facts["left_out"].startswith("names of the 5000 columns of 'maps'")
        assert "class 00000, class 00001" in model.facts["labels"]
        answer = httpx.post(f"{server.url}/models/wide", json=[[1, 2]], timeout=30).json()
        assert answer == [[3.0] * 5000]


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, weights or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path
