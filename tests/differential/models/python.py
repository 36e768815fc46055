"""Models that are a class in Python: of arrays, of typed values, in stages; such that write into what they are given."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from differential.case import ROWS, Case
from inferd.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray]

SLICE = ("a matrix, some rows refused", "typed values", "inputs that are kept")

MATRIX = """
import numpy as np
from inferd import InvalidInput, TensorSpec


class Half:
    inputs = [TensorSpec("x", "FP32", (-1, 3))]
    outputs = [TensorSpec("y", "FP32", (-1, 3)), TensorSpec("sum", "FP64", (-1,))]

    def load(self):
        pass

    def predict(self, batch):
        x = batch["x"]
        if (x > 2).any():
            raise InvalidInput("above two")
        return {"y": x / np.float32(2), "sum": x.astype(np.float64).sum(axis=1)}
"""

EVERY_TYPE = """
from inferd import TensorSpec

KINDS = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
         "BF16", "BYTES")


class Same:
    inputs = [TensorSpec(kind, kind, (-1, 2)) for kind in KINDS]
    outputs = [TensorSpec(f"{kind}_", kind, (-1, 2)) for kind in KINDS]

    def load(self):
        pass

    def predict(self, batch):
        return {f"{name}_": array[:, ::-1] for name, array in batch.items()}
"""

TYPED = """
from inferd import InvalidInput, Model


class Typed(Model):
    def predict(self, text: list[str], data: list[bytes], whole: list[int], part: list[float], flag: list[bool]):
        for row, one in enumerate(text):
            if one == "no":
                raise InvalidInput("no is no text", row=row)
        return {
            "said": [f"{one}{number}" for one, number in zip(text, whole)],
            "data_": [one[::-1] for one in data],
            "whole_": [number * 2 for number in whole],
            "part_": [number * 2 for number in part],
            "flag_": [not one for one in flag],
        }
"""

RECORDS = """
from dataclasses import dataclass

from inferd import Model


@dataclass
class Person:
    name: str
    age: float | None = None


class Records(Model):
    example = {"person": [Person("Ada", 1.5)], "more": [{"a": 1}]}

    def predict(self, person: list[Person], more: list[dict]) -> dict:
        return {
            "line": [f"{one.name} {one.age!r}" for one in person],
            "keys": [sorted(one) for one in more],
        }
"""

ARRAYS = """
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import Model, Shape


class Arrays(Model):
    def predict(
        self, image: Annotated[NDArray[np.uint8], Shape(4, -1, 3)], scale: Annotated[NDArray[np.float64], Shape()]
    ) -> Annotated[NDArray[np.float64], Shape(4, -1, 3)]:
        return image * scale[:, None, None, None]
"""

ONE_ROW = """
from inferd import InvalidInput, Model


class OneRow(Model):
    example = {"text": ["a"]}

    def predict(self, text: str, top: int = 5) -> str:
        if len(text) > 20:
            raise InvalidInput("longer than 20")
        return text[:top].upper()
"""

WRITES = """
import numpy as np
from inferd import TensorSpec


class Writes:
    inputs = [TensorSpec("x", "FP64", (-1, 3)), TensorSpec("k", "INT64", (-1,))]
    outputs = [TensorSpec("x", "FP64", (-1, 3)), TensorSpec("k", "INT64", (-1,))]

    def load(self):
        pass

    def predict(self, batch):
        batch["x"] *= 2
        batch["k"] += 1
        return batch
"""

KEEPS = """
from inferd import TensorSpec


class Keeps:
    inputs = [TensorSpec("x", "FP64", (-1, 3))]
    outputs = [TensorSpec("y", "FP64", (-1, 3)), TensorSpec("changed", "BOOL", (-1,))]

    def load(self):
        self.kept = []

    def predict(self, batch):
        changed = [array.tobytes() != was for array, was in self.kept]
        self.kept.append((batch["x"], batch["x"].tobytes()))
        del self.kept[:-50]
        return {"y": batch["x"], "changed": [any(changed)] * len(batch["x"])}
"""

STAGES = """
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from inferd import InvalidInput, Model, Shape


