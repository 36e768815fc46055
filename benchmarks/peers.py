"""The peers: mosec, FastAPI with ONNX Runtime, NVIDIA Triton with its Python backend.

Reads the virtual environment that has them, hands on `Server`s. Knows nothing of load or scenarios.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from typing import TYPE_CHECKING

import bodies
from bodies import Request
from processes import Process, free_port
from servers import HERE, Sentences, Server, sentences_folder

if TYPE_CHECKING:
    import http.client
    from pathlib import Path

PROGRAMS = HERE / "programs"
# One core is all there is: libraries that start a pool of threads only disturb themselves.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Mosec(Server):
    """mosec with dynamic batching."""

    name = "mosec"
    wait_ms = 1
    rows_max = 32
    # Milliseconds after which a request that was not answered is dropped.
    timeout_ms = 30_000
    # What reads and writes JSON.
    library = "json"
    raw = False

    def launch(self, port: int) -> Process:
        command = [str(self.environment.python), str(PROGRAMS / "mosec_app.py"), "--address", "127.0.0.1"]
        command += [
            "--port",
            str(port),
            "--path",
            str(self.folder / "sockets"),
            "--timeout",
            str(self.timeout_ms),
            "--capacity",
            "4096",
        ]
        env = {**ONE_THREAD, "MODEL": str(self.model), "WAIT_MS": str(self.wait_ms), "RAW": str(int(self.raw))}
        env |= {"ROWS_MAX": str(self.rows_max), "JSON": self.library}
        return Process(command, self.core, self.folder / "log", env)

    def request(self, row: int = 0) -> Request:
        make = bodies.plain_raw if self.raw else bodies.plain_json
        return make(self.reference, "/inference", row)

    def read(self, body: bytes, headers: http.client.HTTPMessage) -> list[float]:
        return bodies.unpack_floats(body) if self.raw else super().read(body, headers)


class MosecRaw(Mosec):
    """mosec spoken to in raw bytes."""

    name = "mosec raw"
    raw = True


class MosecUnbatched(MosecRaw):
    """mosec at its best for one connection: no batching, so no wait."""

    name = "mosec unbatched"
    wait_ms = 0


class FastApi(Server):
    """FastAPI on uvicorn with uvloop and httptools."""

    name = "fastapi"

    def launch(self, port: int) -> Process:
        command = [str(self.environment.python), "-m", "uvicorn", "--app-dir", str(PROGRAMS), "fastapi_app:app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
        return Process(command, self.core, self.folder / "log", {**ONE_THREAD, "MODEL": str(self.model)})

    def request(self, row: int = 0) -> Request:
        return bodies.plain_json(self.reference, "/infer", row)


class MosecHooks(Server):
    """mosec with three workers in a row, each of which batches."""

    name = "mosec hooks"
    rows_max = 32

    def launch(self, port: int) -> Process:
        command = [str(self.environment.python), str(PROGRAMS / "hooks_mosec.py"), "--address", "127.0.0.1"]
        command += ["--port", str(port), "--path", str(self.folder / "sockets"), "--timeout", "30000"]
        env = {**ONE_THREAD, "MODEL": str(self.model), "ROWS_MAX": str(self.rows_max)}
        return Process(command, self.core, self.folder / "log", env)

    def request(self, row: int = 0) -> Request:
        return bodies.plain_json(self.reference, "/inference", row)


class MosecHooksUnbatched(MosecHooks):
    """The same at its best for one connection."""

    name = "mosec hooks unbatched"
    rows_max = 1


class LitServeHooks(Server):
    """LitServe: its hooks are methods of the same worker."""

    name = "litserve hooks"

    def launch(self, port: int) -> Process:
        command = [str(self.environment.python), str(PROGRAMS / "hooks_litserve.py"), str(port)]
        return Process(command, self.core, self.folder / "log", {**ONE_THREAD, "MODEL": str(self.model)})

    def request(self, row: int = 0) -> Request:
        return bodies.plain_json(self.reference, "/predict", row)


class LitServeSentences(Sentences):
    """LitServe with the same tokenizer and model."""

    name = "litserve sentences"
    path = "/predict"

    def launch(self, port: int) -> Process:
        model = sentences_folder(self.environment, self.folder)
        command = [str(self.environment.python), str(PROGRAMS / "sentences_litserve.py"), str(port)]
        return Process(command, self.core, self.folder / "log", {**ONE_THREAD, "MODEL": str(model)})


class BentoHooks(Server):
    """BentoML: all stages in one batched method."""

    name = "bentoml hooks"

    def launch(self, port: int) -> Process:
        command = [str(self.environment.python), "-m", "bentoml", "serve", "hooks_bentoml:Hooks"]
        command += ["--working-dir", str(PROGRAMS), "--port", str(port), "--host", "127.0.0.1"]
        env = {**ONE_THREAD, "MODEL": str(self.model), "BENTOML_DO_NOT_TRACK": "true", "PYTHONPATH": str(PROGRAMS)}
        env |= {"BENTOML_HOME": str(self.folder / "home")}
        return Process(command, self.core, self.folder / "log", env)

    def request(self, row: int = 0) -> Request:
        plain = bodies.plain_json(self.reference, "/infer", row)
        return Request(plain.path, b'{"rows": [' + plain.body + b"]}", plain.headers)


class Triton(Server):
    """The Triton binary that `nvidia-pytriton` bundles: Python backend, batching with a delay of 0."""

    name = "triton"
    delay_us = 0
    rows_max = 32
    # Requests that wait; past it they are refused. 0: no limit.
    queue_max = 0

    def launch(self, port: int) -> Process:
        packages = next((self.environment.python.parent.parent / "lib").glob("python3.*/site-packages"))
        bundle = packages / "pytriton" / "tritonserver"
        backend = self.assemble_backend(bundle)
        self.write_repository()
        grpc_port = free_port()
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        command = [str(bundle / "bin" / "tritonserver"), "--model-repository", str(self.folder / "models")]
        command += ["--backend-directory", str(backend), "--http-address", "127.0.0.1", "--http-port", str(port)]
        command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port), "--allow-metrics", "false"]
        # The stub of the Python backend looks for the wheel's libraries and for libpython.
        libraries = f"{packages / 'nvidia_pytriton.libs'}{os.pathsep}{sysconfig.get_config_var('LIBDIR')}"
        path = f"{self.environment.python.parent}{os.pathsep}{os.environ['PATH']}"
        env = {**ONE_THREAD, "PATH": path, "PYTHONPATH": str(packages), "LD_LIBRARY_PATH": libraries}
        return Process(command, self.core, self.folder / "log", env)

    def assemble_backend(self, bundle: Path) -> Path:
        """The wheel has one stub per Python beside the backend; Triton wants the one to use inside it."""
        version = bundle.parent.parent.parent.name.removeprefix("python")
        stub = bundle / "python_backend_stubs" / version / "triton_python_backend_stub"
        target = self.folder / "backends" / "python"
        shutil.copytree(bundle / "backends" / "python", target, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(stub, target)
        return target.parent

    def write_repository(self) -> None:
        model = self.folder / "models" / self.model.stem
        (model / "1").mkdir(parents=True)
        shutil.copy(PROGRAMS / "triton_model.py", model / "1" / "model.py")
        reference = self.reference
        inputs = f'name: "{reference.input}" data_type: TYPE_{reference.datatype} dims: {reference.shape}'
        outputs = f'name: "{reference.output}" data_type: TYPE_FP32 dims: [{len(reference.answers[0])}]'
        (model / "config.pbtxt").write_text(
            f"""
backend: "python"
max_batch_size: {self.rows_max}
input [{{ {inputs} }}]
output [{{ {outputs} }}]
dynamic_batching {{
  max_queue_delay_microseconds: {self.delay_us}
  default_queue_policy {{ max_queue_size: {self.queue_max} }}
}}
instance_group [{{ kind: KIND_CPU count: 1 }}]
parameters {{ key: "path" value {{ string_value: "{self.model}" }} }}
"""
        )

    def request(self, row: int = 0) -> Request:
        return bodies.v2_json(self.reference, self.model.stem, row)

    def read(self, body: bytes, headers: http.client.HTTPMessage) -> list[float]:
        return bodies.read_v2(body, headers.get("Inference-Header-Content-Length"))

    def grpc_body(self) -> bytes:
        return bodies.grpc_body(self.reference, self.model.stem)


class TritonBinary(Triton):
    """Triton, spoken to in binary tensors."""

    name = "triton binary"

    def request(self, row: int = 0) -> Request:
        return bodies.v2_binary(self.reference, self.model.stem, row)
