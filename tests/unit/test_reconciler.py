"""What is done so that what runs becomes what is wanted, and what becomes of faults."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.control.dataplane import Loaded
from inferd.control.desired import DesiredState, ResolvedModel
from inferd.control.events import GenerationState
from inferd.control.reconcile.backoff import Backoff
from inferd.control.reconcile.plan import LoadModel, LoadPipeline, UnloadModel, UnloadPipeline, plan
from inferd.control.reconcile.reconciler import Progress, Reconciler
from inferd.control.reconcile.state import ModelStatus, Phase, PipelineStatus
from inferd.control.sources.source import Fault
from inferd.errors import Draining, InvalidInput, ModelFailed, NotFound
from inferd.spec.settings import ModelSpec, ServerSpec
from inferd.types import Signature
from outside.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SIGNATURE = Signature((), ())


def model(name: str = "m", version: int = 1, **settings: Any) -> ResolvedModel:
    return ResolvedModel(name, version, Path(name), ModelSpec(), 1, {"name": name, **settings})


def pipeline(name: str, *models: str) -> dict[str, Any]:
    return {"name": name, "steps": [{"name": one, "models": [(one, 1.0)]} for one in models]}


def desired(*models: ResolvedModel, pipelines: tuple[dict[str, Any], ...] = (), faults: tuple[Fault, ...] = ()):
    return DesiredState(ServerSpec(), {}, {}, list(models), list(pipelines), {}, [], list(faults))


def loaded(generation: int = 1) -> Loaded:
    return Loaded(SIGNATURE, {}, generation)


def status(phase: Phase, one: ResolvedModel, **fields: Any) -> ModelStatus:
    given = loaded() if phase is Phase.LOADED else None
    return ModelStatus(phase, one, **{"loaded": given, **fields})


# -- the plan -------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_loaded_and_what_is_not_wanted_is_unloaded() -> None:
    a, b, c = model("a"), model("b"), model("c")
    models = {("b", 1): status(Phase.LOADED, b), ("c", 1): status(Phase.LOADED, c)}
    assert plan(desired(a, b), models, {}, 0) == [LoadModel(a), UnloadModel(("c", 1))]
    assert plan(desired(b, c), models, {}, 0) == []


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.UNLOADING])
def test_a_model_does_one_thing_at_a_time(phase: Phase) -> None:
    models = {("a", 1): status(phase, model("a"))}
    assert plan(desired(model("a", changed=True)), models, {}, 0) == []
    assert plan(desired(), models, {}, 0) == []


def test_a_model_whose_settings_changed_is_unloaded_and_then_loaded() -> None:
    old, new = model("a"), model("a", replicas=2)
    assert plan(desired(new), {("a", 1): status(Phase.LOADED, old)}, {}, 0) == [UnloadModel(("a", 1))]
    assert plan(desired(new), {("a", 1): status(Phase.UNLOADED, old)}, {}, 0) == [LoadModel(new)]


def test_a_failed_load_is_tried_again_when_it_is_due_or_when_what_is_wanted_changed() -> None:
    one = model("a")
    never, later = status(Phase.FAILED, one), status(Phase.FAILED, one, failures=2, retry_at_s=5.0)
    assert plan(desired(one), {("a", 1): never}, {}, 1e9) == []
    assert plan(desired(one), {("a", 1): later}, {}, 4.9) == []
    assert plan(desired(one), {("a", 1): later}, {}, 5.0) == [LoadModel(one)]
    changed = model("a", mended=True)
    assert plan(desired(changed), {("a", 1): never}, {}, 0) == [LoadModel(changed)]


def test_a_pipeline_waits_for_every_version_of_its_models_and_runs_on_the_greatest() -> None:
    wanted = desired(model("a", 1), model("a", 2), pipelines=(pipeline("p", "a"),))
    models = {("a", 1): status(Phase.LOADED, model("a", 1)), ("a", 2): status(Phase.LOADING, model("a", 2))}
    assert plan(wanted, models, {}, 0) == []
    models["a", 2] = status(Phase.LOADED, model("a", 2), loaded=loaded(2))
    assert plan(wanted, models, {}, 0) == [LoadPipeline(pipeline("p", "a"), {"a": loaded(2)})]


def test_no_model_is_unloaded_while_a_pipeline_runs_on_it() -> None:
    one, wanted = model("a"), desired()
    models = {("a", 1): status(Phase.LOADED, one)}
    running = PipelineStatus(Phase.LOADED, pipeline("p", "a"), {"a": models["a", 1].loaded}, loaded(0))
    assert plan(wanted, models, {"p": running}, 0) == [UnloadPipeline("p")]
    assert plan(wanted, models, {"p": running._replace(phase=Phase.UNLOADING)}, 0) == []
    assert plan(wanted, models, {}, 0) == [UnloadModel(("a", 1))]


def test_what_has_a_fault_in_its_files_stays_as_it_is() -> None:
    a, b = model("a"), model("b")
    models = {("a", 1): status(Phase.LOADED, a), ("b", 1): status(Phase.LOADED, b)}
    assert plan(desired(faults=(Fault("x", ("a",)),)), models, {}, 0) == [UnloadModel(("b", 1))]
    assert plan(desired(faults=(Fault("inferd.yaml: not YAML"),)), models, {}, 0) == []
    # A pipeline over a model with a fault can't be resolved.
    running = {"p": PipelineStatus(Phase.LOADED, pipeline("p", "a"), {"a": models["a", 1].loaded}, loaded(0))}
    assert plan(desired(b, faults=(Fault("x", ("a",)),)), models, running, 0) == []
    assert plan(desired(b), models, running, 0) == [UnloadPipeline("p")]


# -- back-off -------------------------------------------------------------------------------------------------------


def test_the_first_retry_is_immediate_and_the_later_ones_back_off_to_a_bound() -> None:
    backoff = Backoff(first_s=1, factor=2, max_s=10, jitter=0.5)
    assert [backoff.delay_s(failures, 0.0) for failures in (1, 2, 3, 4, 5, 6, 10_000)] == [0, 1, 2, 4, 8, 10, 10]
    assert backoff.delay_s(4, 0.5) == 3


# -- the reconciler -------------------------------------------------------------------------------------------------


class Plane:
    """A data plane in the hands of a test."""

    def __init__(self) -> None:
        self.running: dict[tuple[str, int], ResolvedModel] = {}
        self.graphs: dict[str, Mapping[str, Loaded]] = {}
        self.faults: dict[str, BaseException] = {}
        self.gates: dict[str, threading.Event] = {}
        self.calls: list[str] = []
        self._generations = itertools.count(1)
        self._busy: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def load(self, one: ResolvedModel) -> Loaded:
        key = one.name, one.version
        with self._lock:
            assert key not in self._busy, "one thing at a time"
            self._busy.add(key)
            self.calls.append(f"load {one.name}")
        try:
            if one.name in self.gates:
                assert self.gates[one.name].wait(30)
            if one.name in self.faults:
                raise self.faults[one.name]
            assert key not in self.running
            self.running[key] = one
            return loaded(next(self._generations))
        finally:
            self._busy.discard(key)

    def unload(self, name: str, version: int) -> None:
        self.calls.append(f"unload {name}")
        if self.graphs.pop(name, None) is not None:
            return
        assert not any(name in graph for graph in self.graphs.values())
        if self.running.pop((name, version), None) is None:
            raise NotFound(f"model '{name}' is not loaded")

    def load_pipeline(self, graph: dict[str, Any], _: object, models: Mapping[str, Loaded]) -> Loaded:
        name = graph["name"]
        self.calls.append(f"load {name}")
        if name in self.faults:
            raise self.faults[name]
        self.graphs[name] = models
        return loaded(0)


class Clock:
    """Time that passes when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def make(plane: Plane) -> Iterator[Callable[..., Reconciler]]:
    made: list[Reconciler] = []
    before = set(threading.enumerate())

    def build(**options: Any) -> Reconciler:
        made.append(Reconciler(plane, chance=lambda: 0.0, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()
    wait_for(lambda: not set(threading.enumerate()) - before, "the ends of all threads")


def told(name: str, generation: int, state: str, reason: str | None = None) -> GenerationState:
    return GenerationState(model=name, version=1, generation=generation, at_s=0.0, state=state, reason=reason)


def test_one_models_fault_of_any_kind_stops_no_other(plane: Plane, make) -> None:
    plane.faults = {
        "a": ModelFailed("no such file", detail="trace"),
        "b": ZeroDivisionError("oops"),
        "c": SystemExit(3),
    }
    seen: list[Progress] = []
    one = make(on_progress=seen.append)
    one.want(desired(*map(model, "abcde"), pipelines=(pipeline("p", "d", "e"), pipeline("q", "a"))))
    one.wait()
    assert set(one.loaded) == {("d", 1), ("e", 1)}
    assert set(one.pipelines) == {"p"}
    with pytest.raises(ModelFailed) as raised:
        one.raise_for_failures()
    assert str(raised.value).splitlines() == [
        "model 'a' version 1: no such file",
        "model 'b' version 1: ZeroDivisionError: oops",
        "model 'c' version 1: SystemExit: 3",
    ]
    assert "trace" in raised.value.detail
    assert "ZeroDivisionError: oops" in raised.value.detail
    ends = {progress.model.name: progress for progress in seen if progress.loaded or progress.error}
    assert {name for name, progress in ends.items() if progress.error} == {"a", "b", "c"}
    # What never was loaded is not tried again.
    one.reconcile()
    one.wait()
    assert plane.calls.count("load a") == 1


def test_it_does_nothing_where_nothing_differs(plane: Plane, make) -> None:
    one = make()
    wanted = desired(model("a"), pipelines=(pipeline("p", "a"),))
    for _ in range(3):
        one.want(wanted)
        one.wait()
    assert plane.calls == ["load a", "load p"]


def test_a_slow_load_holds_no_other_up(plane: Plane, make) -> None:
    plane.gates["a"] = threading.Event()
    one = make()
    one.want(desired(model("a"), model("b")))
    wait_for(lambda: ("b", 1) in one.loaded, "the other")
    assert one.models["a", 1].phase is Phase.LOADING
    plane.gates["a"].set()
    one.wait()
    assert list(one.loaded) == [("a", 1), ("b", 1)]


def test_what_is_wanted_may_change_while_it_is_being_done(plane: Plane, make) -> None:
    plane.gates["a"] = threading.Event()
    one = make()
    one.want(desired(model("a")))
    one.want(desired(model("b"), pipelines=(pipeline("p", "b"),)))
    plane.gates["a"].set()
    wait_for(lambda: not plane.running.keys() - {("b", 1)} and plane.graphs, "b alone")
    one.wait()
    assert one.models.keys() == {("b", 1)}
    one.want(desired(model("b", changed=True), pipelines=(pipeline("p", "b"),)))
    one.wait()
    assert plane.running["b", 1].settings["changed"]
    assert plane.calls[-4:] == ["unload p", "unload b", "load b", "load p"]


def test_a_pipelines_fault_is_raised_and_its_models_serve(plane: Plane, make) -> None:
    plane.faults["p"] = InvalidInput("its steps don't fit")
    one = make()
    wanted = desired(model("a"), pipelines=(pipeline("p", "a"),))
    one.want(wanted)
    one.wait()
    with pytest.raises(InvalidInput, match="don't fit"):
        one.raise_for_failures()
    assert set(one.loaded) == {("a", 1)}
    one.want(wanted)
    one.wait()
    assert plane.calls.count("load p") == 1


def test_events_say_how_a_model_is_and_one_that_was_lost_comes_back(plane: Plane, make) -> None:
    clock = Clock()
    one = make(clock=clock, backoff=Backoff(first_s=200))
    one.want(desired(model("a"), pipelines=(pipeline("p", "a"),)))
    one.wait()
    one.observe([told("a", 1, "unavailable", "no file")])
    assert (one.models["a", 1].state, one.models["a", 1].reason) == ("unavailable", "no file")
    # Of an earlier load, or of a model that nobody wants.
    one.observe([told("a", 0, "gone"), told("b", 1, "gone")])
    assert one.models["a", 1].phase is Phase.LOADED
    one.observe([told("a", 1, "ready"), told("a", 1, "draining")])
    assert one.models["a", 1].phase is Phase.LOST
    one.reconcile()
    wait_for(lambda: "a" in plane.graphs.get("p", {}) and plane.graphs["p"]["a"].generation == 2, "the second load")
    one.wait()
    assert plane.calls == ["load a", "load p", "unload p", "unload a", "load a", "load p"]
    # The next time it is let wait; after it has served for long it is not.
    one.observe([told("a", 2, "gone")])
    one.reconcile()
    assert one.models["a", 1].retry_at_s == clock.now_s + 200
    clock.now_s += 200
    one.reconcile()
    one.wait()
    assert one.loaded["a", 1].generation == 3
    clock.now_s += 601
    one.observe([told("a", 3, "gone")])
    assert one.models["a", 1].failures == 1


def test_a_lost_model_that_fails_to_load_is_tried_again_by_a_timer(plane: Plane, make) -> None:
    one = make(backoff=Backoff(first_s=0.01, factor=1.0))
    one.want(desired(model("a")))
    one.wait()
    plane.faults["a"] = ModelFailed("not yet")
    one.observe([told("a", 1, "gone")])
    one.reconcile()
    wait_for(lambda: plane.calls.count("load a") >= 4, "three more attempts")
    del plane.faults["a"]
    wait_for(lambda: one.loaded, "the model")


def test_an_event_that_is_read_before_its_load_has_ended_is_not_lost(plane: Plane, make) -> None:
    plane.gates["a"] = threading.Event()
    one = make(backoff=Backoff(first_s=200))
    one.want(desired(model("a")))
    one.observe([told("a", 1, "unavailable", "died at once")])
    plane.gates["a"].set()
    one.wait()
    assert one.models["a", 1].reason == "died at once"


def test_after_events_were_dropped_the_status_says_what_is_there(plane: Plane, make) -> None:
    one = make(backoff=Backoff(first_s=200))
    one.want(desired(model("a"), model("b"), model("c")))
    one.wait()
    generations = {name: one.loaded[name, 1].generation for name in "abc"}
    states = {"a": "ready", "b": "unavailable", "c": "ready"}
    view = [
        {"name": name, "version": 1, "generation": generations[name], "state": states[name], "reason": None}
        for name in "ab"
    ]
    # Another load under the same name.
    one.resync(lambda: {"models": [*view, {**view[0], "name": "c", "generation": 99}]})
    assert [one.models[name, 1].phase for name in "abc"] == [Phase.LOADED, Phase.LOADED, Phase.LOST]
    assert one.models["b", 1].state == "unavailable"


def test_after_its_end_nothing_begins(plane: Plane, make) -> None:
    plane.gates["a"] = threading.Event()
    one = make()
    one.want(desired(model("a"), pipelines=(pipeline("p", "a"),)))
    one.close()
    plane.gates["a"].set()
    with pytest.raises(Draining):
        one.wait()
    one.observe([told("a", 1, "gone")])
    one.reconcile()
    assert plane.calls == ["load a"]
    assert one.models["a", 1].phase is Phase.LOADED