class Stages(Model):
    def preprocess(self, text: list[str]) -> list:
        for row, one in enumerate(text):
            if not one:
                raise InvalidInput("there is no text", row=row)
        return [[len(one), one.count("a")] for one in text]

    def predict(self, counts: Annotated[NDArray[np.int64], Shape(2)]) -> NDArray[np.float64]:
        return counts @ np.array([1.0, 0.1])

    def postprocess(self, score: list[float]) -> dict:
        return {"verdict": ["long" if one > 5 else "short" for one in score], "score": score}
"""

MIXES = """
from inferd import TensorSpec


class Mixes:
    inputs = [TensorSpec("x", "FP64", (-1, 3))]
    outputs = [TensorSpec("y", "FP64", (-1, 3))]

    def load(self):
        pass

    def predict(self, batch):
        return {"y": batch["x"] - batch["x"].mean(axis=0)}
"""


def case(folder: Path, code: str, rows: dict[str, np.ndarray], answer: Callable[[Arrays], Arrays]) -> Case:
    """A model of ``code``; ``answer`` is what its author would write without a server."""
    (folder / "model.py").write_text(code)
    return Case(folder / "model.py", rows, answer, (InvalidInput,), relative=0, absolute=0)


def imported(folder: Path, code: str) -> Any:
    """The class in ``code``, in this process."""
    file = folder / "imported.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("imported", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == "imported"]
    model = found()
    model.load()
    return model


def of_arrays(folder: Path, code: str, rows: dict[str, np.ndarray]) -> Case:
    model = imported(folder, code)

    def answer(asked: Arrays) -> Arrays:
        return {name: np.asarray(array) for name, array in model.predict(dict(asked)).items()}

    return case(folder, code, rows, answer)


def floats(random: np.random.Generator, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    x = random.normal(size=(ROWS, *shape)).astype(np.float32).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    extremes = [np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, -0.0]
    for row, value in enumerate(extremes):
        x[row] = np.array(value).astype(dtype)
    return x


def integers(random: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, *shape), dtype=dtype, endpoint=True)
    x[0], x[1] = limits.min, limits.max
    return x


def texts(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Empty ones, zero bytes, letters of every width, quotes and escapes."""
    letters = [*"abc no", "ü", "漢", "🙂", "\0", '"', "\\", "\n", "\x7f", "\u2028"]
    array = np.empty((ROWS, *shape), object)
    for place in np.ndindex(array.shape):
        array[place] = "".join(random.choice(letters, random.integers(0, 12))).encode()
    return array


def bytes_of(random: np.random.Generator, *shape: int) -> np.ndarray:
    array = np.empty((ROWS, *shape), object)
    for place in np.ndindex(array.shape):
        array[place] = random.bytes(random.integers(0, 12))
    return array


def matrix(folder: Path, random: np.random.Generator) -> Case:
    return of_arrays(folder, MATRIX, {"x": floats(random, 3, dtype=np.float32)})


def every_type(folder: Path, random: np.random.Generator) -> Case:
    rows = {f"UINT{bits}": integers(random, f"uint{bits}", 2) for bits in (8, 16, 32, 64)}
    rows |= {f"INT{bits}": integers(random, f"int{bits}", 2) for bits in (8, 16, 32, 64)}
    rows |= {f"FP{bits}": floats(random, 2, dtype=f"float{bits}") for bits in (16, 32, 64)}
    rows |= {"BF16": floats(random, 2, dtype=ml_dtypes.bfloat16), "BOOL": random.random((ROWS, 2)) > 0.5}
    return of_arrays(folder, EVERY_TYPE, {**rows, "BYTES": bytes_of(random, 2)})


def typed(folder: Path, random: np.random.Generator) -> Case:
    model = imported(folder, TYPED)

    def answer(asked: Arrays) -> Arrays:
        text = [one.decode() for one in asked["text"]]
        found = model.predict(text, *(asked[name].tolist() for name in ("data", "whole", "part", "flag")))
        return {name: np.array(values, object if name in ("said", "data_") else None) for name, values in found.items()}

    text = texts(random)
    text[random.random(ROWS) < 0.03] = b"no"
    rows = {
        "text": text,
        "data": bytes_of(random),
        "whole": random.integers(-(2**62), 2**62, ROWS),
        "part": floats(random),
        "flag": random.random(ROWS) > 0.5,
    }
    return case(folder, TYPED, rows, answer)


