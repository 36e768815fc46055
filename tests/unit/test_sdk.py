"""Annotations become tensors, and values rows, without a server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inferd import Context, InvalidInput, Model, ModelFailed, Sequence, Shape, testing
from inferd.sdk.calls import Call


def described(method):
    call = Call(method)
    return [str(column.spec) for column in call.inputs], [str(column.spec) for column in call.outputs]


def test_arrays_are_typed_by_dtype_and_the_shape_of_a_row():
    def predict(x: Annotated[NDArray[np.float32], Shape(3, -1)]) -> Annotated[NDArray[np.int64], Shape()]: ...

    assert described(predict) == (["x: FP32[?, 3, ?]"], ["output: INT64[?]"])


@dataclass
class Point:
    x: float
    y: float = 0.0


class Struct(msgspec.Struct):
    name: str


class Record(TypedDict):
    a: int


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        (list[str], "BYTES"),
        (list[bytes], "BYTES"),
        (list[int], "INT64"),
        (list[float], "FP64"),
        (list[bool], "BOOL"),
        (list[dict], "BYTES"),
        (list[Point], "BYTES"),
        (list[Struct], "BYTES"),
        (list[Record], "BYTES"),
        (list[Image.Image], "BYTES"),
        (list[Any], "BYTES"),
        (str, "BYTES"),
        (float, "FP64"),
    ],
)
def test_every_type_that_the_documents_name_is_a_tensor_of_one_value_a_row(kind, datatype):
    def predict(x) -> list[int]: ...

    predict.__annotations__["x"] = kind
    assert described(predict) == ([f"x: {datatype}[?]"], ["output: INT64[?]"])


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({}, "no annotation"),
        ({"x": NDArray[np.float32]}, "without dtype or shape"),
        ({"x": np.ndarray}, "without dtype or shape"),
        ({"x": set}, "unsupported type"),
        ({"x": "NoSuchName"}, "unresolved annotation"),
    ],
)
def test_an_annotation_that_says_too_little_is_refused_with_what_would_do(annotations, words):
    def predict(x) -> list[int]: ...

    predict.__annotations__.update(annotations)
    with pytest.raises(ModelFailed, match=words):
        Call(predict)


class Words(Model):
    def predict(self, text: list[str]) -> dict:
        return {"count": [len(one.split()) for one in text], "first": [one[:1] for one in text]}


def test_outputs_that_nothing_is_said_of_are_seen_by_one_run():
    with testing.loaded(Words) as model:
        assert [str(spec) for spec in model.signature.outputs] == ["count: INT64[?]", "first: BYTES[?]"]
        answer = model.predict(text=["a b", ""])
        assert list(answer["count"]) == [2, 0]
        assert list(answer["first"]) == ["a", ""]


class Clock(Model):
    """One row at a time, asynchronously."""

    async def predict(self, seconds: float) -> str:
        if seconds < 0:
            raise InvalidInput("time does not run backwards")
        await asyncio.sleep(0)
        return f"{seconds:.0f} s"


def test_a_method_of_one_row_is_called_for_each_and_names_the_row_that_is_wrong():
    with testing.loaded(Clock) as model:
        assert model.predict(seconds=[1.0, 2.0]) == ["1 s", "2 s"]
        with pytest.raises(InvalidInput, match="row 1: time does not run backwards"):
            model.predict(seconds=[1.0, -2.0])


class Distance(Model):
    def predict(self, point: list[Point]) -> Annotated[NDArray[np.float32], Shape()]:
        return np.array([np.hypot(one.x, one.y) for one in point], np.float32)


def test_json_is_checked_against_its_type_and_the_row_is_named():
    call = Call(Distance().predict)
    rows = np.array([b'{"x": 3, "y": 4}', b'{"x": 1}'], dtype=object)
    assert call({"point": rows})["output"].tolist() == [5, 1]
    rows[1] = b'{"x": "far"}'
    with pytest.raises(InvalidInput, match="row 1: not JSON of the annotated type"):
        call({"point": rows})


class Brightness(Model):
    def predict(self, image: list[Image.Image]) -> list[float]:
        return [float(np.asarray(one.convert("L")).mean()) for one in image]


def test_image_files_arrive_as_images():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 255, 255)).save(buffer, format="JPEG")
    call = Call(Brightness().predict)
    assert call({"image": np.array([buffer.getvalue()], dtype=object)})["output"].tolist() == [255.0]
    with pytest.raises(InvalidInput, match="row 0: not an image"):
        call({"image": np.array([b"no image"], dtype=object)})


class Staged(Model):
    def setup(self):
        self.was_set_up = True

    def preprocess(self, text: list[str]) -> list:
        assert self.was_set_up
        return [[len(one), one.count("a")] for one in text]

    def load(self, weight: float = 1.0):
        self.weights = np.array([weight, 10], np.float32)

    def predict(self, x: Annotated[NDArray[np.float32], Shape(2)]) -> Annotated[NDArray[np.float32], Shape()]:
        return x @ self.weights

    def postprocess(self, score: list[float]) -> list[str]:
        assert not hasattr(self, "weights")
        return [f"{one:.0f}" for one in score]


def test_stages_hand_on_what_the_next_one_is_annotated_with():
    with testing.loaded(Staged, weight=2.0) as model:
        assert model.predict(text=["banana", "x"]) == ["42", "2"]
        assert [str(spec) for spec in model.signature.inputs] == ["text: BYTES[?]"]
        assert [str(spec) for spec in model.signature.outputs] == ["output: BYTES[?]"]


class Wrong(Model):
    def predict(self, text: list[str]) -> list[int]:
        return ["not", "numbers"]


def test_an_answer_of_another_type_than_annotated_is_the_models_fault():
    with testing.loaded(Wrong) as model, pytest.raises(ModelFailed, match="returned an invalid"):
        model.predict(text=["a", "b"])


class Picky(Model):
    def predict(self, text: list[str]) -> list[str]:
        return [InvalidInput("no digits, please") if one.isdigit() else one for one in text]


def test_an_error_in_place_of_a_row_is_that_rows_error():
    with testing.loaded(Picky) as model, pytest.raises(InvalidInput, match="row 1: no digits"):
        model.predict(text=["a", "7"])


def test_inputs_that_do_not_fit_are_named():
    with testing.loaded(Words) as model:
        with pytest.raises(InvalidInput, match="takes"):
            model.predict(words=["a"])


def test_a_method_that_yields_streams_the_responses_to_one_request():
    closed = []

    def predict(text: str, times: int) -> Iterator[str]:
        try:
            for _ in range(times):
                yield text
        finally:
            closed.append(text)

    call = Call(predict)
    assert call.streams
    assert [str(column.spec) for column in call.outputs] == ["output: BYTES[?]"]
    batch = {"text": np.array([b"a"], object), "times": np.array([3])}
    assert [found["output"].tolist() for found in call.stream(batch)] == [[b"a"]] * 3
    responses = call.stream(batch)
    next(responses)
    responses.close()
    assert closed == ["a", "a"]
    with pytest.raises(InvalidInput, match="one row, but the request has 2 rows"):
        next(call.stream({"text": np.array([b"a", b"b"], object), "times": np.array([1, 1])}))


class Total(Model):
    sequence = Sequence(state={"before": "total"}, idle_max_s=5)

    def predict(self, value: list[float], before: list[float]) -> list[float]:
        return [one + other for one, other in zip(value, before, strict=True)]


def test_a_sequence_says_what_is_kept_from_one_request_to_the_next():
    assert Total.sequence.to_json(batched=True) == {
        "idle_max_s": 5,
        "sequences_max": 10_000,
        "controls": {},
        "state": [{"input": "before", "output": "total", "shape": None}],
    }
    shaped = Sequence(state=["memory"], shapes={"memory": (0, 4)})
    assert [
        one.to_json(batched=batched)["state"][0]["shape"] for one, batched in ((shaped, True), (shaped, False))
    ] == [
        [1, 0, 4],
        [0, 4],
    ]


def test_a_model_of_sequences_has_no_hooks():
    class Hooked(Total):
        def preprocess(self, value: list[float]) -> list[float]:
            return value

    with pytest.raises(ModelFailed, match="sequences can't have preprocess"), testing.loaded(Hooked):
        pass


def test_a_context_is_no_input_of_clients():
    def predict(text: list[str], about: list[Context]) -> list[str]:
        return [one + context.headers.get("x", "") for one, context in zip(text, about, strict=True)]

    call = Call(predict)
    assert described(predict) == (["text: BYTES[?]"], ["output: BYTES[?]"])
    about = np.array([b'{"headers": {"x": "!"}}', b"", b"{}"], object)
    batch = {"text": np.array([b"a", b"b", b"c"], object), "about": about, "about.cancelled": np.zeros(3, bool)}
    assert call(batch)["output"].tolist() == [b"a!", b"b!", b"c"]
    assert call.contexts.controls == {"about": "context", "about.cancelled": "cancelled"}


@pytest.mark.parametrize("row", [True, False])
def test_a_context_is_of_as_many_rows_as_the_other_arguments(row):
    def of_rows(text: list[str], context: Context) -> list[str]: ...

    def of_one(text: str, context: list[Context]) -> str: ...

    with pytest.raises(ModelFailed, match="annotate it as Context" if row else r"annotate it as list\[Context\]"):
        Call(of_one if row else of_rows)


def test_an_array_beside_a_context_is_that_of_one_row():
    def predict(x: Annotated[NDArray[np.float32], Shape(2)], context: Context) -> float:
        assert (x.shape, context.cancelled) == ((2,), False)
        return float(x.sum())

    batch = {"x": np.ones((3, 2), np.float32)}
    assert Call(predict)(batch)["output"].tolist() == [2.0, 2.0, 2.0]


def test_an_async_generator_is_closed_where_it_yields():
    closed = []

    async def predict(text: list[str]) -> AsyncIterator[list[str]]:
        try:
            while True:
                await asyncio.sleep(0)
                yield text
        finally:
            closed.append(text)

    responses = Call(predict).stream({"text": np.array([b"a", b"b"], object)})
    assert next(responses)["output"].tolist() == [b"a", b"b"]
    responses.close()
    assert closed == [["a", "b"]]


def test_the_first_yield_shows_what_the_outputs_are():
    def predict(text: list[str]):
        yield {"score": [1.0] * len(text)}

    assert described(predict)[1] == ["score: FP64[?]"]


class Shorten(Model):
    def predict(self, text: list[str], top: list[int] = 2, end: Annotated[NDArray[np.float32], Shape(2)] = (0, 1)):  # type: ignore[assignment]
        return [f"{one[:count]}{row[1]:g}" for one, count, row in zip(text, top, end, strict=True)]


def test_an_argument_with_a_default_may_be_left_out():
    call = Call(Shorten().predict)
    assert {name: row.tolist() for name, row in call.defaults.items()} == {"top": [2], "end": [[0.0, 1.0]]}
    with testing.loaded(Shorten) as model:
        assert model.predict(text=["abcd", "efgh"]) == ["ab1", "ef1"]
        assert model.predict(text=["abcd"], top=[3], end=[[5, 7]]) == ["abc7"]
        with pytest.raises(InvalidInput, match="the model takes"):
            model.predict(top=[3])


@pytest.mark.parametrize(
    ("kind", "default"),
    [(int, 0.5), (int, None), (str, 5), (list[int], [1]), (float, "x"), (list[dict], 5), (bool, 2)],
)
def test_a_default_that_is_no_row_of_its_argument_is_refused(kind, default):
    def predict(x=default) -> list[int]: ...

    predict.__annotations__["x"] = kind
    with pytest.raises(ModelFailed, match=r"default .* of 'x' of .*predict\(\) does not match"):
        _ = Call(predict).defaults
