"""What is particular to gRPC: streams, health, reflection, typed contents, timeouts."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from outside.process import Inferd


@pytest.fixture(scope="module")
def channel(zoo: Inferd) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(zoo.address) as open_channel:
        yield open_channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> service_pb2_grpc.GRPCInferenceServiceStub:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def row(*values: float, name: str = "x", datatype: str = "FP32") -> triton.InferInput:
    array = np.array([values], np.float32)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


class Stream:
    """A stream of tritonclient, its answers in a queue."""

    def __init__(self, address: str, **options: float) -> None:
        self.client = triton.InferenceServerClient(address)
        self._answers: queue.Queue = queue.Queue()
        self.client.start_stream(lambda result, error: self._answers.put((result, error)), **options)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()

    def send(self, model: str, *inputs: triton.InferInput, **options: object) -> None:
        self.client.async_stream_infer(model, list(inputs), **options)

    def next(self) -> tuple[triton.InferResult | None, InferenceServerException | None]:
        return self._answers.get(timeout=30)

    def answer(self) -> pb.ModelInferResponse:
        result, error = self.next()
        assert error is None, error
        return result.get_response()


def test_a_stream_answers_every_request_in_order(zoo: Inferd) -> None:
    with Stream(zoo.address) as stream:
        for index in range(100):
            stream.send("four", row(index, 0, 0, 0), request_id=str(index))
        assert [stream.answer().id for _ in range(100)] == [str(index) for index in range(100)]


def test_an_error_inside_a_stream_ends_only_its_own_request(zoo: Inferd) -> None:
    with Stream(zoo.address) as stream:
        stream.send("four", row(1, 2, 3, 4), request_id="good")
        stream.send("four", row(1, 2, 3), request_id="bad")
        stream.send("nobody", row(1, 2, 3, 4), request_id="unknown")
        stream.send("four", row(5, 6, 7, 8), request_id="good again")
        assert stream.answer().id == "good"
        for word in ("x", "nobody"):
            _, error = stream.next()
            assert word in error.message()
        assert stream.answer().id == "good again"


def test_the_last_response_is_marked_where_it_is_asked_for(zoo: Inferd) -> None:
    with Stream(zoo.address) as stream:
        stream.send("four", row(1, 2, 3, 4), enable_empty_final_response=True)
        parameters = stream.answer().parameters
        assert parameters["triton_final_response"].bool_param is True


async def both(address: str) -> list[np.ndarray]:
    from tritonclient.grpc import aio

    async def requests():
        for index in range(20):
            yield {"model_name": "four", "inputs": [row(index, 0, 0, 0)]}

    async with aio.InferenceServerClient(address) as client:
        found = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            found.append(result.as_numpy("y"))
        return found


def test_the_asynchronous_client_streams_too(zoo: Inferd) -> None:
    import asyncio

    found = asyncio.run(both(zoo.address))
    assert [array[0, 0] for array in found] == list(range(20))


def typed(datatype: str, field: str, values: list) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[1, len(values)])
    getattr(tensor.contents, field).extend(values)
    return pb.ModelInferRequest(model_name=f"identity_{datatype.lower()}", inputs=[tensor])


@pytest.mark.parametrize(
    ("datatype", "field", "values", "dtype"),
    [
        ("BOOL", "bool_contents", [True, False], np.bool_),
        ("INT8", "int_contents", [-128, 127], np.int8),
        ("INT16", "int_contents", [-(2**15), 1], np.int16),
        ("INT32", "int_contents", [-(2**31), 1], np.int32),
        ("INT64", "int64_contents", [-(2**63), 1], np.int64),
        ("UINT8", "uint_contents", [255, 1], np.uint8),
        ("UINT16", "uint_contents", [65535, 1], np.uint16),
        ("UINT32", "uint_contents", [2**32 - 1, 1], np.uint32),
        ("UINT64", "uint64_contents", [2**64 - 1, 1], np.uint64),
        ("FP32", "fp32_contents", [1.5, float("inf")], np.float32),
        ("FP64", "fp64_contents", [1.5, -0.0], np.float64),
    ],
)
def test_typed_contents_are_read(stub, datatype: str, field: str, values: list, dtype: type) -> None:
    response = stub.ModelInfer(typed(datatype, field, values))
    assert np.frombuffer(response.raw_output_contents[0], dtype).tolist() == values


def test_bytes_in_typed_contents_are_read(stub) -> None:
    response = stub.ModelInfer(typed("BYTES", "bytes_contents", [b"nul \0", b"\xff"]))
    assert response.raw_output_contents[0] == b"\x05\0\0\0nul \0\x01\0\0\0\xff"


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    ("datatype", "field", "values", "says"),
    [
        ("INT8", "int_contents", [128], "128"),
        ("UINT16", "uint_contents", [65536], "65536"),
        ("FP32", "fp64_contents", [1.0], "fp32_contents"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(stub, datatype: str, field: str, values: list, says: str) -> None:
    fault = refusal(lambda: stub.ModelInfer(typed(datatype, field, values)))
    assert fault.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in fault.details()
    assert "'x'" in fault.details()


def test_raw_contents_must_agree_with_the_shape_and_not_be_mixed_with_typed_ones(stub) -> None:
    request = typed("FP32", "fp32_contents", [1.0])
    request.raw_input_contents.append(b"\0\0\0\0")
    assert refusal(lambda: stub.ModelInfer(request)).code() is grpc.StatusCode.INVALID_ARGUMENT
    request.inputs[0].ClearField("contents")
    request.raw_input_contents[0] = b"\0" * 5
    fault = refusal(lambda: stub.ModelInfer(request))
    assert fault.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'x'" in fault.details()


def test_health_is_told_of_the_server_and_of_each_model(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "four"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    fault = refusal(lambda: health.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert fault.code() is grpc.StatusCode.NOT_FOUND


def test_watching_health_tells_the_state_at_once_and_its_change(serve, files: Path) -> None:
    with serve(files / "identity.onnx") as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.wait() == 0


def test_reflection_lists_the_services_and_describes_the_messages(channel: grpc.Channel) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest
    answers = reflection.ServerReflectionInfo(
        iter([ask(list_services=""), ask(file_containing_symbol="inference.ModelInferRequest")])
    )
    services = {service.name for service in next(answers).list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
    assert next(answers).file_descriptor_response.file_descriptor_proto


def test_a_deadline_that_passes_ends_the_call_and_its_work(serve, files: Path) -> None:
    from outside.metrics import Metrics
    from outside.waiting import wait_for

    with serve(files / "moody.py", "--batching", "off") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            def sleep(seconds: float) -> pb.ModelInferRequest:
                tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
                tensor.contents.fp32_contents.extend([1, seconds])
                return pb.ModelInferRequest(model_name="moody", inputs=[tensor])

            blocking = stub.ModelInfer.future(sleep(1))
            queued = [stub.ModelInfer.future(sleep(1), timeout=0.2) for _ in range(5)]
            assert {call.code() for call in queued} == {grpc.StatusCode.DEADLINE_EXCEEDED}
            assert blocking.result(30).model_name == "moody"

            def waiting() -> float:
                return Metrics(server.metrics_url).value("inferd_queue_rows", model="moody")

            wait_for(lambda: waiting() == 0, "an empty queue")


def test_a_cancelled_call_does_no_work(serve, files: Path) -> None:
    import time

    with serve(files / "moody.py", "--batching", "off") as server:
        client = triton.InferenceServerClient(server.address)
        done = threading.Event()
        calls = []
        for _ in range(20):
            tensor = triton.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 0.5]], np.float32))
            calls.append(client.async_infer("moody", [tensor], lambda result, error: done.set()))
        for call in calls:
            call.cancel()
        begun = time.monotonic()
        tensor.set_data_from_numpy(np.array([[0, 0]], np.float32))
        client.infer("moody", [tensor])
        # Two were with the replica already; twenty would have taken ten seconds.
        assert time.monotonic() - begun < 4
        client.close()


def test_a_refusal_says_when_to_try_again(serve, files: Path) -> None:
    with serve(files / "moody.py", "--batching", "off", "--queue-rows-max", "2") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
            tensor.contents.fp32_contents.extend([1, 0.3])
            request = pb.ModelInferRequest(model_name="moody", inputs=[tensor])
            calls = [stub.ModelInfer.future(request) for _ in range(12)]
            refused = [call for call in calls if call.exception(30) is not None]
            assert 1 <= len(refused) < 12
            for call in refused:
                assert call.code() is grpc.StatusCode.UNAVAILABLE
                pushback = dict(call.trailing_metadata())["grpc-retry-pushback-ms"]
                assert int(pushback) >= 0
