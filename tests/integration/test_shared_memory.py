"""Tensors in memory that a client shares with the server, over both protocols, and what a bad client can't do."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from google.protobuf.json_format import MessageToDict

from outside.clients import KINDS, Client
from outside.metrics import Metrics
from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = np.array([[1.5, -2.0, 3.25, 4.0]], np.float32)


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inferd]:
    from outside import models

    # The client's library starts it when it is first needed, and it lasts as long as this process.
    resource_tracker.ensure_running()
    folder = tmp_path_factory.mktemp("models")
    models.identity(folder / "words" / "1" / "model.onnx", "BYTES", ["n", 1])
    models.add_sub(folder / "add_sub" / "1" / "model.onnx")
    models.identity(folder / "four" / "1" / "model.onnx", "FP32", ["n", 4])
    arguments = ("--shared-memory", "--no-profiling", "--cache-max-bytes", "1MiB")
    with Inferd(tmp_path_factory.mktemp("shared_memory"), folder, *arguments) as running:
        yield running


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, server: Inferd) -> Iterator[Client]:
    with Client(request.param, server.address) as connected:
        yield connected
        connected.call("unregister_system_shared_memory")


@contextmanager
def region(size: int, *contents: np.ndarray) -> Iterator[tuple[str, Any]]:
    """A shared-memory object, and its key; gone at the end of the block."""
    key = f"/inferd-test-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region("test", key, size, create_only=True)
    try:
        if contents:
            shm.set_shared_memory_region(handle, list(contents))
        yield key, handle
    finally:
        shm.destroy_shared_memory_region(handle)


def tensor_in(client: Client, name: str, shape: list[int], datatype: str, *place: Any) -> Any:
    made = client.module.InferInput(name, shape, datatype)
    made.set_shared_memory(*place)
    return made


def output_in(client: Client, name: str, *place: Any) -> Any:
    made = client.output(name)
    made.set_shared_memory(*place)
    return made


def status(client: Client, name: str = "") -> list[dict[str, Any]]:
    told = client.describe("get_system_shared_memory_status", name)
    return list(told.get("regions", {}).values()) if client.grpc else told


def test_inputs_and_outputs_in_shared_memory(client: Client) -> None:
    with region(64, ROW) as (key, handle):
        client.call("register_system_shared_memory", "both", key, 64)
        answer = client.infer(
            "four",
            [tensor_in(client, "x", [1, 4], "FP32", "both", 16)],
            outputs=[output_in(client, "y", "both", 32, 16)],
        )
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 4], 16), ROW)
        # The answer says where the tensor is, and how long, but does not carry it.
        said = answer.get_output("y")
        if client.grpc:
            said = MessageToDict(said, preserving_proto_field_name=True)
        assert "data" not in said
        assert [int(dim) for dim in said["shape"]] == [1, 4]
        parameters = said["parameters"]
        told = {
            name: next(iter(value.values())) if isinstance(value, dict) else value for name, value in parameters.items()
        }
        assert {name: str(value) for name, value in told.items()} == {
            "shared_memory_region": "both",
            "shared_memory_byte_size": "16",
            "shared_memory_offset": "16",
        }


def test_some_tensors_in_shared_memory_and_some_in_the_request(client: Client) -> None:
    a, b = np.array([[1, 2, 3, 4]], np.int32), np.array([[10, 20, 30, 40]], np.int32)
    with region(32, b) as (key, handle):
        client.call("register_system_shared_memory", "some", key, 16)
        client.call("register_system_shared_memory", "rest", key, 16, offset=16)
        inputs = [client.input("a", a, "INT32"), tensor_in(client, "b", [1, 4], "INT32", "some", 16)]
        outputs = [output_in(client, "sum", "rest", 16), client.output("difference")]
        answer = client.infer("add_sub", inputs, outputs=outputs)
        np.testing.assert_array_equal(answer.as_numpy("difference"), a - b)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.int32, [1, 4], 16), a + b)


def test_text_in_shared_memory(client: Client) -> None:
    from tritonclient.utils import serialize_byte_tensor

    words = serialize_byte_tensor(np.array([["straße"], [""]], np.object_))
    size = len(words.item())
    with region(256, words) as (key, handle):
        client.call("register_system_shared_memory", "words", key, 256)
        inputs = [tensor_in(client, "x", [2, 1], "BYTES", "words", size)]
        client.infer("words", inputs, outputs=[output_in(client, "y", "words", 100, 100)])
        told = shm.get_contents_as_numpy(handle, np.object_, [2, 1], 100)
        assert [word.decode() for word in told.ravel()] == ["straße", ""]
        # Bytes that are no text elements are found out on the copy that was made.
        code, message = client.refusal("infer", "words", [tensor_in(client, "x", [2, 1], "BYTES", "words", size - 1)])
        assert (code, "'x'" in message) == (400, True), message


def test_large_tensors(client: Client) -> None:
    sent = np.arange(400_000, dtype=np.float32).reshape(100_000, 4)
    with region(2 * sent.nbytes, sent) as (key, handle):
        client.call("register_system_shared_memory", "large", key, 2 * sent.nbytes)
        inputs = [tensor_in(client, "x", list(sent.shape), "FP32", "large", sent.nbytes)]
        client.infer("four", inputs, outputs=[output_in(client, "y", "large", sent.nbytes, sent.nbytes)])
        np.testing.assert_array_equal(
            shm.get_contents_as_numpy(handle, np.float32, list(sent.shape), sent.nbytes), sent
        )


def test_regions_are_listed_and_forgotten(client: Client) -> None:
    assert status(client) == []
    with region(64) as (key, _):
        client.call("register_system_shared_memory", "one", key, 32)
        client.call("register_system_shared_memory", "two", key, 32, offset=32)
        assert sorted(one["name"] for one in status(client)) == ["one", "two"]
        [two] = status(client, "two")
        assert (two["key"], int(two["offset"]), int(two["byte_size"])) == (key, 32, 32)
        code, message = client.refusal("register_system_shared_memory", "one", key, 32)
        assert (code, "unregister it first" in message) == (400, True), message
        client.call("unregister_system_shared_memory", "one")
        # Nothing to forget is no error: clients begin with it, to be sure.
        client.call("unregister_system_shared_memory", "one")
        assert client.refusal("get_system_shared_memory_status", "one")[0] == 404
        assert client.refusal("infer", "four", [tensor_in(client, "x", [1, 4], "FP32", "one", 16)])[0] == 404
        client.call("unregister_system_shared_memory")
        assert status(client) == []


@pytest.mark.parametrize("key", ["", "/", "..", "/../etc/passwd", "a/b", "/nothing-of-this-name"])
def test_keys_that_lead_elsewhere_are_refused(client: Client, key: str) -> None:
    assert client.refusal("register_system_shared_memory", "r", key, 16)[0] == 400


def test_links_files_of_others_and_objects_that_are_too_short_are_refused(client: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0" * 64)
    link = Path("/dev/shm") / f"inferd-test-link-{uuid.uuid4().hex}"
    link.symlink_to(secret)
    try:
        assert client.refusal("register_system_shared_memory", "r", link.name, 16)[0] == 400
    finally:
        link.unlink()
    with region(64) as (key, _):
        for size, offset in ((65, 0), (1, 64), (0, 0), (2**63 - 1, 2**62)):
            code, message = client.refusal("register_system_shared_memory", "r", key, size, offset=offset)
            assert (code, "has 64 bytes" in message) == (400, True), message
        if os.geteuid() == 0:
            os.chown(f"/dev/shm{key}", 65534, 65534)
            code, message = client.refusal("register_system_shared_memory", "r", key, 64)
            assert (code, "user" in message) == (400, True), message


def test_slices_outside_the_region_or_of_a_wrong_size_are_refused(client: Client) -> None:
    with region(64, ROW) as (key, handle):
        client.call("register_system_shared_memory", "r", key, 32)
        for size, offset, said in (
            (16, 17, "do not lie in region"),
            (16, 2**62, "do not lie in region"),
            (15, 0, "does not take 15 bytes"),
            (32, 0, "does not take 32 bytes"),
        ):
            code, message = client.refusal("infer", "four", [tensor_in(client, "x", [1, 4], "FP32", "r", size, offset)])
            assert (code, said in message) == (400, True), message
        inputs = [client.input("x", ROW, "FP32")]
        code, message = client.refusal("infer", "four", inputs, outputs=[output_in(client, "y", "r", 8, 16)])
        assert (code, "more room" in message) == (400, True), message
        # Nothing was written.
        assert not shm.get_contents_as_numpy(handle, np.float32, [8], 16).any()


def test_a_region_that_its_owner_shrinks_fails_its_request_and_nothing_else(client: Client, server: Inferd) -> None:
    with region(8192, ROW) as (key, _):
        client.call("register_system_shared_memory", "r", key, 8192)
        inputs = [tensor_in(client, "x", [1, 4], "FP32", "r", 16)]
        os.truncate(f"/dev/shm{key}", 0)
        code, message = client.refusal("infer", "four", inputs)
        assert (code, "shorter" in message) == (400, True), message
        outputs = [output_in(client, "y", "r", 16, 4096)]
        code, message = client.refusal("infer", "four", [client.input("x", ROW, "FP32")], outputs=outputs)
        assert (code, "shorter" in message) == (400, True), message
        assert Path(f"/dev/shm{key}").stat().st_size == 0
        client.call("unregister_system_shared_memory")
        # Whoever mapped it sees to its own safety.
        os.truncate(f"/dev/shm{key}", 8192)
    assert client.infer("four", [client.input("x", ROW, "FP32")]).as_numpy("y").tolist() == ROW.tolist()
    assert Metrics(server.metrics_url).value("inferd_inflight_bytes") == 0


def test_what_is_in_a_region_counts_as_in_flight(serve, files: Path) -> None:
    arguments = ("--shared-memory", "--inflight-max-bytes", "64KiB")
    with (
        serve(files / "identity.onnx", *arguments) as server,
        region(2**20) as (key, _),
        Client("http", server.address) as client,
    ):
        client.call("register_system_shared_memory", "r", key, 2**20)
        inputs = [tensor_in(client, "x", [2**16, 4], "FP32", "r", 2**20)]
        code, message = client.refusal("infer", "identity", inputs)
        assert (code, "inflight_max_bytes" in message) == (503, True), message
        assert Metrics(server.metrics_url).value("inferd_inflight_bytes") == 0


def test_it_is_off_unless_it_is_asked_for(zoo: Inferd, server: Inferd) -> None:
    for kind in KINDS:
        with Client(kind, zoo.address) as client:
            for method, arguments in (
                ("register_system_shared_memory", ("r", "/r", 16)),
                ("unregister_system_shared_memory", ()),
                ("get_system_shared_memory_status", ()),
            ):
                code, message = client.refusal(method, *arguments)
                assert (code, "shared_memory: true" in message) == (501, True), message
            code, message = client.refusal("infer", "four", [tensor_in(client, "x", [1, 4], "FP32", "r", 16)])
            assert (code, "shared_memory: true" in message) == (501, True), message
    assert "system_shared_memory" not in httpx.get(f"{zoo.url}/v2").json()["extensions"]
    assert "system_shared_memory" in httpx.get(f"{server.url}/v2").json()["extensions"]


def test_of_cuda_there_is_nothing(client: Client) -> None:
    told = client.describe("get_cuda_shared_memory_status")
    assert (told.get("regions", {}) if client.grpc else told) in ({}, [])
    client.call("unregister_cuda_shared_memory")
    code, message = client.refusal("register_cuda_shared_memory", "r", b"aGFuZGxl", 0, 16)
    assert (code, "CUDA" in message) == (501, True), message
