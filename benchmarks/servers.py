"""inferd and the servers it is compared with, each started in the best simple way.

Reads an ONNX file, hands on an address, requests and the processes behind them. Knows nothing of load or scenarios.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bodies
from bodies import Reference, Request
from processes import Process, command_line, cpu_seconds, free_port, pss_bytes, wait_until

if TYPE_CHECKING:
    from environment import Environment

HERE = Path(__file__).resolve().parent
READY_WITHIN_S = 60.0


class WrongAnswer(RuntimeError):
    """A server answers something else than ONNX Runtime does: its speed means nothing."""


class Server:
    """One server of one model on the server core. Subclasses say how it is started and spoken to."""

    name: str
    process: Process
    address: str
    """Host and port that HTTP goes to."""
    grpc_address: str | None = None

    def __init__(self, environment: Environment, model: Path, reference: Reference, folder: Path, core: int) -> None:
        self.environment = environment
        self.model = model
        self.reference = reference
        self.folder = folder / f"{self.name.replace(' ', '-')}-{id(self):x}"
        self.folder.mkdir(parents=True)
        self.core = core

    def start(self) -> None:
        """Starts the processes and returns when a first answer is right."""
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.process = self.launch(port)
        wait_until(self.answers, f"the first answer of {self.name} ({self.process.log})", READY_WITHIN_S)
        self.check()

    def launch(self, port: int) -> Process:
        raise NotImplementedError

    def request(self, row: int = 0) -> Request:
        """The request that load consists of."""
        raise NotImplementedError

    def read(self, body: bytes, headers: http.client.HTTPMessage) -> list[float]:
        """The values of an answer."""
        return bodies.flatten(json.loads(body))

    def ask(self, row: int) -> list[float]:
        """One request on a connection of its own."""
        request = self.request(row)
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise WrongAnswer(f"{self.name} answered {answer.status}: {body[:300]!r}")
            return self.read(body, answer.headers)
        finally:
            connection.close()

    def answers(self) -> bool:
        self.process.check_alive()
        try:
            self.ask(0)
        except (OSError, http.client.HTTPException, WrongAnswer):
            return False
        return True

    def check(self) -> None:
        """Raises WrongAnswer unless every row of the reference is answered as ONNX Runtime answers it."""
        for row, wanted in enumerate(self.reference.answers):
            got, want = self.ask(row), bodies.flatten(wanted)
            same = len(got) == len(want) and all(
                math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(got, want, strict=True)
            )
            if not same:
                raise WrongAnswer(f"{self.name} answers {got[:4]} to row {row}; ONNX Runtime {want[:4]}")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pids())

    def pss_bytes(self) -> int:
        return pss_bytes(self.process.pids())

    def stop(self) -> None:
        if hasattr(self, "process"):
            self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Inferd(Server):
    """`inferd serve MODEL`, with nothing tuned."""

    name = "inferd"
    flags: tuple[str, ...] = ()

    def launch(self, port: int) -> Process:
        command = [str(self.environment.inferd_python), "-m", "inferd", "serve", str(self.model)]
        command += ["--port", str(port), "--metrics-port", "0", *self.flags]
        # Its gRPC is on the same port.
        self.grpc_address = self.address
        return Process(command, self.core, self.folder / "log")

    def request(self, row: int = 0) -> Request:
        return bodies.v2_json(self.reference, self.model.stem, row)

    def read(self, body: bytes, headers: http.client.HTTPMessage) -> list[float]:
        return bodies.read_v2(body, headers.get("Inference-Header-Content-Length"))

    def grpc_body(self) -> bytes:
        return bodies.grpc_body(self.reference, self.model.stem)

    def explain(self) -> dict[str, Any]:
        """What the running server says of itself."""
        lines = self.process.log.read_text(errors="replace")
        at = lines.index("http://127.0.0.1", lines.index("metrics"))
        url = lines[at:].split("/metrics")[0].split()[0]
        command = [str(self.environment.inferd_python), "-m", "inferd", "explain", "--json", "--url", url]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return told

    def workers(self) -> list[int]:
        """The processes that run the model."""
        return [pid for pid in self.process.pids()[1:] if re.search(r"run_onnx_worker|onnx.?worker", command_line(pid))]


class InferdBinary(Inferd):
    """inferd, spoken to in binary tensors."""

    name = "inferd binary"

    def request(self, row: int = 0) -> Request:
        return bodies.v2_binary(self.reference, self.model.stem, row)


class InferdLingerOff(InferdBinary):
    """inferd that never waits for a fuller batch."""

    name = "inferd linger off"
    flags = ("--no-linger",)


class InferdBatchingOff(InferdBinary):
    """inferd that runs each request by itself."""

    name = "inferd batching off"
    flags = ("--batching", "off")


class InferdTwoReplicas(InferdBinary):
    """inferd with two replicas of the model."""

    name = "inferd 2 replicas"
    flags = ("--replicas", "2")


class InferdHooks(Inferd):
    """inferd with a model in Python and its hooks, each stage in a worker of its own."""

    name = "inferd hooks"

    def launch(self, port: int) -> Process:
        model = self.folder / "hooks"
        model.mkdir()
        shutil.copy(HERE / "programs" / "hooks_inferd.py", model / "model.py")
        (model / "model.yaml").write_text(f"parameters: {{file: {json.dumps(str(self.model))}}}\nthreads: 1\n")
        command = [str(self.environment.inferd_python), "-m", "inferd", "serve", str(model)]
        return Process([*command, "--port", str(port), "--metrics-port", "0"], self.core, self.folder / "log")

    def request(self, row: int = 0) -> Request:
        return bodies.v2_json(self.reference, "hooks", row)


SENTENCES = (
    "Rates rose.",
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch, and nobody dares to wake it up.",
    "The central bank has raised its key rate by a quarter of a percentage point.",
    "Refund, please!",
    "The parcel was announced for Monday, came on Thursday, and the box inside was open and half empty.",
    "It works.",
    "After the update the application closes as soon as I open the second tab, on two phones out of three.",
)
"""Of 2 to 25 words."""


def sentences_folder(environment: Environment, folder: Path) -> Path:
    """The model of the example that makes vectors of sentences."""
    script = HERE.parent / "examples" / "11_sentences.py"
    code = "import pathlib, runpy, sys; runpy.run_path(sys.argv[1])['make'](pathlib.Path(sys.argv[2]))"
    target = folder / "sentences"
    subprocess.run([str(environment.inferd_python), "-c", code, str(script), str(target)], check=True)
    return target


class Sentences(Server):
    """A server that answers a sentence with its vector."""

    path: str

    def request(self, row: int = 0) -> Request:
        first, *others = (json.dumps(sentence).encode() for sentence in SENTENCES)
        return Request(self.path, first, {"Content-Type": "application/json"}, tuple(others))

    def check(self) -> None:
        vector = self.ask(0)
        if len(vector) != 384 or not math.isclose(sum(value * value for value in vector), 1, rel_tol=1e-3):
            raise WrongAnswer(f"{self.name} answers {vector[:4]}")


class InferdSentences(Sentences):
    """inferd with the folder as it is."""

    name = "inferd sentences"
    path = "/models/sentences"

    def launch(self, port: int) -> Process:
        model = sentences_folder(self.environment, self.folder)
        command = [str(self.environment.inferd_python), "-m", "inferd", "serve", str(model), "--threads", "1"]
        return Process([*command, "--port", str(port), "--metrics-port", "0"], self.core, self.folder / "log")


class Nginx(Server):
    """nginx that answers a constant: what HTTP itself costs."""

    name = "nginx"

    def launch(self, port: int) -> Process:
        reference = self.reference
        shape = [1, len(reference.answers[0])]
        output = {"name": reference.output, "datatype": "FP32", "shape": shape, "data": reference.answers[0]}
        answer = json.dumps(
            {"model_name": self.model.stem, "model_version": "1", "outputs": [output]}, separators=(",", ":")
        )
        config = self.folder / "nginx.conf"
        config.write_text(
            f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 64m;
  client_body_temp_path {self.folder}; proxy_temp_path {self.folder}; fastcgi_temp_path {self.folder};
  uwsgi_temp_path {self.folder}; scgi_temp_path {self.folder};
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""
        )
        return Process([self.environment.nginx, "-c", str(config)], self.core, self.folder / "log")

    def request(self, row: int = 0) -> Request:
        return bodies.v2_json(self.reference, self.model.stem, row)

    def read(self, body: bytes, headers: http.client.HTTPMessage) -> list[float]:
        return bodies.read_v2(body, None)

    def check(self) -> None:
        """A constant can't be right for every row."""
