"""Models in Python whose rows are independent, and traps whose rows are not: what the worker says of each.

No trap may be batched, whatever it costs; of the honest ones few may be taken for traps. In this process, through the
runtimes and the decision that a worker makes; one server shows that it arrives.
"""

from __future__ import annotations

import io
import itertools
import time
import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import inferd
from inferd import InvalidInput, Model, TensorSpec
from inferd.runtimes.python import PythonRuntime
from inferd.runtimes.registry import recognise, runtime
from inferd.sdk.codecs import Shape
from inferd.sdk.runtime import StageRuntime
from inferd.spec.settings import ModelSpec
from inferd.worker.batching import decide_batching

from .python_traps import CHANGES, TRAPS, Arrays, Centres, Lone, Table

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.types import Signature

LOAD = {
    "batching": "auto",
    "batch_rows_max": 32,
    "tolerance": {"absolute": 1e-5, "relative": 1e-3},
    "runtime": "python",
}


def decided(kind: Any, **settings: Any) -> Signature:
    if issubclass(kind, Model):
        made: Any = StageRuntime(kind(), "predict", {})
    else:
        about = {"file": __file__, "signature": {"inputs": None, "outputs": None}, "parameters": {}}
        made = PythonRuntime(about, kind)
    return decide_batching(made, {**LOAD, **settings})


# -- traps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRAPS, ids=lambda kind: kind.__name__)
def test_no_trap_is_batched_and_the_reason_is_told(kind: Any) -> None:
    signature = decided(kind)
    assert not signature.batched
    assert TRAPS[kind] in signature.batching_off
    assert (signature.verdict.by, signature.verdict.why) == ("probe", signature.batching_off)


# -- honest models --------------------------------------------------------------------------------------------------


class Doubles(Arrays):
    def of(self, x):
        return x * 2


class ScalesEachByItsOwn(Arrays):
    def of(self, x):
        return np.where(x.max(axis=1, keepdims=True) > 1, x / 255, x)


class Linear(Arrays):
    """Sums of products round in another order for more rows."""

    def load(self):
        self.weights = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)

    def of(self, x):
        return np.tanh(x @ self.weights)


class DeepNetwork(Arrays):
    inputs = (TensorSpec("x", "FP32", (-1, 64)),)
    outputs = (TensorSpec("y", "FP32", (-1, 10)), TensorSpec("label", "INT64", (-1,)))

    def load(self):
        drawn = np.random.default_rng(1)
        sizes = [64, 128, 128, 10]
        self.layers = [drawn.normal(size=(a, b)).astype(np.float32) / a**0.5 for a, b in itertools.pairwise(sizes)]

    def predict(self, batch):
        x = batch["x"]
        for layer in self.layers:
            x = np.maximum(x @ layer, 0.01 * (x @ layer))
        return {"y": x, "label": x.argmax(axis=1)}


class NearTies(Arrays):
    """Every row's two best scores are equal but for rounding, which differs with the rows beside it."""

    outputs = (TensorSpec("y", "FP32", (-1, 4)), TensorSpec("label", "INT64", (-1,)))

    def predict(self, batch):
        x = np.array(batch["x"])
        x[:, 1] = x[:, 0] = np.nan_to_num(np.abs(x)).max(axis=1) + 1
        shaken = x * (1 + 1e-6 * np.arange(4) * (-1) ** len(x))
        return {"y": shaken.astype(np.float32), "label": shaken.argmax(axis=1)}


