"""What comes with a request, as methods of models see it: headers, parameters, deadline, and whether anybody waits."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc

import inferd
from inferd import testing
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ABOUT = """
from inferd import Context, Model


class About(Model):
    def predict(self, text: list[str], context: list[Context]) -> list[dict]:
        return [
            {
                "text": one,
                "id": about.id,
                "headers": dict(about.headers),
                "parameters": dict(about.parameters),
                "remaining": about.remaining_s,
                "cancelled": about.cancelled,
            }
            for one, about in zip(text, context, strict=True)
        ]
"""

SLOW = '''
import time
from pathlib import Path

from inferd import Context, Model


class Slow(Model):
    """Works until nobody waits any more, and says so in a file."""

    example = {"file": ["", ""]}

    def predict(self, file: str, context: Context) -> float:
        steps = 0
        if file:
            Path(file).write_text("begun")
            while not context.cancelled and steps < 20_000:
                time.sleep(0.001)
                steps += 1
            Path(file).write_text("cancelled" if context.cancelled else "waited")
        return float(steps)
'''

STAGED = """
from inferd import Context, Model


class Staged(Model):
    def preprocess(self, text: list[str], asked: list[Context]) -> list[str]:
        return [one + asked[row].headers.get("x-mark", "") for row, one in enumerate(text)]

    def predict(self, marked: list[str]) -> list[str]:
        return [one.upper() for one in marked]

    def postprocess(self, loud: list[str], context: list[Context]) -> list[str]:
        return [one + context[row].headers.get("x-mark", "") for row, one in enumerate(loud)]
"""

STREAM = """
from collections.abc import Iterator

from inferd import Context, Model


class Stream(Model):
    def predict(self, text: str, context: Context) -> Iterator[str]:
        for _ in range(int(context.parameters.get("times", 1))):
            yield text + context.headers.get("x-mark", "")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[inferd.Server]:
    folder = tmp_path_factory.mktemp("context")
    files = {"about": ABOUT, "slow": SLOW, "staged": STAGED, "stream": STREAM}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with inferd.Server(*(folder / f"{name}.py" for name in files), threads=1, profiling=False) as server:
            yield server


def post(server: inferd.Server, path: str, texts: list[str], headers: dict[str, str], **more: Any) -> httpx.Response:
    name = "file" if "slow" in path else "text"
    tensor = {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    url = f"{server.url}/v2/models/{path}/infer"
    return httpx.post(url, json={"inputs": [tensor], **more}, headers=headers, timeout=30)


def test_headers_parameters_and_deadline_reach_the_rows_that_they_came_with(server: inferd.Server) -> None:
    headers = {"X-Who": "me", "Authorization": "secret", "Cookie": "secret", "Inferd-Timeout-Ms": "20000"}
    parameters = {"heat": 0.5, "top": 3, "loud": True, "name": "x", "priority": 1, "list": [1]}
    answer = post(server, "about", ["a", "b"], headers, id="mine", parameters=parameters)
    found = [json.loads(one) for one in answer.json()["outputs"][0]["data"]]
    assert [one["text"] for one in found] == ["a", "b"]
    for one in found:
        assert one["id"] == "mine"
        assert one["headers"]["x-who"] == "me"
        assert "secret" not in json.dumps(one), "credentials are not the model's"
        assert one["parameters"] == {"heat": 0.5, "top": 3, "loud": True, "name": "x"}
        assert 0 < one["remaining"] <= 20
        assert one["cancelled"] is False


def test_requests_that_share_a_batch_keep_their_own(server: inferd.Server) -> None:
    def one(number: int) -> Any:
        answer = post(server, "about", [str(number)], {"X-Who": str(number)})
        return json.loads(answer.json()["outputs"][0]["data"][0])

    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=number: found.update({n: one(n)})) for number in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one["text"] == one["headers"]["x-who"] == str(number) for number, one in found.items())


def test_a_request_that_is_cut_into_parts_brings_its_context_to_each(server: inferd.Server) -> None:
    answer = post(server, "about", [str(row) for row in range(100)], {"X-Who": "all"})
    found = [json.loads(one) for one in answer.json()["outputs"][0]["data"]]
    assert [one["text"] for one in found] == [str(row) for row in range(100)]
    assert {one["headers"]["x-who"] for one in found} == {"all"}
    assert batches(server, "about") > 3


