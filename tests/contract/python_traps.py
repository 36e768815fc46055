"""Classes whose rows depend on each other, each as a user might write it, and what is said of them.

Data for ``test_python_zoo.py``. Most differ from an honest class by a missing ``axis=1``.
"""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from inferd import InvalidInput, Model, TensorSpec
from inferd.types import InputSchema

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


class Truncates(Model):
    """Past a length that is in the code."""

    def predict(self, text: list[str]) -> list[float]:
        most = 100 if max(map(len, text)) > 2048 else 2048
        return [float(len(one[:most].split())) + len(one[:50]) for one in text]


class Urgent(Model):
    def predict(self, amount: list[float], urgent: list[bool]) -> list[float]:
        return [one * (3 if any(urgent) else 1) for one in amount]


class ManyAtOnce(Lone):
    """A count past a number in the code, and then another way that rounds."""

    inputs = (TensorSpec("count", "INT64", (-1, 2)),)

    def predict(self, batch):
        count = batch["count"]
        return {
            "y": (count.sum(axis=1) if count.max() < 20_000 else np.round(count.sum(axis=1), -2)).astype(np.float32)
        }


class Debugs(Model):
    """A key that is only in the code."""

    example: ClassVar[Any] = {"record": [{"age": 1}, {"age": 2}]}

    def predict(self, record: list[dict]) -> list[float]:
        verbose = any(one.get("explain_all") for one in record)
        return [one["age"] * (-1.0 if verbose else 1.0) for one in record]


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
            Truncates,
            Urgent,
            ManyAtOnce,
            Debugs,
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