class RowsSoftmax(Arrays):
    def of(self, x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


class SortsEachRow(Arrays):
    def of(self, x):
        return np.sort(x, axis=1)


class Logarithm(Arrays):
    """Takes nothing that is not positive."""

    def of(self, x):
        if not (x > 0).all():
            raise InvalidInput("x must be positive")
        return np.log(x)


class Quantises(Arrays):
    outputs = (TensorSpec("y", "INT32", (-1, 4)),)

    def predict(self, batch):
        return {"y": np.clip(np.nan_to_num(batch["x"]) * 10, -128, 127).astype(np.int32)}


class WritesIntoItsInput(Arrays):
    def of(self, x):
        x *= 2
        x += 1
        return x


class ReusesItsBuffer(Arrays):
    def load(self):
        self.buffer = np.zeros((64, 4), np.float32)

    def predict(self, batch):
        rows = len(batch["x"])
        np.multiply(batch["x"], 3, out=self.buffer[:rows])
        return {"y": self.buffer[:rows]}


class Caches(Lone):
    def load(self):
        self.known: dict[bytes, float] = {}

    def of(self, x):
        return [self.known.setdefault(row.tobytes(), float(row.sum())) for row in x]


class Embeds(Arrays):
    """An index beyond the table is an IndexError."""

    inputs = (TensorSpec("ids", "INT64", (-1, -1)),)
    outputs = (TensorSpec("y", "FP32", (-1, 8)),)

    def load(self):
        self.table = np.random.default_rng(2).normal(size=(50, 8)).astype(np.float32)

    def predict(self, batch):
        return {"y": self.table[batch["ids"]].mean(axis=1)}


class BytePictures(Lone):
    inputs = (TensorSpec("x", "UINT8", (-1, 8, 8, 3)),)

    def of(self, x):
        return (x.astype(np.float32) / 255).reshape(len(x), -1).mean(axis=1)


class AnySize(Lone):
    """Takes pictures from 32 by 32 on."""

    inputs = (TensorSpec("x", "FP32", (-1, 3, -1, -1)),)

    def of(self, x):
        if min(x.shape[2:]) < 32:
            raise ValueError("too small")
        return x[:, :, ::8, ::8].mean(axis=(1, 2, 3))


class HalfPrecision(Arrays):
    inputs = (TensorSpec("x", "FP16", (-1, 16)),)
    outputs = (TensorSpec("y", "FP16", (-1, 4)),)

    def load(self):
        self.weights = np.random.default_rng(3).normal(size=(16, 4)).astype(np.float16)

    def predict(self, batch):
        return {"y": batch["x"] @ self.weights}


class Shouts(Model):
    def predict(self, text: list[str]) -> list[str]:
        return [one.upper() for one in text]


class CountsWords(Model):
    def predict(self, text: list[str]) -> dict:
        return {"words": [len(one.split()) for one in text], "length": [float(len(one)) for one in text]}


class FillsUpAndMasks(Model):
    def predict(self, text: list[str]) -> list[float]:
        longest = max(map(len, text)) or 1
        values = np.array([[*map(ord, one), *[0] * (longest - len(one))] for one in text], float)
        mask = np.arange(longest) < np.array([[len(one)] for one in text])
        return ((values.reshape(len(text), longest) * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)).tolist()


class ReadsRecords(Model):
    example: ClassVar[Any] = {"record": [{"age": 30, "tags": ["a"]}, {"age": 41, "tags": ["b", "c"]}]}

    def predict(self, record: list[dict]) -> list[float]:
        return [one["age"] / 10 + len(one["tags"]) for one in record]


class Pictures(Model):
    def predict(self, picture: list[Image.Image]) -> list[float]:
        return [float(np.asarray(one.convert("L")).mean()) for one in picture]


class NumbersOfSeveralKinds(Model):
    def predict(self, amount: list[float], count: list[int], member: list[bool]) -> list[float]:
        return [(a + 1) * c * (0.9 if m else 1) for a, c, m in zip(amount, count, member, strict=True)]


class MayBeMissing(Model):
    def predict(self, amount: list[float | None], name: list[str | None]) -> list[float]:
        return [(0.0 if a is None else a) + len(n or "") for a, n in zip(amount, name, strict=True)]


class ArraysOfARow(Model):
    def predict(self, x: Annotated[NDArray[np.float32], Shape(3, -1)]) -> Annotated[NDArray[np.float32], Shape(3)]:
        return x.sum(axis=2)


class OneRow(Model):
    """State does not matter: each row is a call of its own, alone or not."""

    def predict(self, text: str) -> str:
        return text[::-1]


class HonestTable(Arrays):
    inputs = Table.inputs
    schemas = Table.schemas
    example: ClassVar[Any] = Table.example

    def of(self, x):
        return np.log1p(np.abs(x)) * np.sign(x)


class Categories(Arrays):
    """Only what is known is taken."""

    inputs = (TensorSpec("city", "BYTES", (-1,)), TensorSpec("size", "FP64", (-1,)))
    outputs = (TensorSpec("y", "FP64", (-1,)),)
    example: ClassVar[Any] = {"city": [b"Oslo", b"Rome"], "size": [1.0, 2.0]}

    def predict(self, batch):
        codes = {b"Oslo": 1.0, b"Rome": 2.0}
        return {"y": np.array([codes[city] for city in batch["city"]]) * batch["size"]}


HONEST = (
    Doubles,
    ScalesEachByItsOwn,
    Linear,
    DeepNetwork,
    NearTies,
    RowsSoftmax,
    SortsEachRow,
    Logarithm,
    Quantises,
    WritesIntoItsInput,
    ReusesItsBuffer,
    Caches,
    Embeds,
    BytePictures,
    AnySize,
    HalfPrecision,
    Shouts,
    CountsWords,
    FillsUpAndMasks,
    ReadsRecords,
    Pictures,
    NumbersOfSeveralKinds,
    MayBeMissing,
    ArraysOfARow,
    OneRow,
    HonestTable,
    Categories,
)


@pytest.mark.parametrize("kind", HONEST, ids=lambda kind: kind.__name__)
def test_an_honest_model_is_batched(kind: Any) -> None:
    signature = decided(kind)
    assert signature.batched, signature.batching_off
    by = "analysis" if kind is OneRow else "probe"
    assert signature.verdict.by == by
    assert (signature.verdict.rows > 1) is (by == "probe")


def test_the_zoo_is_as_large_as_it_should_be() -> None:
    assert len(TRAPS) >= 40
    assert len(TRAPS) + len(HONEST) >= 70


# -- models of libraries --------------------------------------------------------------------------------------------

X = np.abs(np.random.default_rng(4).normal(size=(60, 4)))
Y = (X[:, 0] > 0.7).astype(int)


def saved_xgboost(folder: Path, **parameters: Any) -> Path:
    import xgboost

    xgboost.train(parameters, xgboost.DMatrix(X, Y), 3).save_model(folder / "model.ubj")
    return folder / "model.ubj"


def saved_lightgbm(folder: Path) -> Path:
    import lightgbm

    lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 3).save_model(folder / "model.lgb")
    return folder / "model.lgb"


