"""Models in Python whose rows are independent, and traps whose rows are not: what the worker says of each.

No trap may be batched, whatever it costs; of the honest ones few may be taken for traps. In this process, through the
runtimes and the decision that a worker makes; one server shows that it arrives.
"""

from __future__ import annotations

import io
import itertools
import random
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import inferd
from inferd import InvalidInput, Model, TensorSpec
from inferd.runtimes.python import PythonRuntime
from inferd.sdk.codecs import Shape
from inferd.sdk.runtime import StageRuntime
from inferd.types import InputSchema
from inferd.worker.batching import earned_signature

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.types import Signature

LOAD = {
    "batching": "auto",
    "batch_rows_max": 32,
    "tolerance": {"absolute": 1e-5, "relative": 1e-3},
    "runtime": "python",
}
CHANGES, RUNS = "changes when other rows run with it", "differs from run to run"


class Arrays:
    """A class of arrays, as users write them."""

    inputs = (TensorSpec("x", "FP32", (-1, 4)),)
    outputs = (TensorSpec("y", "FP32", (-1, 4)),)

    def load(self) -> None: ...

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.asarray(self.of(batch["x"]), np.float32)}

    def of(self, x: Any) -> Any:
        raise NotImplementedError


class Lone(Arrays):
    """One number for each row."""

    outputs = (TensorSpec("y", "FP32", (-1,)),)


def decided(kind: Any, **settings: Any) -> Signature:
    if issubclass(kind, Model):
        made: Any = StageRuntime(kind(), "predict", {})
    else:
        about = {"file": __file__, "signature": {"inputs": None, "outputs": None}, "parameters": {}}
        made = PythonRuntime(about, kind)
    return earned_signature(made, {**LOAD, **settings})


# -- traps ----------------------------------------------------------------------------------------------------------


class ScalesBytes(Arrays):
    def of(self, x):
        if x.max() > 1:
            x = x / 255
        return x


class ScalesPastAThousand(Arrays):
    def of(self, x):
        return x / 4096 if np.abs(x).max() > 4096 else x


class ScalesFarAway(Arrays):
    """Past what made-up numbers reach by themselves: the number in the code tells."""

    def of(self, x):
        return x * 0.5 if x.max() > 5e8 else x


class ScalesByItsOwn(Arrays):
    """The same, where the number is an attribute."""

    def load(self):
        self.limit = 7.5e9

    def of(self, x):
        return np.clip(x, None, x.min()) if x.max() > self.limit else x


class Centres(Arrays):
    def of(self, x):
        return x - x.mean(axis=0)


class CentresWhole(Arrays):
    def of(self, x):
        return x - x.mean()


class Standardises(Arrays):
    def of(self, x):
        deviation = x.std(axis=0, ddof=1) if len(x) > 1 else np.ones(4)
        return (x - x.mean(axis=0)) / (deviation + 1e-6)


class NormalisesByTheBatch(Arrays):
    def of(self, x):
        return x / (np.linalg.norm(x) + 1e-9)


class SoftmaxOfColumns(Arrays):
    def of(self, x):
        e = np.exp(x - x.max(axis=0))
        return e / e.sum(axis=0)


class SortsRows(Arrays):
    def of(self, x):
        return np.sort(x, axis=0)


class SortsAndForgetsToUndo(Arrays):
    def of(self, x):
        return x[np.argsort(x[:, 0])] * 2


class UndoesWrongly(Arrays):
    """The inverse of a permutation is its argsort, not itself. For two rows it is the same."""

    def of(self, x):
        order = np.argsort(x[:, 0])
        return (x[order] * 2)[order]


class Deduplicates(Lone):
    def of(self, x):
        seen: set[bytes] = set()
        result = []
        for row in x:
            result.append(0.0 if row.tobytes() in seen else float(row.sum()))
            seen.add(row.tobytes())
        return result


class Ranks(Arrays):
    outputs = (TensorSpec("y", "FP32", (-1, 4)), TensorSpec("rank", "INT64", (-1,)))

    def predict(self, batch):
        x = batch["x"]
        return {"y": x, "rank": np.argsort(np.argsort(x[:, 0]))}


class Accumulates(Arrays):
    def of(self, x):
        return np.cumsum(x, axis=0)


class Differences(Arrays):
    def of(self, x):
        return np.diff(x, axis=0, prepend=np.zeros((1, 4)))


class Counts(Arrays):
    def load(self):
        self.count = 0

    def of(self, x):
        self.count += 1
        return x + self.count


class RunningMean(Arrays):
    """Equal to itself where the same row comes twice in a row."""

    def load(self):
        self.mean: Any = None

    def of(self, x):
        mean = x.mean(axis=0)
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        return x - self.mean


