"""The data plane as the control plane sees it: typed values instead of JSON.

Reads resolved settings, hands on signatures, states and exceptions of :mod:`inferd.errors`.
The only user of the native module here; knows nothing of files and flags.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd import _native
from inferd._native import __version__, flush_streams, write_stream
from inferd.control import events
from inferd.errors import InferdError, InvalidInput
from inferd.types import Signature

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DataPlane", "Loaded", "__version__", "flush_streams", "refuse_ports", "simulate", "write_stream"]


def simulate(scenario: dict[str, Any], progress: Callable[[float], object] | None = None) -> dict[str, Any]:
    """What would come of a load: the report of the crate ``simulator`` for one of its scenarios.

    Args:
        scenario: ``Scenario`` of the crate ``simulator``.
        progress: called now and then with the share of the simulated time that has passed; what it raises ends the
            simulation.

    Raises:
        InvalidInput: the scenario makes no sense.
    """
    report: dict[str, Any] = json.loads(_native.simulate(json.dumps(scenario), progress))
    return report


class Loaded(NamedTuple):
    """A model version that is ready."""

    signature: Signature
    facts: dict[str, str]
    generation: int = 0
    """Which load it is, as events have it; 0 for a pipeline."""


class DataPlane:
    """Gateway, schedulers and workers of this process. Threads of its own; they never wait for Python.

    Args:
        gateway: ``GatewaySettings`` of the crate ``types``.
        log: ``format`` (text or json) and ``level``.

    Raises:
        InferdError: a port is taken, or the host is not one of this machine.
    """

    def __init__(self, gateway: dict[str, Any], log: dict[str, Any]) -> None:
        try:
            self._native = _native.DataPlane(json.dumps({"gateway": gateway, "log": log}))
        except InferdError as fault:
            raise _with_remedy(fault, gateway) from None

    @classmethod
    def without_listeners(cls, gateway: dict[str, Any], log: dict[str, Any]) -> DataPlane:
        """A data plane that accepts no connections: to load models without serving them.

        It takes a free port of the loopback interface, since it knows no other way to start, and gives it up at once.
        """
        plane = cls({**gateway, "host": "127.0.0.1", "port": 0, "metrics_port": None}, log)
        plane._native.stop_listening()
        return plane

    @property
    def addresses(self) -> dict[str, str]:
        """``host:port`` of ``data`` and, where there is one, ``metrics``."""
        return self._native.addresses()

    def load(self, settings: dict[str, Any]) -> Loaded:
        """Load one model version; returns when every replica is warm. May be called from several threads.

        Args:
            settings: ``ModelSettings`` of the crate ``types``.
        """
        return _loaded(self._native.load(json.dumps(settings)))

    def load_pipeline(self, settings: dict[str, Any]) -> Loaded:
        """Serve a pipeline over models that are loaded.

        Args:
            settings: ``PipelineSettings`` of the crate ``types``.

        Raises:
            InvalidInput: its steps don't fit each other; every fault with its step and tensor.
        """
        return _loaded(self._native.load_pipeline(json.dumps(settings)))

    def unload(self, name: str, version: int) -> None:
        """Drain one model version and forget it."""
        self._native.unload(name, version)

    def set_ready(self, ready: bool) -> None:
        """Set what ``/v2/health/ready`` answers."""
        self._native.set_ready(ready)

    def events(self, timeout_s: float) -> list[events.Event] | None:
        """Wait until something happened, at most ``timeout_s`` seconds, and take it. For one reader.

        Returns:
            What happened since the last call, in order: nothing when the time is over, None once the data plane is
            closed and everything was read.
        """
        text = self._native.events(timeout_s)
        return None if text is None else events.decode(text)

    def status(self) -> dict[str, Any]:
        """``{"models": [{name, version, generation, state, reason, replicas, profile, explain, …}, …]}``."""
        status: dict[str, Any] = json.loads(self._native.status())
        return status

    def drain(self, within_s: float) -> int:
        """Admit nothing more and answer what was admitted.

        Returns:
            Requests that got an error because ``within_s`` seconds were over.
        """
        return self._native.drain(within_s)

    def close(self) -> None:
        """End every worker and thread, now."""
        self._native.close()


def _loaded(text: str) -> Loaded:
    loaded = json.loads(text)
    return Loaded(Signature.from_json(loaded["signature"]), loaded["facts"], loaded["generation"])


def refuse_ports(gateway: dict[str, Any]) -> None:
    """Say what :class:`DataPlane` would say of the addresses of ``gateway``, without listening on them.

    Raises:
        InvalidInput: a port is taken, or the host is not one of this machine.
    """
    wanted = [("port", gateway["host"], gateway["port"])]
    if gateway["metrics_port"] is not None:
        wanted.append(("metrics_port", "127.0.0.1", gateway["metrics_port"]))
    for setting, host, port in wanted:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                # As the data plane has it: only a socket that listens is in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as fault:
            lookup = isinstance(fault, socket.gaierror)
            why = (
                f"failed to lookup address information: {fault.strerror}"
                if lookup
                else f"{fault.strerror} (os error {fault.errno})"
            )
            refused = InvalidInput(
                f"cannot listen on {host}:{port}: {why}; set {setting} to a free port, or to 0 for any"
            )
            raise _with_remedy(refused, gateway) from None


def _with_remedy(fault: InferdError, gateway: dict[str, Any]) -> InferdError:
    if "in use" in str(fault) and "help:" not in str(fault):
        flag = "--metrics-port" if f":{gateway['metrics_port']}" in str(fault) else "--port"
        return type(fault)(f"{fault}\nhelp: choose another with {flag}, 0 takes a free one", detail=fault.detail)
    return fault