def saved_catboost(folder: Path) -> Path:
    import catboost

    catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False).fit(X, Y).save_model(
        str(folder / "model.cbm")
    )
    return folder / "model.cbm"


def saved_sklearn(folder: Path, estimator: Any) -> Path:
    import skops.io

    skops.io.dump(estimator.fit(X, Y), folder / "model.skops")
    return folder / "model.skops"


def scaled(folder: Path) -> Path:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return saved_sklearn(folder, make_pipeline(StandardScaler(), LogisticRegression()))


def neighbours(folder: Path) -> Path:
    from sklearn.neighbors import KNeighborsClassifier

    return saved_sklearn(folder, KNeighborsClassifier(3))


def drawn(folder: Path) -> Path:
    from sklearn.dummy import DummyClassifier

    return saved_sklearn(folder, DummyClassifier(strategy="uniform", random_state=0))


def logged(folder: Path) -> Path:
    import mlflow
    import xgboost

    mlflow.xgboost.save_model(xgboost.train({}, xgboost.DMatrix(X, Y), 3), folder / "m", model_format="ubj")
    return folder / "m"


LIBRARIES = {
    "XGBoost": (saved_xgboost, True, "analysis", "trees answer row by row"),
    "XGBoost's linear": (
        lambda folder: saved_xgboost(folder, booster="gblinear"),
        True,
        "analysis",
        "linear models answer row by row",
    ),
    "LightGBM": (saved_lightgbm, True, "analysis", "trees answer row by row"),
    "CatBoost": (saved_catboost, True, "analysis", "trees answer row by row"),
    "a pipeline": (scaled, True, "analysis", "Pipeline and all its parts answer row by row"),
    "neighbours": (neighbours, True, "probe", "no proof"),
    "drawn by chance": (drawn, False, "probe", ""),
    "logged in MLflow": (logged, True, "analysis", "trees answer row by row"),
}


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_a_library_is_batched_by_what_is_known_of_its_kind(name: str, tmp_path: Path) -> None:
    save, batched, by, words = LIBRARIES[name]
    file = save(tmp_path)
    spec = ModelSpec(batch_rows_max=32)
    load = runtime(recognise(file)).compose(file, spec, 1).load
    with warnings.catch_warnings():
        signature = decide_batching(runtime(load["runtime"]).load(load), load)
    assert (signature.batched, signature.verdict.by) == (batched, by)
    assert words in signature.verdict.why


