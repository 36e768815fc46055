"""Throughput and latency of inferd beside its peers: closed loops, one core for the server, one for the load.

Reads a `Bench`, hands on `Result`s. Knows nothing of how a server is started or a load is made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import Bench, Result, Samples, Target
from load import LoadFailed
from openloop import Arrivals
from openloop import open_loop as arrive
from peers import (
    BentoHooks,
    FastApi,
    LitServeHooks,
    LitServeSentences,
    Mosec,
    MosecHooks,
    MosecHooksUnbatched,
    MosecRaw,
    MosecUnbatched,
    Triton,
    TritonBinary,
)
from servers import (
    Inferd,
    InferdBatchingOff,
    InferdBinary,
    InferdHooks,
    InferdLingerOff,
    InferdSentences,
    InferdTwoReplicas,
    Nginx,
    Server,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TINY, LOGISTIC, MLP = "tiny", "logistic", "mlp"
# Two processes that do the same differ by a tenth, by where their memory is; so both are started anew, so often.
STARTS = 7


def tiny_http(bench: Bench) -> Result:
    """Tiny model, JSON over HTTP/1.1, 64 connections."""
    with bench.running([Inferd, Mosec, Nginx, FastApi, Triton], TINY) as servers:
        samples = bench.interleave({server.name: bench.http(server, 64) for server in servers})
    result = Result("tiny_http", "Tiny model, JSON, 64 connections", samples, [])
    ours = result.of("inferd").median("rate")
    result.targets += [
        Target("throughput / mosec", ours / result.of("mosec").median("rate"), 3, at_least=True),
        Target("throughput / nginx `return 200`", ours / result.of("nginx").median("rate"), 0.6, at_least=True),
    ]
    return result


def tiny_grpc(bench: Bench) -> Result:
    """Tiny model, gRPC, 4 connections of 16 streams."""
    with bench.running([Inferd, Triton], TINY) as servers:
        samples = bench.interleave({server.name: bench.grpc(server, 4, 16) for server in servers})
    result = Result("tiny_grpc", "Tiny model, gRPC, 4 connections × 16 streams", samples, [])
    ratio = result.of("inferd").median("rate") / result.of("triton").median("rate")
    result.targets.append(Target("throughput / Triton gRPC (Python backend)", ratio, 4, at_least=True))
    return result


def tiny_one(bench: Bench) -> Result:
    """Tiny model, JSON, one connection: what the way through the server costs."""
    with bench.running([Inferd, Triton, Nginx], TINY) as servers:
        samples = bench.interleave({server.name: bench.http(server, 1) for server in servers})
    result = Result("tiny_one", "Tiny model, JSON, 1 connection", samples, [])
    ratio = result.of("inferd").median("p50_ms") / result.of("triton").median("p50_ms")
    result.targets.append(Target("p50 / Triton (Python backend, delay 0)", ratio, 0.5, at_least=False))
    return result


def logistic(bench: Bench) -> Result:
    """Logistic regression, JSON over HTTP/1.1, 64 connections: batched only if its rows are independent."""
    with bench.running([Inferd, Mosec, Nginx], LOGISTIC) as servers:
        samples = bench.interleave({server.name: bench.http(server, 64) for server in servers})
    result = Result("logistic", "Logistic regression, JSON, 64 connections", samples, [])
    ours, mosec, nginx = (result.of(name) for name in ("inferd", "mosec", "nginx"))
    cpu = nginx.median("cpu_us") / ours.median("cpu_us")
    result.targets += [
        Target("throughput / mosec", ours.median("rate") / mosec.median("rate"), 3, at_least=True),
        Target("CPU per answer, nginx `return 200` / inferd", cpu, 0.6, at_least=True),
    ]
    return result


def mlp_64(bench: Bench) -> Result:
    """MLP, 64 connections, against the raw loop at batch 32."""
    result = mlp(bench, "mlp_64", connections=64, batch=32)
    ours = result.of("inferd binary").median("rate") / result.of("raw loop").median("rate")
    result.targets.append(Target("throughput / raw ONNX Runtime loop at batch 32", ours, 0.92, at_least=True))
    return result


def mlp_8(bench: Bench) -> Result:
    """MLP, 8 connections, against the raw loop at batch 8 and the best peer's p99."""
    result = mlp(bench, "mlp_8", connections=8, batch=8)
    ours = result.of("inferd binary")
    best = min(result.of(peer).median("p99_ms") for peer in ("mosec raw", "triton binary"))
    result.targets += [
        Target(
            "throughput / raw ONNX Runtime loop at batch 8",
            ours.median("rate") / result.of("raw loop").median("rate"),
            0.8,
            at_least=True,
        ),
        Target("p99 / best peer", ours.median("p99_ms") / best, 0.75, at_least=False),
    ]
    return result


