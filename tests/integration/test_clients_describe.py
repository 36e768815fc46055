"""What the stock clients ask besides inference: health, metadata, configuration, statistics, index."""

from __future__ import annotations

import numpy as np
import pytest

from outside.clients import Client

FEATURES = [
    ("load_model", ("four",), "load"),
    ("unload_model", ("four",), "load"),
    ("get_system_shared_memory_status", (), "shared memory"),
    ("register_system_shared_memory", ("region", "/key", 16), "shared memory"),
    ("unregister_system_shared_memory", (), "shared memory"),
    ("register_cuda_shared_memory", ("region", b"aGFuZGxl", 0, 16), "shared memory"),
    ("get_trace_settings", (), "trace"),
    ("update_trace_settings", (), "trace"),
    ("get_log_settings", (), "log"),
    ("update_log_settings", ({},), "log"),
]


def test_the_server_is_live_and_ready(client: Client) -> None:
    assert client.call("is_server_live") is True
    assert client.call("is_server_ready") is True


def test_models_and_versions_are_ready_and_unknown_ones_are_not(client: Client) -> None:
    assert client.call("is_model_ready", "four") is True
    assert client.call("is_model_ready", "versioned", "2") is True
    for unknown in (("versioned", "3"), ("nobody",)):
        if client.grpc:
            # Over gRPC an unknown model is an error, as everywhere; the HTTP client makes False of every status.
            assert client.refusal("is_model_ready", *unknown)[0] == 404
        else:
            assert client.call("is_model_ready", *unknown) is False


def test_the_server_says_who_it_is(client: Client) -> None:
    metadata = client.describe("get_server_metadata")
    assert metadata["name"] == "inferd"
    assert metadata["version"].count(".") >= 2
    assert "binary_tensor_data" in metadata["extensions"]


def test_metadata_names_every_tensor(client: Client) -> None:
    metadata = client.describe("get_model_metadata", "add_sub")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("add_sub", ["1"], "onnx_onnxruntime")
    # gRPC's JSON has 64-bit integers as text.
    named = {
        tensor["name"]: (tensor["datatype"], [int(dim) for dim in tensor["shape"]])
        for tensor in metadata["inputs"] + metadata["outputs"]
    }
    assert named == dict.fromkeys(("a", "b", "sum", "difference"), ("INT32", [-1, 4]))


def test_metadata_lists_every_version(client: Client) -> None:
    assert client.describe("get_model_metadata", "versioned")["versions"] == ["2", "10"]
    assert client.describe("get_model_metadata", "versioned", "2")["name"] == "versioned"


def test_the_configuration_has_what_clients_read(client: Client) -> None:
    config = client.describe("get_model_config", "add_sub")
    config = config.get("config", config)
    assert config["name"] == "add_sub"
    assert int(config["max_batch_size"]) == 32
    assert {tensor["name"] for tensor in config["input"]} == {"a", "b"}
    # Where there is a batch dimension, Triton's configuration leaves it out.
    assert [int(dim) for dim in config["input"][0]["dims"]] == [4]
    assert config["input"][0]["data_type"] == "TYPE_INT32"


def test_statistics_count_inferences_and_executions(client: Client) -> None:
    def counts() -> tuple[int, int, int]:
        [found] = client.describe("get_inference_statistics", "four")["model_stats"]
        success = found["inference_stats"]["success"]
        assert found["name"] == "four"
        return int(found["inference_count"]), int(found["execution_count"]), int(success["count"])

    inferences, executions, successes = counts()
    sent = np.ones((3, 4), np.float32)
    client.infer("four", [client.input("x", sent, "FP32")])
    assert counts() == (inferences + 3, executions + 1, successes + 1)


def test_statistics_of_all_models_come_at_once(client: Client) -> None:
    found = client.describe("get_inference_statistics")["model_stats"]
    versions = [(one["name"], one["version"]) for one in found]
    assert ("versioned", "2") in versions
    assert ("versioned", "10") in versions
    assert ("add_sub", "1") in versions


def test_the_index_lists_every_version(client: Client) -> None:
    index = client.describe("get_model_repository_index")
    models = index["models"] if client.grpc else index
    states = {(model["name"], model["version"]): model["state"] for model in models}
    assert states["four", "1"] == "READY"
    assert states["versioned", "10"] == "READY"
    assert len(states) == 18


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_an_unknown_model_is_not_found_on_every_path(client: Client, method: str) -> None:
    for arguments in (("nobody",), ("versioned", "3")):
        status, message = client.refusal(method, *arguments)
        assert (status, arguments[0] in message) == (404, True), message


@pytest.mark.parametrize(("method", "arguments", "feature"), FEATURES)
def test_what_is_not_built_says_so_by_name(client: Client, method: str, arguments: tuple, feature: str) -> None:
    status, message = client.refusal(method, *arguments)
    assert (status, feature in message.lower()) == (501, True), message
