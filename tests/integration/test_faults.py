"""Workers that die, hang or raise: nobody pays for it but the request that did it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from outside.metrics import Metrics
from outside.models import EXIT, HANG, NOTHING, RAISE, REFUSE, SAY, SLEEP
from outside.traffic import Answer, Background, at_rate, four_columns, orders, row_of, send
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from outside.process import Inferd

BUSY, MOODY = "/v2/models/busy/infer", "/v2/models/moody/infer"
KILLING_S = 60
LOAD = 0.8


def wrong(answers: list[Answer]) -> list[tuple[int, int, bytes]]:
    """Those that were not answered, or with something that belongs to somebody else."""
    return [
        (answer.index, answer.status, answer.body[:200])
        for answer in answers
        if answer.status != 200 or answer.data() != row_of(answer.index)
    ]


def capacity(server: Inferd) -> float:
    """Answers a second that the server and the generator manage together on this machine, one by one."""
    bodies = [four_columns(index) for index in range(600)]
    begun = time.monotonic()
    assert not wrong(send(server.address, BUSY, bodies, connections=8))
    return len(bodies) / (time.monotonic() - begun)


def kill_a_worker(server: Inferd, draw: random.Random) -> None:
    workers = server.workers()
    if workers:
        os.kill(draw.choice(workers), signal.SIGKILL)


def test_a_worker_killed_every_second_for_a_minute_at_80_percent_load_loses_no_request(serve, files: Path) -> None:
    flags = ("--replicas", "2", "--threads", "1", "--batch-rows-max", "4")
    with serve(files / "busy.onnx", *flags) as server:
        rate = LOAD * capacity(server)
        draw = random.Random(11)
        traffic = Background(lambda: at_rate(server.address, BUSY, four_columns, rate, KILLING_S))
        kills = 0
        begun = time.monotonic()
        while traffic.running and time.monotonic() - begun < KILLING_S:
            kill_a_worker(server, draw)
            kills += 1
            time.sleep(max(0.0, begun + kills - time.monotonic()))
        answers = traffic.answers()
        assert kills >= KILLING_S - 2
        # Less than was meant only where somebody else took the machine meanwhile.
        assert len(answers) > rate * KILLING_S / 3
        assert wrong(answers) == []
        lost = Metrics(server.metrics_url).value("inferd_worker_losses_total", model="busy")
        assert lost > KILLING_S / 2
        wait_for(lambda: len(server.workers()) == 2, "both replicas")


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_poison_request_among_a_thousand_good_ones_is_the_only_one_that_fails(
    serve, files: Path, replicas: int
) -> None:
    with serve(files / "moody.py", "--replicas", str(replicas), "--threads", "1") as server:
        bodies = [orders((NOTHING, index)) for index in range(1001)]
        poison = 500
        bodies[poison] = orders((EXIT, 3))
        answers = send(server.address, MOODY, bodies, connections=32)
        failed = [answer for answer in answers if answer.status != 200]
        assert [answer.index for answer in failed] == [poison], [(a.index, a.status, a.body) for a in failed]
        assert failed[0].status == 500
        assert list(failed[0].json()) == ["error"]
        assert all(answer.data() == [NOTHING, answer.index] for answer in answers if answer.status == 200)
        assert 2 <= Metrics(server.metrics_url).value("inferd_worker_losses_total", model="moody") < 20


def test_a_replica_is_back_about_as_soon_as_its_model_has_loaded(serve, files: Path) -> None:
    with serve(files / "identity.onnx", "--threads", "1") as server:
        [before] = server.workers()
        begun = time.monotonic()
        os.kill(before, signal.SIGKILL)
        [answer] = send(server.address, "/v2/models/identity/infer", [four_columns(7)])
        assert (answer.status, answer.data()) == (200, row_of(7))
        # Tens of milliseconds on a quiet machine; this one may be busy.
        assert time.monotonic() - begun < 5
        [after] = server.workers()
        assert after != before


def test_a_request_that_hangs_ends_and_its_neighbours_are_answered(serve, files: Path) -> None:
    flags = ("--execution-max-s", "1s", "--threads", "1")
    with serve(files / "moody.py", *flags) as server:
        bodies = [orders((NOTHING, index)) for index in range(60)]
        bodies[30] = orders((HANG, 0))
        answers = send(server.address, MOODY, bodies, connections=16)
        failed = {answer.index: answer.status for answer in answers if answer.status != 200}
        assert failed == {30: 504}
        losses = Metrics(server.metrics_url)
        assert losses.value("inferd_worker_losses_total", model="moody", reason="hang") >= 1


def test_an_error_of_the_model_is_told_safely_and_its_traceback_logged(serve, files: Path) -> None:
    with serve(files / "moody.py", "--threads", "1") as server:
        bodies = [orders((NOTHING, index)) for index in range(40)]
        bodies[20] = orders((RAISE, 42))
        answers = send(server.address, MOODY, bodies, connections=16)
        failed = {answer.index: answer for answer in answers if answer.status != 200}
        assert {index: answer.status for index, answer in failed.items()} == {20: 500}
        assert b"secret" not in failed[20].body
        assert b"RuntimeError" in failed[20].body
        wait_for(lambda: "the secret of row 42" in server.log(), "the traceback in the log")
        assert "Traceback" in server.log()
        assert "moody" in server.log()
        # Nobody died of it.
        assert Metrics(server.metrics_url).value("inferd_worker_losses_total") == 0


def test_a_model_may_refuse_a_request_and_the_client_reads_why(serve, files: Path) -> None:
    with serve(files / "moody.py", "--threads", "1") as server:
        bodies = [orders((NOTHING, index)) for index in range(20)] + [orders((REFUSE, 0))]
        answers = send(server.address, MOODY, bodies, connections=8)
        assert [answer.index for answer in answers if answer.status != 200] == [20]
        assert answers[20].status == 400
        assert "are refused" in answers[20].json()["error"]


def test_what_a_worker_prints_reaches_the_log_with_the_models_name(serve, files: Path) -> None:
    with serve(files / "moody.py", "--log-format", "json") as server:
        send(server.address, MOODY, [orders((SAY, 12))])

        def lines() -> list[dict]:
            entries = [line for line in server.log().splitlines() if line.startswith("{")]
            return [entry for entry in map(json.loads, entries) if "the model says 12" in json.dumps(entry)]

        [line] = wait_for(lines, "what the model said")
        assert '"moody"' in json.dumps(line)


def test_without_retries_the_request_of_a_dead_worker_is_answered_at_once(serve, files: Path) -> None:
    flags = ("--no-retry-on-worker-loss", "--threads", "1", "--batching", "off")
    with serve(files / "moody.py", *flags) as server:
        [answer] = send(server.address, MOODY, [orders((EXIT, 1))])
        assert answer.status == 503
        # What had not begun to run is innocent, and answered.
        bodies = [orders((SLEEP, 0.2)), *(orders((NOTHING, index)) for index in range(8))]
        traffic = Background(lambda: _all(server, bodies))
        wait_for(lambda: _running(server), "a running batch")
        os.kill(server.workers()[0], signal.SIGKILL)
        statuses = [answer.status for answer in traffic.answers()]
        assert statuses.count(503) <= 1
        assert statuses.count(200) >= 8


def _all(server: Inferd, bodies: list[bytes]):
    from outside.traffic import all_at_once

    return all_at_once(server.address, MOODY, bodies, connections=len(bodies))


def _running(server: Inferd) -> bool:
    return Metrics(server.metrics_url).value("inferd_queue_rows", model="moody") >= 1


def test_a_poison_that_comes_again_and_again_does_not_starve_the_others(serve, files: Path) -> None:
    # Four poisons among sixteen callers end 8 to 24 workers, as batches fall: the budget for that is tested elsewhere.
    budget = ("--kills-per-minute-max", "100")
    with serve(files / "moody.py", "--replicas", "2", "--threads", "1", *budget) as server:
        bodies = [orders((EXIT, 1)) if index % 50 == 25 else orders((NOTHING, index)) for index in range(200)]
        answers = send(server.address, MOODY, bodies, connections=16)
        good = [answer for answer in answers if answer.index % 50 != 25]
        assert [answer.index for answer in good if answer.status != 200] == []
        assert all(answer.status in (500, 503) for answer in answers if answer.index % 50 == 25)


def test_workers_end_when_the_server_is_killed(serve, files: Path) -> None:
    with serve(files / "busy.onnx", files / "moody.py", "--replicas", "2") as server:
        assert len(server.members()) >= 5
        os.kill(server.pid, signal.SIGKILL)
        server.popen.wait()
    # The end of the block has looked for what is left.
