"""``make demo``: serves the example models, calls them with tritonclient, kills a worker under load.

    python examples/demo.py [FOLDER]

Starts ``inferd serve`` on free ports, and ends it. Exits with 1 if a response was lost.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from data import Samples, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ROWS = 24
CALLERS = 16
LOAD_S = 4.0
START_WITHIN_S = 120.0
VICTIM = "breast-cancer"


class Running(NamedTuple):
    """A running server."""

    process: psutil.Popen
    address: str


@contextmanager
def serve(folder: Path) -> Iterator[Running]:
    """Run ``inferd serve`` on ``folder`` and show its output."""
    inferd = Path(sysconfig.get_path("scripts"), "inferd")
    command = [str(inferd), "serve", str(folder), "--port", "0", "--metrics-port", "0"]
    show(f"$ inferd serve {folder.name}")
    with tempfile.NamedTemporaryFile() as log:
        process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        # A start that hangs must not block the demo.
        watchdog = threading.Timer(START_WITHIN_S, process.kill)
        watchdog.start()
        try:
            address = _address(process)
            watchdog.cancel()
            if address is None:
                raise SystemExit(f"inferd did not start:\n{Path(log.name).read_text()}")
            yield Running(process, address)
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(60)


def _address(process: psutil.Popen) -> str | None:
    address = None
    for line in process.stdout:
        print(f"  {line}", end="")
        if line.startswith("REST and gRPC"):
            address = line.split("http://")[1].strip()
        if line.startswith("ready in"):
            return address
    return None


def ask(client: Any, module: Any, model: str, found: Samples, row: int) -> tuple[str, float]:
    """Return the output for one row in words, and the latency in milliseconds."""
    array = found.rows[row : row + 1]
    tensor = module.InferInput(found.input, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    began = time.perf_counter()
    answer = client.infer(model, [tensor]).as_numpy(found.output)
    return found.read(answer)[0], (time.perf_counter() - began) * 1e3


def ask_all(running: Running, model: str) -> list[str]:
    """Call ``model`` over both protocols, from one and from many callers; return a row of the table."""
    found = samples(model, ROWS)
    row = [model]
    for module in (tritonclient.http, tritonclient.grpc):
        client = module.InferenceServerClient(running.address)
        ask(client, module, model, found, 0)
        answers = [ask(client, module, model, found, number) for number in range(ROWS)]
        client.close()
        row.append(f"{statistics.median(took for _, took in answers):.2f} ms")
    right = sum(word == truth for (word, _), truth in zip(answers, found.right, strict=True))
    row.append(f"{right} of {ROWS}")
    before = batches(running, model)
    with ThreadPoolExecutor(CALLERS) as callers:
        refused = sum(callers.map(lambda _: burst(running, model, found), range(CALLERS)))
    after = batches(running, model)
    sizes = {size: count - before.get(size, 0) for size, count in after.items()}
    mean = sum(size * count for size, count in sizes.items()) / max(1, sum(sizes.values()))
    largest = max((size for size, count in sizes.items() if count), default=0)
    return [*row, f"{mean:.1f}", str(largest), f"{refused} of {CALLERS * ROWS}"]


def burst(running: Running, model: str, found: Samples) -> int:
    """Send every row once, the next when the last is answered.

    Returns:
        Number of requests refused because they would have missed the model's objective.
    """
    client = tritonclient.grpc.InferenceServerClient(running.address)
    refused = 0
    for number in range(ROWS):
        try:
            ask(client, tritonclient.grpc, model, found, number)
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            refused += 1
    client.close()
    return refused


def batches(running: Running, model: str) -> dict[int, int]:
    """Return how many batches ``model`` has run, by number of rows."""
    client = tritonclient.http.InferenceServerClient(running.address)
    (found,) = client.get_inference_statistics(model)["model_stats"]
    client.close()
    return {int(entry["batch_size"]): int(entry["compute_infer"]["count"]) for entry in found["batch_stats"]}


class Load:
    """Callers that send requests to one model without pause, and the results."""

    def __init__(self, running: Running, model: str) -> None:
        self._running = running
        self._model = model
        self._found = samples(model, ROWS)
        self._over = threading.Event()
        self.answered = 0
        self.wrong: list[str] = []
        self.slowest_ms = 0.0
        self._counting = threading.Lock()
        self._callers = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join()

    def _call(self) -> None:
        client = tritonclient.grpc.InferenceServerClient(self._running.address)
        expected = [ask(client, tritonclient.grpc, self._model, self._found, row)[0] for row in range(ROWS)]
        row = 0
        while not self._over.is_set():
            try:
                word, took_ms = ask(client, tritonclient.grpc, self._model, self._found, row)
                fault = "" if word == expected[row] else "output changed"
            except InferenceServerException as error:
                fault, took_ms = str(error), 0.0
            with self._counting:
                self.answered += not fault
                self.wrong += [fault] if fault else []
                self.slowest_ms = max(self.slowest_ms, took_ms)
            row = (row + 1) % ROWS
        client.close()


def kill_under_load(running: Running) -> bool:
    """Kill the busiest worker under load; return whether every request was answered."""
    with Load(running, VICTIM) as load:
        victim = busiest(running.process, LOAD_S / 4)
        victim.send_signal(signal.SIGKILL)
        busiest(running.process, LOAD_S / 2)
    show(
        f"  worker {victim.pid} of {VICTIM} was killed (SIGKILL) under load from {CALLERS} callers.\n"
        f"  {load.answered} requests answered, {len(load.wrong)} failed; the slowest took {load.slowest_ms:.0f} ms."
    )
    for fault in load.wrong[:5]:
        show(f"  {fault}")
    return not load.wrong


def busiest(process: psutil.Popen, within_s: float) -> psutil.Process:
    """Return the worker that uses most CPU time in the next ``within_s`` seconds."""
    workers = process.children(recursive=True)
    before = {worker.pid: sum(worker.cpu_times()[:2]) for worker in workers}
    threading.Event().wait(within_s)
    return max(
        workers, key=lambda worker: sum(worker.cpu_times()[:2]) - before[worker.pid] if worker.is_running() else 0
    )


def table(rows: list[list[str]]) -> str:
    """Align columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def show(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "models"
    models = sorted(path.name for path in folder.iterdir() if path.is_dir())
    with serve(folder) as running:
        show(f"\nEvery model, called by tritonclient: one caller, then {CALLERS} concurrent ones")
        heads = ["MODEL", "HTTP p50", "gRPC p50", "CORRECT", "MEAN BATCH", "LARGEST", "REFUSED FOR THE SLO"]
        show(table([heads, *(ask_all(running, model) for model in models)]))
        show("\nA worker is killed while it runs a batch")
        nothing_lost = kill_under_load(running)
    ended_well = running.process.returncode == 0
    show(f"\nSIGTERM: drained and ended with exit status {running.process.returncode}.")
    show("No request was lost." if nothing_lost and ended_well else "Requests were lost.")
    return 0 if nothing_lost and ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
