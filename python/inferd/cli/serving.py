"""``inferd serve`` from its first line of output to its exit: progress, table, signals.

Reads a plan, drives a supervisor, prints. Knows nothing of flags and files.

The main thread only waits and takes signals. What may block (loading, draining) runs beside it: Python runs its signal
handlers between instructions of the main thread, never inside a call into the data plane.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

from inferd.cli import show
from inferd.cli.streams import flush
from inferd.control.supervisor import Event, Supervisor
from inferd.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.control.resolve import Plan
    from inferd.control.resources import Machine

__all__ = ["serve_until_told"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal that closes sends it more than once, and systemd sends it with SIGTERM: it never hurries a drain.
_HANGUP = signal.SIGHUP


def serve_until_told(plan: Plan, machine: Machine) -> int:
    """Serve ``plan`` until the first SIGTERM, SIGINT or SIGHUP, then drain. Another of the first two exits at once.

    Returns:
        The exit status: 0 when every admitted request was answered, else 1.

    Raises:
        InferdError: it could not start.
    """
    started_s = time.monotonic()
    told: SimpleQueue[int | InferdError | None] = SimpleQueue()
    for number in _SIGNALS:
        # A queue, since its put is safe inside a handler.
        signal.signal(number, lambda number, _: told.put(number))
    # nohup has it ignored, and means it.
    if signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        signal.signal(_HANGUP, lambda number, _: told.put(number))
    supervisor = Supervisor(plan, machine, _say)
    _beside(supervisor.load, told)
    outcome = told.get()
    if isinstance(outcome, InferdError):
        supervisor.close()
        raise outcome
    if outcome is None:
        _announce(supervisor, time.monotonic() - started_s)
        outcome = told.get()
    return _drain(supervisor, told, outcome)


def _drain(
    supervisor: Supervisor, told: SimpleQueue[int | InferdError | None], number: int | InferdError | None
) -> int:
    limit_s = supervisor.plan.server.drain_timeout_s
    click.echo(f"{_name(number)}: draining, at most {limit_s:g} s; again to exit now", err=True)
    unanswered: list[int] = []
    _beside(lambda: unanswered.append(supervisor.stop()), told)
    while (outcome := told.get()) is not None:
        if isinstance(outcome, InferdError):
            raise outcome
        if outcome == _HANGUP:
            continue
        click.echo(f"{_name(outcome)} again: exiting now", err=True)
        flush()
        # Workers end with this process. Nothing else here may wait for anything.
        os._exit(128 + outcome)
    left = unanswered[0]
    click.echo("stopped" if left == 0 else f"stopped; {left} requests were not answered in {limit_s:g} s", err=True)
    return 0 if left == 0 else 1


def _beside(act: Callable[[], object], told: SimpleQueue[int | InferdError | None]) -> None:
    """Run ``act`` in a thread that nobody waits for; its end is told."""

    def body() -> None:
        try:
            act()
        except InferdError as error:
            told.put(error)
        except BaseException as error:
            told.put(InferdError(f"{type(error).__name__}: {error}"))
            raise
        else:
            told.put(None)

    threading.Thread(target=body, daemon=True).start()


def _say(event: Event) -> None:
    click.echo(show.event_line(event), err=True)


def _announce(supervisor: Supervisor, took_s: float) -> None:
    plan, addresses = supervisor.plan, supervisor.data_plane.addresses
    first = plan.models[0]
    signature = supervisor.loaded[first.name, first.version].signature
    click.echo(show.serving_table(plan, supervisor.loaded))
    if plan.pipelines:
        click.echo("")
        click.echo(show.pipeline_table(plan, supervisor.pipelines))
    notes = [*plan.notes, *show.left_out(supervisor.loaded)]
    if notes:
        click.echo("")
        click.echo(show.note_lines(notes))
    click.echo("")
    click.echo(show.address_lines(addresses, docs=plan.gateway["docs_folder"] is not None))
    click.echo(f"try            {show.curl_line(addresses['data'], first.name, signature)}")
    click.echo(f"ready in {took_s:.2f} s")


def _name(number: object) -> str:
    return signal.Signals(number).name if isinstance(number, int) else "stop"