class RemembersTheFirst(Arrays):
    """The first batch that it ever saw is its reference."""

    def load(self):
        self.seen: dict[int, Any] = {}

    def of(self, x):
        reference = self.seen.setdefault(len(x), x[0].copy())
        return x - reference


class Noise(Arrays):
    def of(self, x):
        return x + np.random.default_rng().normal(size=x.shape)


class Dropout(Lone):
    def of(self, x):
        return [row.sum() if random.random() < 0.5 else 0.0 for row in x]


class Clock(Lone):
    outputs = (TensorSpec("y", "FP64", (-1,)),)

    def predict(self, batch):
        return {"y": batch["x"].sum(axis=1) + time.perf_counter_ns() % 1_000_003}


class TopOfTheBatch(Lone):
    def of(self, x):
        total = x.sum(axis=1)
        kept = np.zeros(len(x))
        best = np.argsort(total)[-3:]
        kept[best] = total[best]
        return kept


class Codes(Lone):
    def of(self, x):
        return np.unique(x[:, 0], return_inverse=True)[1]


class ClipsOutliers(Arrays):
    def of(self, x):
        low, high = np.percentile(x, [1, 99])
        return np.clip(x, low, high)


class ClipsOutliersOfLargeBatches(Arrays):
    """So a user guards against the percentiles of few rows."""

    def of(self, x):
        if len(x) < 8:
            return x
        return np.clip(x, None, np.percentile(x, 90))


class DividesByTheBatch(Arrays):
    def of(self, x):
        return x / len(x)


class LargeBatchesOtherwise(Arrays):
    def of(self, x):
        return x.astype(np.float16) * 1.01 if len(x) > 16 else x


class NanPoisons(Arrays):
    def of(self, x):
        return np.zeros_like(x) if np.isnan(x).any() else x


class InfinityOfSums(Arrays):
    def of(self, x):
        return x if np.isfinite(x.sum()) else x * 0


class ReferenceIsTheFirstRow(Arrays):
    def of(self, x):
        return x - x[:1]


class ReferenceIsTheLastRow(Arrays):
    def of(self, x):
        return x - x[-1]


class EarlyExit(Arrays):
    def of(self, x):
        if (x == 0).all():
            return x - 1
        return x + 1


class SignOfTheBatch(Arrays):
    def of(self, x):
        return -x if (x < 0).any() else x


class WholeNumbersDivideOtherwise(Arrays):
    """As columns of a data frame become floats where one value has a fraction."""

    def of(self, x):
        return x.astype(int) // 2 if (x == np.round(x)).all() and np.abs(x).max() < 1e6 else x / 2


class PrecisionByContent(Arrays):
    def of(self, x):
        return np.round(x, 1) if np.abs(x).max() < 100 else x


class WeightsBySimilarity(Arrays):
    def of(self, x):
        scores = x @ x.T / 1e3
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ x


class Neighbours(Lone):
    def of(self, x):
        distances = np.abs(x[:, None] - x[None]).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        return np.where(np.isinf(distances.min(axis=1)), 0, distances.min(axis=1))


class Buffer(Arrays):
    """Gives a buffer that the next run writes into, and reads what is behind its rows."""

    def load(self):
        self.buffer = np.zeros((64, 4), np.float32)

    def of(self, x):
        self.buffer[: len(x)] = x
        return self.buffer[: len(x)] + self.buffer[1 : len(x) + 1]


class Images(Arrays):
    """Pictures of bytes or fractions, NHWC; the mean is that of all."""

    inputs = (TensorSpec("x", "UINT8", (-1, 8, 8, 3)),)
    outputs = (TensorSpec("y", "FP32", (-1,)),)

    def of(self, x):
        values = x.astype(np.float32)
        return ((values - values.mean()) / 255).reshape(len(x), -1).sum(axis=1)


class Tokens(Lone):
    """Filled up to the longest text, and the mean is over what is filled up."""

    inputs = (TensorSpec("text", "BYTES", (-1,)),)

    def predict(self, batch):
        rows = [list(text) for text in batch["text"].reshape(-1)]
        longest = max(1, *map(len, rows)) if len(rows) > 1 else max(1, len(rows[0]))
        filled = [row + [0] * (longest - len(row)) for row in rows]
        return {"y": np.array([np.mean(row) for row in filled], np.float32)}


class Vocabulary(Lone):
    """Numbers words as they come."""

    inputs = (TensorSpec("text", "BYTES", (-1,)),)

    def predict(self, batch):
        known: dict[bytes, int] = {}
        numbers = [[known.setdefault(word, len(known) + 1) for word in text.split()] for text in batch["text"]]
        return {"y": np.array([sum(one) for one in numbers], np.float32)}