def records(folder: Path, random: np.random.Generator) -> Case:
    import json

    def row(age: float) -> dict[str, Any]:
        name = "".join(random.choice([*'ab "', "ü", "\\"], random.integers(0, 6)))
        whole = {"name": name, "age": age, "strange": 1} if age > 1 else {"name": name, "age": age}
        return {"name": name} if age < -1 else whole

    ages = random.normal(size=ROWS)
    people = [row(age) for age in ages.tolist()]
    keys = [random.choice([*"abcdé"], random.integers(0, 4)).tolist() for _ in range(ROWS)]
    more = [{key: [1, None] for key in some} for some in keys]
    given = {"person": people, "more": more}
    rows = {name: np.array([json.dumps(one).encode() for one in values], object) for name, values in given.items()}

    def answer(asked: Arrays) -> Arrays:
        parsed = [json.loads(one) for one in asked["person"]]
        keys = [json.dumps(sorted(json.loads(one)), ensure_ascii=False, separators=(",", ":")) for one in asked["more"]]
        lines = [f"{one['name']} {one.get('age')!r}" for one in parsed]
        return {"line": np.array(lines, object), "keys": np.array(keys, object)}

    return case(folder, RECORDS, rows, answer)


def arrays(folder: Path, random: np.random.Generator) -> Case:
    model = imported(folder, ARRAYS)
    rows = {"image": integers(random, np.uint8, 4, 2, 3), "scale": floats(random)}
    return case(folder, ARRAYS, rows, lambda asked: {"output": model.predict(asked["image"], asked["scale"])})


def one_row(folder: Path, random: np.random.Generator) -> Case:
    model = imported(folder, ONE_ROW)
    text = texts(random)
    text[random.random(ROWS) < 0.03] = b"more than twenty letters"

    def answer(asked: Arrays) -> Arrays:
        pairs = zip(asked["text"], asked["top"].tolist(), strict=True)
        return {"output": np.array([model.predict(one.decode(), top) for one, top in pairs], object)}

    return case(folder, ONE_ROW, {"text": text, "top": random.integers(0, 9, ROWS)}, answer)


def writes(folder: Path, random: np.random.Generator) -> Case:
    model = imported(folder, WRITES)

    def answer(asked: Arrays) -> Arrays:
        return model.predict({name: array.copy() for name, array in asked.items()})

    return case(folder, WRITES, {"x": floats(random, 3), "k": random.integers(-9, 9, ROWS)}, answer)


def keeps(folder: Path, random: np.random.Generator) -> Case:
    def answer(asked: Arrays) -> Arrays:
        return {"y": asked["x"], "changed": np.zeros(len(asked["x"]), bool)}

    return case(folder, KEEPS, {"x": random.normal(size=(ROWS, 3))}, answer)


def stages(folder: Path, random: np.random.Generator) -> Case:
    model = imported(folder, STAGES)

    def answer(asked: Arrays) -> Arrays:
        counts = model.preprocess([one.decode() for one in asked["text"]])
        found = model.postprocess(model.predict(np.array(counts)).tolist())
        return {"verdict": np.array(found["verdict"], object), "score": np.array(found["score"])}

    return case(folder, STAGES, {"text": texts(random)}, answer)


def mixes(folder: Path, random: np.random.Generator) -> Case:
    return of_arrays(folder, MIXES, {"x": random.normal(size=(ROWS, 3))})


CASES = {
    "a matrix, some rows refused": matrix,
    "every type": every_type,
    "typed values": typed,
    "records": records,
    "arrays of a free size": arrays,
    "one row at a time, some refused": one_row,
    "inputs that are written into": writes,
    "inputs that are kept": keeps,
    "three stages": stages,
    "rows that depend on each other": mixes,
}