def test_rows_of_a_model_that_is_not_batched_are_of_one_request(tmp_path: Path) -> None:
    (tmp_path / "about.py").write_text(ABOUT)
    with inferd.Server(tmp_path / "about.py", batching="off", profiling=False) as server:
        answer = post(server, "about", ["a", "b"], {"X-Who": "me"})
    found = [json.loads(one) for one in answer.json()["outputs"][0]["data"]]
    assert [(one["text"], one["headers"]["x-who"]) for one in found] == [("a", "me"), ("b", "me")]


def batches(server: inferd.Server, model: str) -> int:
    stats = httpx.get(f"{server.url}/v2/models/{model}/stats").json()["model_stats"][0]
    return int(stats["execution_count"])


def test_metadata_of_grpc_is_read_as_headers_are(server: inferd.Server) -> None:
    with tritonclient.grpc.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = tritonclient.grpc.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"a"], dtype=object))
        answer = client.infer("about", [tensor], headers={"x-who": "me"}, request_id="q", parameters={"heat": "low"})
    one = json.loads(answer.as_numpy("output")[0])
    assert (one["id"], one["headers"]["x-who"], one["parameters"]) == ("q", "me", {"heat": "low"})


@pytest.mark.parametrize("how", ["gone", "timeout"])
def test_a_model_that_looks_stops_when_nobody_waits_any_more(server: inferd.Server, tmp_path: Path, how: str) -> None:
    file = tmp_path / "mark"
    body = {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1], "data": [str(file)]}]}
    url = f"{server.url}/v2/models/slow/infer"
    if how == "gone":
        # The client gives up, and closes its connection.
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=httpx.Timeout(10, read=1.0))
    else:
        answer = httpx.post(url, json=body, headers={"Inferd-Timeout-Ms": "5000"}, timeout=30)
        assert answer.status_code == 504
    wait_for(lambda: file.exists() and file.read_text() == "cancelled", "the model to stop", 30)


def test_hooks_read_it_and_metadata_does_not_show_it(server: inferd.Server) -> None:
    answer = post(server, "staged", ["a"], {"X-Mark": "!"})
    assert answer.json()["outputs"][0]["data"] == ["A!!"]
    inputs = httpx.get(f"{server.url}/v2/models/staged").json()["inputs"]
    assert [one["name"] for one in inputs] == ["text"]


def test_streams_read_it_too(server: inferd.Server) -> None:
    body = {"text": "a", "times": 3}
    url = f"{server.url}/v2/models/stream/generate_stream"
    answer = httpx.post(url, json=body, headers={"X-Mark": "!"}, timeout=30)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert [one["output"] for one in events] == ["a!"] * 3


def test_without_a_server_it_is_given_by_hand_or_empty(tmp_path: Path) -> None:
    (tmp_path / "staged.py").write_text(STAGED)
    with testing.loaded(tmp_path / "staged.py") as model:
        assert model.predict(text=["a"]) == ["A"]
        mark = inferd.Context(headers={"x-mark": "!"})
        assert model.predict(text=["a"], asked=[mark], context=[mark]) == ["A!!"]


def test_a_context_knows_its_time() -> None:
    assert inferd.Context().remaining_s is None
    soon = inferd.Context(deadline_s=time.monotonic() + 5)
    assert soon.remaining_s is not None
    assert 0 < soon.remaining_s <= 5
    assert inferd.Context(deadline_s=time.monotonic() - 1).remaining_s == 0


def test_a_model_that_reads_it_has_no_cache_and_the_right_form(tmp_path: Path) -> None:
    (tmp_path / "about.py").write_text(ABOUT)
    with (
        pytest.raises(inferd.ModelFailed, match="leave cache_max_bytes out"),
        inferd.Server(tmp_path / "about.py", cache_max_bytes="1MiB"),
    ):
        pass
    wrong = ABOUT.replace("list[Context]", "Context", 1)
    (tmp_path / "wrong.py").write_text(wrong)
    with (
        pytest.raises(inferd.ModelFailed, match=r"annotate it as list\[Context\]"),
        inferd.Server(tmp_path / "wrong.py"),
    ):
        pass
