"""The parts of the probe: what counts as a difference, which rows are made, what a class's code tells."""

import time

import numpy as np
import pytest

from inferd import TensorSpec
from inferd.sdk.constants import constants_of
from inferd.types import InputSchema, Signature
from inferd.worker import probe_texts
from inferd.worker.batching import decide_batching
from inferd.worker.probe_compare import difference
from inferd.worker.probe_rows import RowGenerator, recipes

TOLERANCE = {"absolute": 1e-5, "relative": 1e-3}
FP32, LABEL = TensorSpec("y", "FP32", (-1, 3)), TensorSpec("label", "INT64", (-1,))


def differs(specs, one, other):
    return difference(specs, [np.array(values) for values in one], [np.array(values) for values in other], TOLERANCE)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, 2.0], [1.0005, 2.0], True),
        ([1.0, 2.0], [1.002, 2.0], False),
        ([0.0, 1e6], [1.0, 1e6], True),
        ([0.0, 1.0], [1e-3, 1.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [0.0, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([np.inf, 1.0], [-np.inf, 1.0], False),
    ],
)
def test_rounding_is_measured_by_the_largest_number(one, other, same):
    spec = TensorSpec("y", "FP64", (-1, 2))
    assert (differs([spec], [[one]], [[other]]) is None) is same


def test_a_short_float_has_steps_of_its_own():
    spec = TensorSpec("y", "FP16", (-1,))
    assert differs([spec], [np.array([1.0], np.float16)], [np.array([1.003], np.float16)]) is None
    bits = TensorSpec("y", "BF16", (-1,))
    assert differs([bits], [np.array([0x3F80], np.uint16)], [np.array([0x3F82], np.uint16)]) is None
    assert differs([bits], [np.array([0x3F80], np.uint16)], [np.array([0x3FC0], np.uint16)]) == "y"


@pytest.mark.parametrize(
    ("scores", "labels", "same"),
    [
        ([[0.4, 0.4, 0.2]], ([0], [1]), True),
        ([[0.5, 0.3, 0.2]], ([0], [1]), False),
        ([[0.5]], ([0], [1]), True),
        ([[0.7]], ([0], [1]), False),
        ([[0.9, 0.5, 0.5]], ([[3, 1, 2]], [[3, 2, 1]]), True),
        ([[0.9, 0.7, 0.5]], ([[3, 1, 2]], [[3, 2, 1]]), False),
        ([[[0.5, 0.5], [0.9, 0.1]]], ([[0, 0]], [[1, 0]]), True),
        ([[[0.5, 0.5], [0.9, 0.1]]], ([[0, 0]], [[1, 1]]), False),
    ],
)
def test_another_label_is_no_difference_where_scores_tie(scores, labels, same):
    found = differs([FP32, LABEL], [scores, labels[0]], [scores, labels[1]])
    assert found == (None if same else "label")


def test_a_tie_excuses_no_difference_of_scores():
    assert differs([FP32, LABEL], [[[0.4, 0.4, 0.2]], [0]], [[[0.4, 0.9, 0.2]], [1]]) == "y"


def test_another_shape_is_a_difference():
    assert differs([FP32], [[[1.0, 2.0]]], [[[1.0]]]) == "y"


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        (b"a text", b"so one two........"),
        (None, b"so one two........"),
        (b'{"a": 1}', b'{"one": true, "two": true, "a": 1}'),
        (b"[1, 2]", b"[1, 2]"),
        (b"{no json", b"{no json"),
    ],
)
def test_words_of_the_code_are_put_into_texts_of_each_kind(example, wanted):
    assert probe_texts.containing(example, ["one", "two"], 17) == wanted


THRESHOLD = 1234.5


class Looks:
    """Not this: docstring 17."""

    limit = 77

    def __init__(self):
        self.words = ["attribute", "other"]

    def predict(self, batch):
        """Nor this: 18."""
        return [x > 300 and "needle" in str(x) for x in batch] + [THRESHOLD]


def test_numbers_and_words_are_read_from_the_code():
    found = constants_of(Looks())
    assert {77.0, 300.0, 1234.5} <= set(found.numbers)
    assert {"needle", "attribute"} <= set(found.words)
    assert not {"".join(("Not this: ", "docstring 17.")), "".join(("Nor this: ", "18."))} & set(found.words)


class Runtime:
    def __init__(self, inputs, example=None, schemas=(), constants=None):
        self.signature = Signature(tuple(TensorSpec(*one) for one in inputs), (FP32,))
        self.example, self.schemas, self.ignored_columns, self.constants = example, schemas, (), constants