def mlp(bench: Bench, name: str, connections: int, batch: int) -> Result:
    with bench.running([InferdBinary, MosecRaw, TritonBinary], MLP) as [inferd, mosec, triton]:
        json_arm = bench.server(Inferd, MLP)
        # The same process, asked in JSON.
        json_arm.process, json_arm.address = inferd.process, inferd.address
        arms: dict[str, Callable[[], dict[str, float]]] = {
            "inferd binary": bench.http(inferd, connections),
            "raw loop": bench.raw(MLP, batch),
            "mosec raw": bench.http(mosec, connections),
            "triton binary": bench.http(triton, connections),
            "inferd JSON": bench.http(json_arm, connections),
        }
        samples = bench.interleave(arms)
    return Result(name, f"MLP of 40 MB, {connections} connections", samples, [])


def mlp_1(bench: Bench) -> Result:
    """MLP, one connection, against one run of ONNX Runtime."""
    with bench.running([InferdBinary, MosecUnbatched, TritonBinary], MLP) as servers:
        arms = {server.name: bench.http(server, 1) for server in servers}
        samples = bench.interleave({"raw loop": bench.raw(MLP, 1), **arms})
    result = Result("mlp_1", "MLP of 40 MB, 1 connection", samples, [])
    ratio = result.of("inferd binary").median("p50_ms") / result.of("raw loop").median("p50_ms")
    result.targets.append(Target("p50 / raw ONNX Runtime run", ratio, 1.12, at_least=False))
    return result


def open_loop(bench: Bench) -> Result:
    """MLP, Poisson arrivals at 30 % and 70 % of capacity, lingering on and off."""
    return _switched(bench, "open_loop", InferdLingerOff, "linger", connections=64)


def batching(bench: Bench) -> Result:
    """MLP, Poisson arrivals at 30 % and 70 % of what is done without batches, batching on and off."""
    return _switched(bench, "batching", InferdBatchingOff, "batching", connections=1)


def _switched(bench: Bench, name: str, off_kind: type[Inferd], what: str, connections: int) -> Result:
    """p50 with something on and off, at shares of what as many closed loops get; one of them makes no batches."""
    seconds = max(4.0, bench.seconds * 2)
    shares = (0.3, 0.7)
    arms = {(word, share): f"{what} {word}, {share:.0%}" for share in shares for word in ("on", "off")}
    samples = {arm: Samples(arm) for arm in arms.values()}
    capacity, lingers = 0.0, 0
    for start in range(1 if bench.quick else STARTS):
        kinds: list[type[Inferd]] = [InferdBinary, off_kind]
        # Whoever starts first has other memory.
        order = kinds if start % 2 == 0 else kinds[::-1]
        with bench.running(order, MLP) as servers:
            by_word = {
                word: next(server for server in servers if type(server) is kind)
                for word, kind in zip(("on", "off"), kinds, strict=True)
            }
            capacity = capacity or bench.http(by_word["on"], connections)()["rate"]
            before = _lingers(by_word["on"])
            loads = {
                arm: partial(_arrive, bench, by_word[word], Arrivals(capacity * share, seconds, start + 1))
                for (word, share), arm in arms.items()
            }
            for one in bench.interleave(loads, 1):
                samples[one.arm].join(one)
            lingers += _lingers(by_word["on"]) - before
    of = "with one caller" if connections == 1 else f"with {connections} callers"
    title = f"MLP, Poisson arrivals, {what} on and off; {of} {capacity:.0f}/s"
    notes = [f"Batches that waited for callers to return, in all of these loads: {lingers}"]
    result = Result(name, title, [*samples.values()], [], notes)
    for share in shares:
        ratio = samples[arms["on", share]].paired("p50_ms", samples[arms["off", share]])
        result.targets.append(Target(f"p50 at {share:.0%} of that, {what} on / off", ratio, 1.03, at_least=False))
    return result


