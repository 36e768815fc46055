"""Data frames against served models: the answer is the library's, in whatever order the columns come."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

import inferd

COLUMNS = ("age", "income", "visits")

# A class of arrays that says what its columns are called, as models of tables do.
NAMED = """
from inferd import TensorSpec
from inferd.types import InputSchema

class Weighs:
    inputs = [TensorSpec("x", "FP64", (-1, {width}))]
    outputs = [TensorSpec("y", "FP64", (-1,))]
    schemas = [InputSchema("x", {columns}, missing={missing})]
    ignored_columns = ["id"]

    def load(self):
        pass

    def predict(self, batch):
        return {{"y": (batch["x"] * [10.0 ** position for position in range({width})]).sum(axis=1)}}
"""

BY_COLUMN = """
from inferd import Model

class Greets(Model):
    def predict(self, name: list[str | None], age: list[float | None], visits: list[int], fee: list[float] = 2.5) -> list[str]:
        rows = zip(name, age, visits, fee, strict=True)
        return [f"{one}|{years}|{count}|{price}" for one, years, count, price in rows]
"""

STRICT = """
from inferd import Model

class Strict(Model):
    def predict(self, name: list[str], age: list[float]) -> list[str]:
        return [f"{one}|{years}" for one, years in zip(name, age, strict=True)]
"""

STREAMS = """
from collections.abc import Iterator

from inferd import Model

class Streams(Model):
    def predict(self, name: list[str | None], age: list[float]) -> Iterator[list[str]]:
        for _ in range(2):
            yield [f"{one}|{years}" for one, years in zip(name, age, strict=True)]
"""


class Blocking:
    """The face of an :class:`inferd.AsyncClient` that waits, so that one test speaks for both."""

    def __init__(self, url):
        self._loop = asyncio.new_event_loop()

        async def make():
            return inferd.AsyncClient(url)

        self._client = self._loop.run_until_complete(make())

    def infer(self, *args, **named):
        return self._loop.run_until_complete(self._client.infer(*args, **named))

    def stream(self, *args, **named):
        async def every():
            return [answer async for answer in self._client.stream(*args, **named)]

        return self._loop.run_until_complete(every())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


def write_named(folder, columns, *, missing=True):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weighs.py").write_text(NAMED.format(width=len(columns), columns=tuple(columns), missing=missing))
    return folder / "weighs.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    files = [write_named(folder, COLUMNS), folder / "greets.py", folder / "strict.py", folder / "streams.py"]
    for file, text in zip(files[1:], (BY_COLUMN, STRICT, STREAMS), strict=True):
        file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with inferd.Server(*files, threads=1, profiling=False) as server:
            yield server


@pytest.fixture(params=["http", "grpc"])
def scheme(request):
    return request.param


@pytest.fixture(params=[inferd.Client, Blocking], ids=["blocking", "asyncio"])
def client(request, scheme, server):
    with request.param(f"{scheme}://{server.address}") as connected:
        yield connected


FRAME = pd.DataFrame({"visits": [5, 6], "id": ["a", "b"], "age": [1.0, 2.0], "income": [3.0, 4.0]}, index=[9, 9])
WEIGHED = [1 + 30 + 500, 2 + 40 + 600]


def test_columns_go_where_their_names_say_in_any_order(client):
    random = np.random.default_rng(0)
    for _ in range(4):
        shuffled = FRAME[random.permutation(FRAME.columns)]
        assert client.infer("weighs", shuffled)["y"].tolist() == WEIGHED
    assert client.infer("weighs", pl.from_pandas(FRAME))["y"].tolist() == WEIGHED
    assert client.infer("weighs", FRAME.to_dict("list"))["y"].tolist() == WEIGHED
    assert client.infer("weighs", FRAME.drop(columns="id").iloc[1])["y"].tolist() == WEIGHED[1:]


def test_missing_and_foreign_columns_are_listed(client):
    with pytest.raises(inferd.InvalidInput, match="'age' missing, 'years' unexpected"):
        client.infer("weighs", FRAME.rename(columns={"age": "years"}))


def test_missing_values_reach_a_model_that_takes_them(client):
    frame = pd.DataFrame(
        {
            "visits": pd.Series([1, 2], dtype="Int64"),
            "age": pd.Series([None, 3], dtype="Int64"),
            "name": pd.Series(["Eva", None], dtype="string"),
        }
    )
    found = client.infer("greets", frame)["output"].tolist()
    assert found == [b"Eva|None|1|2.5", b"None|3.0|2|2.5"]


def test_missing_values_do_not_reach_a_model_that_does_not(client):
    frame = pd.DataFrame({"age": [1.0, np.nan], "name": ["Eva", None]})
    with pytest.raises(inferd.InvalidInput, match="row 1: column 'name': the text is missing"):
        client.infer("strict", frame)
    # NaN is a number to a model that says nothing of it.
    assert client.infer("strict", frame.fillna({"name": "Ada"}))["output"].tolist() == [b"Eva|1.0", b"Ada|nan"]
    with pytest.raises(inferd.InvalidInput, match="row 1: column 'visits': a value is missing"):
        client.infer(
            "greets", pd.DataFrame({"name": ["a", "b"], "age": [1.0, 2.0], "visits": pd.array([1, None], "Int64")})
        )


def test_a_stream_takes_frames_too(client):
    frame = pd.DataFrame({"age": [1.5], "name": [None]})
    assert [answer["output"].tolist() for answer in client.stream("streams", frame)] == [[b"None|1.5"]] * 2


def test_a_model_that_was_replaced_is_never_asked_in_the_old_order(scheme, tmp_path, cache):
    """The second server takes the first one's port, as a deployment that rolls does."""
    file = write_named(tmp_path, COLUMNS)
    with inferd.Server(file, threads=1, profiling=False) as server:
        port = int(server.address.rsplit(":", 1)[1])
        client = inferd.Client(f"{scheme}://{server.address}")
        assert client.infer("weighs", FRAME)["y"].tolist() == WEIGHED
    write_named(tmp_path, ("visits", "age", "income"))
    with client, inferd.Server(file, threads=1, profiling=False, port=port):
        assert client.infer("weighs", FRAME)["y"].tolist() == [5 + 10 + 300, 6 + 20 + 400]