def made(runtime, samples=(), **how):
    return list(RowGenerator(runtime, next(recipes(runtime)), samples, **how).each())


def test_rows_are_the_same_every_time_and_each_is_unlike_the_others():
    inputs = [("x", "FP32", (-1, 3)), ("n", "UINT8", (-1,)), ("t", "BYTES", (-1,))]
    one, other = made(Runtime(inputs)), made(Runtime(inputs))
    keys = {
        tuple(row.batch[name].tobytes() if name != "t" else row.batch[name][0] for name in row.batch) for row in one
    }
    assert len(keys) == len(one) > 8
    assert all(np.array_equal(a.batch["x"], b.batch["x"], equal_nan=True) for a, b in zip(one, other, strict=True))
    values = np.concatenate([row.batch["x"] for row in one])
    assert values.min() < -100 or np.nanmin(values) < -100
    assert np.nanmax(values) > 1e5
    assert np.isnan(values).any()


def test_what_the_gateway_refuses_is_not_made():
    schema = InputSchema("x", missing=False, largest=100.0)
    values = np.concatenate([row.batch["x"] for row in made(Runtime([("x", "FP64", (-1, 3))], schemas=(schema,)))])
    assert not np.isnan(values).any()
    assert np.abs(values).max() == 100.0


def test_an_index_stays_within_what_is_known_where_a_library_could_end_the_process():
    ids = [("ids", "INT64", (-1, 4))]
    example = {"ids": np.array([[5, 40, 2, 1], [3, 3, 3, 3]])}
    assert max(row.batch["ids"].max() for row in made(Runtime(ids, example))) == 40
    assert max(row.batch["ids"].max() for row in made(Runtime(ids))) <= 9
    assert max(row.batch["ids"].max() for row in made(Runtime(ids), unbounded=True)) > 100
    assert min(row.batch["ids"].min() for row in made(Runtime(ids))) == 0


def test_a_text_that_may_be_missing_is_in_some_row_and_one_that_is_there_is_not_in_another():
    texts = [("t", "BYTES", (-1,)), ("pair", "BYTES", (-1,))]
    example = {"t": [b"a text"], "pair": [None]}
    rows = [row.batch for row in made(Runtime(texts, example, schemas=(InputSchema("t"),)))]
    assert any(row["t"][0] is None for row in rows)
    assert [row["pair"][0] is None for row in rows].count(False) == 1
    unsaid = [row.batch for row in made(Runtime(texts[:1], {"t": [b"a text"]}))]
    assert all(row["t"][0] is not None for row in unsaid)


def test_rows_of_the_warm_up_are_ordinary_ones():
    inputs = [("x", "FP32", (-1, 2)), ("t", "BYTES", (-1,))]
    samples = [{"x": [[7.0, 8.0], [9.0, 10.0]], "t": ["one", "two"]}]
    first, *rest = made(Runtime(inputs), samples)
    assert (first.batch["x"].tolist(), first.batch["t"].tolist()) == ([[7.0, 8.0]], [b"one"])
    assert any(row.batch["t"].tolist() == [b"two"] and row.batch["x"].tolist() == [[9.0, 10.0]] for row in rest)
    assert made(Runtime(inputs), [{"x": [[1.0, 2.0, 3.0]], "t": "no list"}])[0].batch["t"].tolist() == [b"a good day"]


def test_a_moment_in_which_the_machine_was_busy_does_not_make_the_probe_see_less():
    stalls = iter([0.3])

    def predict(batch):
        if len(batch["x"]) == 1 and np.abs(batch["x"]).max() > 100:
            # One of these runs is put off.
            time.sleep(next(stalls, 0.0))
        return {"y": batch["x"]}

    runtime = Runtime([("x", "FP32", (-1, 3))])
    runtime.predict = predict
    load = {"batching": "auto", "batch_rows_max": 8, "tolerance": TOLERANCE}
    quiet = Runtime([("x", "FP32", (-1, 3))])
    quiet.predict = lambda batch: {"y": batch["x"]}
    assert decide_batching(runtime, load).verdict.rows == decide_batching(quiet, load).verdict.rows > 10


def test_a_model_that_takes_few_rows_is_told_what_to_set():
    def predict(batch):
        assert len(batch["x"]) <= 2
        return {"y": batch["x"]}

    runtime = Runtime([("x", "FP32", (-1, 3))])
    runtime.predict = predict
    load = {"batching": "auto", "batch_rows_max": 32, "tolerance": TOLERANCE}
    assert "where it takes fewer, set batch_rows_max" in decide_batching(runtime, load).batching_off
    assert decide_batching(runtime, {**load, "batch_rows_max": 2}).batched
