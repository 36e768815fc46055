"""The direction of dependencies between the crates, and where `unsafe` may stand: read from the sources."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRATES = ROOT / "crates"

# types ← {protocol, scheduler, transport} ← dispatcher ← gateway ← native, with onnx beside the dispatcher and the
# simulator beside all but the scheduler. The dispatcher never sees protocol: what a request looked like on the wire must not decide how it is scheduled.
ALLOWED = {
    "types": set(),
    "protocol": {"types"},
    "scheduler": {"types"},
    "simulator": {"types", "scheduler"},
    "transport": {"types"},
    "onnx": {"types", "transport"},
    "dispatcher": {"types", "scheduler", "transport"},
    "gateway": {"types", "protocol", "dispatcher"},
    "native": {"types", "protocol", "simulator", "transport", "onnx", "dispatcher", "gateway"},
    "testkit": {"types", "dispatcher"},
}
# Tests may reach further: all use the kit of fakes and full settings, and the gateway's run real workers.
ALLOWED_IN_TESTS = {crate: {"testkit"} for crate in ALLOWED} | {"gateway": {"testkit", "transport"}}
# What would break the purity of the scheduler and of the protocol.
FOREIGN = {
    "types": {"tokio", "hyper", "tonic", "rustix", "libc"},
    "scheduler": {"tokio", "rustix", "libc", "inferd-transport", "rand"},
    "protocol": {"tokio", "hyper", "socket2", "rustix", "libc"},
    "simulator": {"tokio", "rustix", "libc"},
}
UNSAFE_CRATES = {"transport", "onnx"}
UNSAFE_FILES = {Path("native/src/view.rs")}


def manifest(crate: str) -> dict[str, Any]:
    return tomllib.loads((CRATES / crate / "Cargo.toml").read_text())


def ours(crate: str, table: str) -> set[str]:
    return {name.removeprefix("inferd-") for name in manifest(crate).get(table, {}) if name.startswith("inferd-")}


def test_every_crate_has_its_place() -> None:
    assert {path.parent.name for path in CRATES.glob("*/Cargo.toml")} == set(ALLOWED)


@pytest.mark.parametrize("crate", ALLOWED)
def test_a_crate_depends_on_nothing_but_what_stands_above_it(crate: str) -> None:
    for table in ("dependencies", "build-dependencies"):
        assert ours(crate, table) <= ALLOWED[crate]
    assert ours(crate, "dev-dependencies") <= ALLOWED[crate] | ALLOWED_IN_TESTS.get(crate, set())
    # A dependency under one platform is one all the same.
    assert "target" not in manifest(crate)


def test_the_table_has_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(ALLOWED):
        free = {crate for crate, needs in ALLOWED.items() if crate not in placed and needs <= placed}
        assert free, f"a circle among {set(ALLOWED) - placed}"
        placed |= free


@pytest.mark.parametrize("crate", FOREIGN)
def test_pure_crates_know_no_sockets_and_no_runtime(crate: str) -> None:
    assert not set(manifest(crate).get("dependencies", {})) & FOREIGN[crate]


@pytest.mark.parametrize("crate", ALLOWED)
def test_every_crate_takes_the_lints_of_the_workspace(crate: str) -> None:
    assert manifest(crate)["lints"] == {"workspace": True}


def code(file: Path) -> str:
    """The file without comments and the text of strings."""
    # In one pass, since either may stand in the other; a string may go on in the next line.
    return re.sub(r'"(?:\\[\s\S]|[^"\\])*"|//.*', lambda found: '""' if found[0][0] == '"' else "", file.read_text())


def test_unsafe_stands_only_where_the_design_allows_it() -> None:
    for file in CRATES.glob("*/src/**/*.rs"):
        place = file.relative_to(CRATES)
        if place.parts[0] in UNSAFE_CRATES or place in UNSAFE_FILES:
            continue
        assert not re.search(r"\bunsafe\b(?!_)", code(file)), place


def test_crates_without_unsafe_forbid_it() -> None:
    for crate in set(ALLOWED) - UNSAFE_CRATES - {file.parts[0] for file in UNSAFE_FILES}:
        assert "#![forbid(unsafe_code)]" in (CRATES / crate / "src" / "lib.rs").read_text(), crate


def test_every_unsafe_block_says_why_it_is_sound() -> None:
    lints = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["lints"]["clippy"]
    assert lints["undocumented_unsafe_blocks"] == "deny"


def test_no_rust_file_is_two_ideas() -> None:
    for file in CRATES.glob("*/src/**/*.rs"):
        assert len(file.read_text().splitlines()) <= 600, file.relative_to(ROOT)
