"""Models that start processes: they can end them, and whatever ends a worker or the server leaves none of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from outside.models import identity
from outside.offspring import LEFT, Offspring
from outside.process import Inferd, shared_memory
from outside.waiting import wait_for


@pytest.fixture
def offspring(tmp_path: Path) -> Offspring:
    return Offspring(tmp_path / "world")


def serving(offspring: Offspring, tmp_path: Path) -> Inferd:
    models = [{"path": str(offspring.models / name / "model.py"), "name": name} for name in offspring.names]
    defaults = {"threads": 1, "profiling": False, "batching": "off", "replicas": 1}
    models.append({"path": str(identity(tmp_path / "native.onnx", "FP32", ["n"])), "name": "native"})
    (tmp_path / "inferd.yaml").write_text(
        json.dumps({"server": {"gateway_threads": 1}, "defaults": defaults, "models": models})
    )
    return Inferd(tmp_path / "run", tmp_path / "inferd.yaml")


def all_answer(server: Inferd, offspring: Offspring) -> None:
    def ask(name: str) -> None:
        for values in ([1.0, 2.5], [-3.0]):
            answer = httpx.post(f"{server.url}/models/{name}", content=json.dumps(values), timeout=60)
            assert answer.status_code == 200, f"{name}: {answer.text}\n{server.log()}"
            assert answer.json() == [value if name == "native" else 2 * value for value in values], name

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, [*offspring.names, "native"]))


def children(pid: int) -> list[int]:
    lists = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for child in " ".join(lists).split()]


def zygote(server: Inferd) -> int:
    (found,) = [pid for pid in children(server.pid) if b"worker.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def test_models_end_what_they_started_and_what_they_leave_ends_with_them(offspring: Offspring, tmp_path: Path) -> None:
    before = shared_memory()
    with serving(offspring, tmp_path) as server:
        all_answer(server, offspring)
        first = offspring.alive()
        assert set(first.values()) == LEFT
        assert shared_memory() > before
        # What a terminal and systemd send to every process. The server itself has no part in this.
        native, workers = children(server.pid), children(zygote(server))
        assert len(native) == 2
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            for pid in (*native, *workers):
                os.kill(pid, number)
        all_answer(server, offspring)
        assert (children(server.pid), children(zygote(server))) == (native, workers)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not offspring.alive().keys() & first, f"the end of {first}", 10)
        all_answer(server, offspring)
        second = offspring.alive()
        assert set(second.values()) == LEFT
        # Nobody is left to end them but the server itself.
        os.kill(zygote(server), signal.SIGKILL)
        wait_for(lambda: not offspring.alive().keys() & second, f"the end of {second}", 10)
        all_answer(server, offspring)
        assert set(offspring.alive().values()) == LEFT
        assert offspring.said() == []
    assert offspring.alive() == {}
    assert offspring.said() == ["close", "atexit"]
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("how", ["killed", "told twice"])
def test_nothing_outlives_a_server_that_ends_at_once(offspring: Offspring, tmp_path: Path, how: str) -> None:
    with serving(offspring, tmp_path) as server:
        assert set(offspring.alive().values()) == LEFT
        if how == "killed":
            os.kill(server.pid, signal.SIGKILL)
        else:
            with ThreadPoolExecutor(1) as pool:
                # Something to wait for, so that the second signal finds it draining.
                pool.submit(httpx.post, f"{server.url}/models/pool_spawn", content="[1, 2]", timeout=60)
                server.terminate()
                server.terminate()
        server.wait()
        wait_for(lambda: not offspring.alive(), f"the end of {offspring.alive()}", 10)


def test_a_copy_of_the_servers_sockets_keeps_nothing_alive(offspring: Offspring, tmp_path: Path) -> None:
    """A program that embeds a server forks: its child has every descriptor of the server's, and outlives it."""
    program = f"""
        import os, sys, time
        import inferd
        server = inferd.Server({str(offspring.models / "lingers" / "model.py")!r}, threads=1)
        server.__enter__()
        pid = os.fork()
        if pid:
            print(pid, flush=True)
        time.sleep(1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    before = shared_memory()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        copy = int(process.stdout.readline())
        try:
            assert "daemon" in offspring.alive().values()
            process.kill()
            wait_for(lambda: not offspring.alive(), f"the end of {offspring.alive()}", 10)
            wait_for(lambda: shared_memory() == before, "the end of what was shared", 10)
        finally:
            os.kill(copy, signal.SIGKILL)


def test_a_server_that_was_started_with_sigchld_ignored_serves_and_leaves_nothing(
    offspring: Offspring, tmp_path: Path
) -> None:
    """As by a supervisor that wants no zombies. Where it is ignored, nobody can wait for the end of a child."""
    program = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with serving(offspring, tmp_path).within(sys.executable, "-c", program) as server:
        all_answer(server, offspring)
        first = offspring.alive()
        for pid in children(zygote(server)):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not offspring.alive().keys() & first, f"the end of {first}", 10)
        all_answer(server, offspring)
    assert offspring.alive() == {}