def _lingers(server: Inferd) -> int:
    count: int = server.explain()["models"][0]["explain"]["lingers"]
    return count


def _arrive(bench: Bench, server: Server, arrivals: Arrivals) -> dict[str, float]:
    before = server.cpu_seconds()
    seen = arrive(server.address, server.request(), arrivals, bench.load_core)
    failed = seen.errors + seen.refused
    if failed or not seen.latencies_s:
        raise LoadFailed(f"{server.name} failed {failed} of its requests at {arrivals.rate:.0f} a second")
    if seen.generator_was_late:
        raise LoadFailed(f"the generator was late by {seen.lateness_s['p99'] * 1e3:.1f} ms at p99")
    cpu = server.cpu_seconds() - before
    return {
        "rate": len(seen.latencies_s) / arrivals.seconds,
        "cpu_us": cpu / len(seen.latencies_s) * 1e6,
        "p50_ms": seen.quantile(0.5) * 1e3,
        "p99_ms": seen.quantile(0.99) * 1e3,
        "seconds": arrivals.seconds,
        "server_cpu_s": cpu,
    }


def replicas(bench: Bench) -> Result:
    """MLP, 64 connections, one replica and two on the same core: what sharing costs."""
    with bench.running([InferdBinary, InferdTwoReplicas], MLP) as [one, two]:
        samples = bench.interleave({"1 replica": bench.http(one, 64), "2 replicas": bench.http(two, 64)})
    result = Result("replicas", "MLP, 64 connections, replicas on one core", samples, [])
    ratio = result.of("2 replicas").median("cpu_us") / result.of("1 replica").median("cpu_us")
    result.targets.append(Target("CPU per request, 2 replicas / 1", ratio, 1.10, at_least=False))
    return result


def hooks_64(bench: Bench) -> Result:
    """Python before and after a tiny model that runs in Python too, 64 connections."""
    with bench.running([InferdHooks, MosecHooks, LitServeHooks, BentoHooks], TINY) as servers:
        samples = bench.interleave({server.name: bench.http(server, 64) for server in servers})
    result = Result("hooks_64", "preprocess → model → postprocess in Python, JSON, 64 connections", samples, [])
    ours = result.of("inferd hooks").median("rate")
    result.targets += [
        Target("throughput / mosec", ours / result.of("mosec hooks").median("rate"), 1.5, at_least=True),
        Target("throughput / LitServe", ours / result.of("litserve hooks").median("rate"), 10, at_least=True),
        Target("throughput / BentoML", ours / result.of("bentoml hooks").median("rate"), 10, at_least=True),
    ]
    return result


def hooks_1(bench: Bench) -> Result:
    """The same, one connection."""
    with bench.running([InferdHooks, MosecHooksUnbatched, LitServeHooks, BentoHooks], TINY) as servers:
        samples = bench.interleave({server.name: bench.http(server, 1) for server in servers})
    result = Result("hooks_1", "preprocess → model → postprocess in Python, JSON, 1 connection", samples, [])
    best = min(
        result.of(peer).median("p50_ms") for peer in ("mosec hooks unbatched", "litserve hooks", "bentoml hooks")
    )
    ratio = result.of("inferd hooks").median("p50_ms") / best
    result.targets.append(Target("p50 / best peer", ratio, 0.5, at_least=False))
    return result


def sentences(bench: Bench) -> Result:
    """Sentences of 2 to 25 words into vectors, 32 connections: tokenizer, ONNX, pooling."""
    with bench.running([InferdSentences, LitServeSentences], TINY) as servers:
        samples = bench.interleave({server.name: bench.http(server, 32) for server in servers})
    result = Result("sentences", "Sentences of 2 to 25 words into vectors, 32 connections", samples, [])
    ratio = result.of("inferd sentences").median("rate") / result.of("litserve sentences").median("rate")
    result.targets.append(Target("throughput / LitServe", ratio, 1, at_least=True))
    return result


def single(arm: str, values: list[dict[str, float]]) -> Samples:
    """Samples that were not interleaved with anything."""
    samples = Samples(arm)
    for value in values:
        samples.add(value)
    return samples
