"""What the data plane tells of itself, and that a server follows it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

import inferd
from inferd.control.config import desired_state
from inferd.control.control_plane import ControlPlane
from inferd.control.dataplane import DataPlane
from inferd.control.events import GenerationLoaded, GenerationState, ReplicaState, WorkerLost
from inferd.control.resources import observe
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.control.desired import DesiredState
    from inferd.control.events import Event

WITHIN_S = 30.0


def desired(*files: Path, **settings: object) -> DesiredState:
    server = {"log_level": "error"}
    return desired_state(files, server, {"profiling": False, "threads": 1, **settings}, observe(), ports_free=True)


class Reader:
    """Every event so far, read in a thread as the control plane does."""

    def __init__(self, plane: DataPlane) -> None:
        self.events: list[Event] = []
        self._plane = plane
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while (events := self._plane.events(WITHIN_S)) is not None:
            self.events += events

    def words(self) -> list[str]:
        """In short, what was told of the one replica and its model."""
        return [
            f"{type(event).__name__} {getattr(event, 'state', None) or getattr(event, 'reason', '')}".strip()
            for event in list(self.events)
        ]

    def join(self) -> None:
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()


@pytest.fixture
def plane() -> Iterator[DataPlane]:
    wanted = desired()
    made = DataPlane(wanted.gateway, wanted.log)
    yield made
    made.close()


def test_the_life_of_a_model_is_told_in_order(plane: DataPlane, files: Path) -> None:
    reader = Reader(plane)
    (model,) = desired(files / "moody.py").models
    loaded = plane.load(model.settings)
    wait_for(lambda: any(isinstance(event, GenerationLoaded) for event in reader.events), "the load")
    assert reader.words() == [
        "GenerationState loading",
        "ReplicaState starting",
        # With a process, which is warmed up.
        "ReplicaState starting",
        "GenerationState ready",
        "ReplicaState ready",
        "GenerationLoaded",
    ]
    states = [event for event in reader.events if isinstance(event, GenerationState)]
    assert [event.state for event in states] == ["loading", "ready"]
    told = next(event for event in reader.events if isinstance(event, GenerationLoaded))
    assert (told.model, told.version, told.generation) == ("moody", 1, loaded.generation)
    assert 0 < told.took_s < WITHIN_S
    assert states[0].at_s <= states[1].at_s <= told.at_s
    before = len(reader.events)
    plane.unload("moody", 1)
    wait_for(lambda: reader.words()[-1] == "GenerationState gone", "its end")
    assert reader.words()[before:] == [
        "GenerationState draining",
        "ReplicaState closing",
        "ReplicaState ended",
        "GenerationState gone",
    ]
    plane.close()
    reader.join()


def test_a_worker_that_is_killed_is_told_with_what_follows(plane: DataPlane, files: Path) -> None:
    reader = Reader(plane)
    (model,) = desired(files / "moody.py").models
    plane.load(model.settings)
    (replica,) = plane.status()["models"][0]["replicas"]
    wait_for(lambda: any(isinstance(event, GenerationLoaded) for event in reader.events), "the load")
    before = len(reader.events)
    os.kill(replica["pid"], signal.SIGKILL)
    wait_for(lambda: "ReplicaState ready" in reader.words()[before:], "the next worker")
    lost, *after = reader.events[before:]
    assert isinstance(lost, WorkerLost)
    assert (lost.replica, lost.pid, lost.reason) == (0, replica["pid"], "signal")
    states = [event.state for event in after if isinstance(event, ReplicaState)]
    assert states[-1] == "ready"
    assert set(states) <= {"backoff", "starting", "ready"}
    assert after[-1].pid not in (None, replica["pid"])
    plane.close()
    reader.join()


def test_a_load_that_fails_tells_why(plane: DataPlane, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import inferd\nclass M(inferd.Model):\n    def predict(self): 1 / 0\n")
    (model,) = desired(tmp_path / "broken.py").models
    reader = Reader(plane)
    with pytest.raises(inferd.InferdError) as raised:
        plane.load(model.settings)
    wait_for(lambda: "gone" in [getattr(event, "state", "") for event in reader.events], "its end")
    states = [(event.state, event.reason) for event in reader.events if isinstance(event, GenerationState)]
    assert states[0] == ("loading", None)
    assert states[-1] == ("gone", str(raised.value))
    plane.close()
    reader.join()


def test_no_event_is_waited_for_longer_than_asked_and_none_comes_after_the_end(plane: DataPlane) -> None:
    begun_s = time.monotonic()
    assert plane.events(0.05) == []
    assert time.monotonic() - begun_s >= 0.05
    plane.close()
    assert plane.events(WITHIN_S) is None
    with pytest.raises(ValueError, match="negative"):
        plane.events(-1.0)


def test_a_server_loads_a_model_again_that_ended_by_itself(files: Path) -> None:
    control = ControlPlane(desired(files / "moody.py"), observe())
    try:
        control.load()
        first = control.loaded["moody", 1].generation
        # Behind its back, as a task that fails would end it.
        control.data_plane.unload("moody", 1)
        wait_for(lambda: getattr(control.loaded.get(("moody", 1)), "generation", first) > first, "the second load")
        url = f"http://{control.data_plane.addresses['data']}/v2/models/moody/ready"
        wait_for(lambda: httpx.get(url).status_code == 200, "readiness")
    finally:
        control.close()


def test_a_server_that_nobody_stops_ends_when_nobody_has_it(files: Path) -> None:
    control = ControlPlane(desired(files / "identity.onnx"), observe())
    control.load()
    address = control.data_plane.addresses["data"]
    assert httpx.get(f"http://{address}/v2/health/ready").status_code == 200
    del control
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/v2/health/ready")
