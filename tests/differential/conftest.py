"""Cases as tests, and the servers that they share.

A server takes some cases of a runtime at once, since models are loaded side by side. Where one of them can't be loaded,
each gets a server of its own, and the test of that one fails.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

import inferd
from differential.suite import SEED, Entry, entries
from inferd.errors import InferdError
from inferd.spec.declare import settings_of
from inferd.spec.settings import ServerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from differential.case import Case

# A worker of a model of tables takes some 200 MB.
SHARED_BY = 6
# What is refused is logged as info.
QUIET = {"threads": 1, "log_level": "warn"}


class Served(NamedTuple):
    """A case and where it is served; or why it is not, or could not be made."""

    case: Case | None
    server: inferd.Server | None
    fault: BaseException | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, default=None, help="make the cases of tests/differential from this seed, all of them"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--seed", None) is not None
    groups: dict[tuple[str, bool], list[Entry]] = {}
    params = []
    for entry in entries():
        group = groups.setdefault((entry.runtime, entry.slice), [])
        group.append(entry)
        number = (len(group) - 1) // SHARED_BY
        marks = []
        if entry.heavy:
            marks = [pytest.mark.heavy]
        elif not entry.slice:
            marks = [pytest.mark.differential]
        # A seed is asked for to look at some cases: it does not need a mark to be asked for, too.
        params.append(
            pytest.param((entry.runtime, entry.slice, number), entry, id=entry.id, marks=[] if chosen else marks)
        )
    metafunc.parametrize(("group", "entry"), params, indirect=["group"], scope="module")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """What the cases are made from."""
    given = request.config.getoption("--seed", None)
    return SEED if given is None else given


@pytest.fixture(scope="module")
def group(
    request: pytest.FixtureRequest, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Served]]:
    """Cases of one runtime that are served together, by id: those that are run."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [call["entry"] for call in calls if call.get("group") == request.param]
    folder = tmp_path_factory.mktemp("differential")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as servers:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        cases, faults = {}, {}
        for entry in wanted:
            (folder / entry.id).mkdir()
            try:
                cases[entry.id] = entry.make(folder / entry.id, seed)
            except (Exception, pytest.skip.Exception) as fault:
                faults[entry.id] = Served(None, None, fault)
        yield faults | _served(cases, folder, servers)


def _served(cases: dict[str, Case], folder: Path, servers: ExitStack) -> dict[str, Served]:
    own = settings_of(ServerSpec)
    together = {name: case for name, case in cases.items() if own.keys().isdisjoint(case.settings)}
    served = {}
    if len(together) > 1:
        try:
            server = servers.enter_context(inferd.Server(_file(together, folder / "inferd.yaml"), **QUIET))
            served = {name: Served(case, server) for name, case in together.items()}
        except InferdError:
            # One of them: found out below.
            served = {}
    for name, case in cases.items():
        if name in served:
            continue
        settings = {"name": name, **QUIET, **case.settings}
        try:
            served[name] = Served(case, servers.enter_context(inferd.Server(case.path, **settings)))
        except InferdError as fault:
            served[name] = Served(case, None, fault)
    return served


def _file(cases: dict[str, Case], file: Path) -> Path:
    models = [{**case.settings, "path": str(case.path), "name": name} for name, case in cases.items()]
    # JSON is YAML.
    file.write_text(json.dumps({"models": models}))
    return file