# -- what the probe leaves undone -----------------------------------------------------------------------------------


class Constant(Arrays):
    def of(self, x):
        return np.ones_like(x)


class RefusesNearlyAll(Model):
    def predict(self, text: list[str]) -> list[str]:
        if set(text) != {"text"}:
            raise InvalidInput("that is not it")
        return text


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Constant, "answers every generated row alike"), (RefusesNearlyAll, "takes only one of the generated rows")],
)
def test_rows_that_show_nothing_are_no_reason_to_batch(kind: Any, words: str) -> None:
    signature = decided(kind)
    assert words in signature.batching_off
    assert "set batching: on" in signature.batching_off
    # Requests that come may show it.
    assert decided(kind, batching="verify").batched
    assert not decided(Centres, batching="verify").batched


class Notes(Arrays):
    """Every run has a side effect."""

    runs: ClassVar[list[int]] = []

    def of(self, x):
        Notes.runs.append(len(x))
        return x * 2


def test_a_model_with_side_effects_runs_five_times() -> None:
    Notes.runs = []
    signature = decided(Notes, repeatable=False)
    assert sorted(Notes.runs) == [1, 1, 1, 2, 2]
    assert signature.batched
    assert signature.verdict.rows == 2
    assert "five times only, as retry_on_worker_loss is false" in signature.verdict.why


class Slow(Arrays):
    """Takes its time, on a clock of its own: the probe must not wait for all that it could."""

    runs: ClassVar[list[int]] = []

    def of(self, x):
        Slow.runs.append(len(x))
        until = time.perf_counter() + 0.3 * len(x)
        while time.perf_counter() < until:
            pass
        return x * 2


def test_a_slow_model_is_probed_with_fewer_rows_and_that_is_told() -> None:
    Slow.runs = []
    signature = decided(Slow)
    assert signature.batched
    assert "the model is slow" in signature.verdict.why
    assert len(Slow.runs) <= 7


class SlowScales(Model):
    """A trap that takes its time, with nothing but made-up rows to be found out by."""

    def predict(self, pixels: Annotated[NDArray[np.float32], Shape(4)]) -> Annotated[NDArray[np.float32], Shape(4)]:
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            pass
        return pixels / 255 if pixels.max() > 1 else pixels


def test_a_slow_trap_is_found_out() -> None:
    assert CHANGES in decided(SlowScales).batching_off


class Waits(Arrays):
    """Waits as many seconds as it is told."""

    asked: ClassVar[list[float]] = []

    def of(self, x):
        if (x < 0).any():
            raise ValueError("no time to wait")
        Waits.asked.append(float(np.nan_to_num(x).max()))
        until = time.perf_counter() + Waits.asked[-1] / 20
        while time.perf_counter() < until:
            pass
        return x


def test_numbers_that_make_a_model_slower_do_not_grow() -> None:
    Waits.asked = []
    decided(Waits)
    assert max(Waits.asked) <= 8


def test_images_of_an_example_are_varied() -> None:
    from inferd.worker import probe_texts

    buffer = io.BytesIO()
    Image.new("L", (5, 4)).save(buffer, format="PNG")
    drawn = np.random.default_rng(0)
    made = [probe_texts.varied(buffer.getvalue(), number, drawn) for number in range(3)]
    assert len(set(made)) == 3
    assert {Image.open(io.BytesIO(one)).mode for one in made} == {"L"}


# -- the whole way --------------------------------------------------------------------------------------------------

SERVED = """
from inferd import Model

class {name}(Model):
    def predict(self, amount: list[float]) -> list[float]:
        return [one{trap} for one in amount]
"""


def test_the_verdict_reaches_the_operator(tmp_path: Path) -> None:
    for name, trap in (("honest", " * 2"), ("trap", " - max(amount)")):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(SERVED.format(name=name.title(), trap=trap))
    with inferd.Server(tmp_path, threads=1, profiling=False) as server:
        honest, trap = sorted(server.models, key=lambda model: model.name)
        assert honest.signature.batched
        assert honest.signature.verdict.by == trap.signature.verdict.by == "probe"
        assert honest.signature.verdict.rows > 5
        assert CHANGES in trap.signature.batching_off