def test_a_model_whose_columns_got_names_is_never_asked_by_position(scheme, tmp_path, cache):
    file = write_named(tmp_path, COLUMNS)
    unnamed = file.read_text().replace(f"{COLUMNS!r}", "()").replace('ignored_columns = ["id"]', "")
    frame = FRAME.drop(columns="id")
    file.write_text(unnamed)
    with inferd.Server(file, threads=1, profiling=False) as server:
        port = int(server.address.rsplit(":", 1)[1])
        client = inferd.Client(f"{scheme}://{server.address}")
        assert client.infer("weighs", frame)["y"].tolist() == [5 + 10 + 300, 6 + 20 + 400]
    write_named(tmp_path, COLUMNS)
    with client, inferd.Server(file, threads=1, profiling=False, port=port):
        assert client.infer("weighs", frame)["y"].tolist() == WEIGHED


def test_the_server_names_row_and_column_of_what_the_model_refuses(scheme, tmp_path, cache):
    file = write_named(tmp_path, COLUMNS, missing=False)
    with inferd.Server(file, threads=1, profiling=False) as server:
        with inferd.Client(f"{scheme}://{server.address}") as client:
            frame = FRAME.astype({"income": float})
            frame.iloc[1, frame.columns.get_loc("income")] = np.nan
            with pytest.raises(inferd.InvalidInput, match=r"row 1\b.*income"):
                client.infer("weighs", frame)


def test_metadata_and_configuration_say_what_columns_there_are(server):
    with inferd.Client(server.url) as client:
        metadata = client.metadata("weighs")
        assert metadata["inputs"][0]["parameters"]["columns"] == list(COLUMNS)
        assert metadata["inputs"][0]["parameters"]["missing"] is True
        assert metadata["parameters"]["ignored_columns"] == ["id"]
    with inferd.Client(f"grpc://{server.address}") as client:
        told = json.loads(client.config("weighs")["parameters"]["input_schemas"]["string_value"])
        assert told["inputs"]["x"]["columns"] == list(COLUMNS)
        assert told["ignored_columns"] == ["id"]
