"""Memory, start and recovery of inferd: what is measured without peers.

Reads a `Bench`, hands on `Result`s. Knows nothing of throughput.
"""

from __future__ import annotations

import os
import signal
import statistics
import time

from bench import Bench, Result, Samples, Target
from load import wrk
from processes import MIB, free_port, runs
from scenarios import TINY, single
from servers import Inferd, Server, WrongAnswer

SOAK_MINUTES = 10
SOAK_FROM_MINUTE = 2


def memory(bench: Bench) -> Result:
    """All processes of `inferd serve tiny.onnx` together, after load."""
    with bench.running([Inferd], TINY) as [server]:
        before = server.pss_bytes() / MIB
        wrk(server.address, server.request(), 64, 5, bench.load_core)
        after = server.pss_bytes() / MIB
        count = len(server.process.pids())
    samples = [single("before load", [{"pss_mib": before}]), single("after 5 s of full load", [{"pss_mib": after}])]
    target = Target("PSS of all processes", after * MIB / 1e6, 80, at_least=False, unit=" MB")
    return Result("memory", "Tiny model, memory of all processes", samples, [target], [f"{count} processes"])


def soak(bench: Bench) -> Result:
    """Full load for ten minutes: memory at the end against minute two."""
    with bench.running([Inferd], TINY) as [server]:
        samples = Samples("tiny model, 64 connections")
        for minute in range(1, SOAK_MINUTES + 1):
            bench.say(f"minute {minute} of {SOAK_MINUTES}")
            seen = wrk(server.address, server.request(), 64, 60, bench.load_core)
            samples.add({"pss_mib": server.pss_bytes() / MIB, "rate": seen.rate})
    pss = samples.values["pss_mib"]
    ratio = pss[-1] / pss[SOAK_FROM_MINUTE - 1]
    target = Target(f"PSS, minute {SOAK_MINUTES} / minute {SOAK_FROM_MINUTE}", ratio, 1.05, at_least=False)
    return Result("soak", "Tiny model, ten minutes of full load", [samples], [target])


def start(bench: Bench) -> Result:
    """From exec to the first right answer."""
    times = [{"seconds_to_answer": time_to_answer(bench)} for _ in range(bench.repeats)]
    samples = single("inferd serve tiny.onnx", times)
    target = Target("exec → first right answer", samples.median("seconds_to_answer"), 0.6, at_least=False, unit=" s")
    return Result("start", "Start", [samples], [target])


def time_to_answer(bench: Bench) -> float:
    server = bench.server(Inferd, TINY)
    try:
        port = free_port()
        server.address = f"127.0.0.1:{port}"
        server.process = server.launch(port)
        begun = server.process.started
        while not server.answers():
            time.sleep(0.002)
        taken = time.monotonic() - begun
        server.check()
        return taken
    finally:
        server.stop()


def recovery(bench: Bench) -> Result:
    """A killed worker: how long until a request that is sent at once has its answer."""
    times: list[float] = []
    with bench.running([Inferd], TINY) as [server]:
        for _ in range(max(5, bench.repeats)):
            # Restarts back off: leave the last death behind.
            time.sleep(2)
            times.append(kill_and_ask(server))
    samples = single("inferd serve tiny.onnx", [{"seconds_to_answer": taken} for taken in times])
    target = Target("kill -9 → next right answer", statistics.median(times) * 1e3, 60, at_least=False, unit=" ms")
    return Result("recovery", "A lost replica", [samples], [target])


def kill_and_ask(server: Server) -> float:
    assert isinstance(server, Inferd), "only inferd's workers are known by their command"
    [worker] = server.workers()
    begun = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    # The kernel takes a moment to end it; an answer by the dying worker would not count.
    while runs(worker):
        time.sleep(0.0002)
    while True:
        try:
            server.ask(0)
            return time.monotonic() - begun
        except (OSError, WrongAnswer):
            time.sleep(0.001)