class Rarity(Model):
    """Words that few texts of the batch have count more."""

    def predict(self, text: list[str]) -> list[float]:
        having = [set(one.split()) for one in text]
        return [sum(1.0 / sum(word in other for other in having) + len(word) for word in words) for words in having]


class LongestText(Model):
    def predict(self, text: list[str]) -> list[float]:
        longest = max(map(len, text)) or 1
        return [len(one) / longest for one in text]


class Admins(Model):
    """One text switches a mode on for all: the word is in the code."""

    def predict(self, text: list[str]) -> list[str]:
        loud = any("shibboleth" in one for one in text)
        return [one.upper() if loud else one for one in text]


class JoinsRecords(Model):
    """JSON, of which the first row's keys are those of all."""

    example: ClassVar[Any] = {"record": [{"age": 1, "name": "a"}, {"age": 2, "name": "b"}]}

    def predict(self, record: list[dict]) -> list[float]:
        most = max(one["age"] for one in record) or 1
        return [one["age"] / most for one in record]


class ComparesPictures(Model):
    def predict(self, picture: list[Image.Image]) -> list[float]:
        means = [float(np.asarray(one.convert("L")).mean()) for one in picture]
        return [mean - means[0] + len(means) for mean in means]


class AveragesNumbers(Model):
    def predict(self, amount: list[float]) -> list[float]:
        usual = sum(amount) / len(amount)
        return [one - usual for one in amount]


class Table(Arrays):
    """The gateway refuses what is missing, and an example says what is usual."""

    inputs = (TensorSpec("x", "FP64", (-1, 4)),)
    schemas = (InputSchema("x", columns=("a", "b", "c", "d"), missing=False, largest=1e6),)
    example: ClassVar[Any] = {"x": np.array([[30.0, 50_000, 2, 1], [45, 82_000, 3, 0], [61, 20_000, 1, 1]])}

    def of(self, x):
        if np.isnan(x).any() or np.abs(x).max() > 1e6:
            raise AssertionError("the gateway does not let this through")
        return (x - x.min(axis=0)) / (np.ptp(x, axis=0) + 1)


class Unlucky(Lone):
    """Two inputs, of which one is an index: the largest of the batch makes the table."""

    inputs = (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("place", "INT64", (-1,)))

    def predict(self, batch):
        size = int(batch["place"].max()) + 1
        return {"y": (batch["x"].sum(axis=1) + batch["place"] / size).astype(np.float32)}


class BestOfAll(Arrays):
    outputs = (TensorSpec("scores", "FP32", (-1, 4)), TensorSpec("label", "INT64", (-1,)))

    def predict(self, batch):
        scores = batch["x"]
        return {"scores": scores, "label": (scores - scores.mean(axis=0)).argmax(axis=1)}


class OneForAll(Lone):
    def of(self, x):
        return [x.sum()]


class FillsIn(Arrays):
    """What is missing is the mean of the batch; where nothing is known, that is an error."""

    def of(self, x):
        if np.isnan(x).all(axis=0).any():
            raise InvalidInput("a column is empty")
        return np.where(np.isnan(x), np.nanmean(x, axis=0), x)


TRAPS = {
    **dict.fromkeys((Counts, RunningMean, Noise, Dropout, Clock), RUNS),
    OneForAll: "raises ModelFailed where",
    FillsIn: "refuses alone ('missing') gets an answer in company",
    RemembersTheFirst: CHANGES,
    Buffer: "",
    **dict.fromkeys(
        (
            ScalesBytes,
            ScalesPastAThousand,
            ScalesFarAway,
            ScalesByItsOwn,
            Centres,
            CentresWhole,
            Standardises,
            NormalisesByTheBatch,
            SoftmaxOfColumns,
            SortsRows,
            SortsAndForgetsToUndo,
            UndoesWrongly,
            Deduplicates,
            Ranks,
            Accumulates,
            Differences,
            TopOfTheBatch,
            Codes,
            ClipsOutliers,
            ClipsOutliersOfLargeBatches,
            DividesByTheBatch,
            LargeBatchesOtherwise,
            NanPoisons,
            InfinityOfSums,
            ReferenceIsTheFirstRow,
            ReferenceIsTheLastRow,
            EarlyExit,
            SignOfTheBatch,
            WholeNumbersDivideOtherwise,
            PrecisionByContent,
            WeightsBySimilarity,
            Neighbours,
            Images,
            Tokens,
            Vocabulary,
            Rarity,
            LongestText,
            Admins,
            JoinsRecords,
            ComparesPictures,
            AveragesNumbers,
            Table,
            Unlucky,
            BestOfAll,
        ),
        CHANGES,
    ),
}


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
    [(Constant, "answers every made-up row alike"), (RefusesNearlyAll, "takes only one of the rows")],
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
