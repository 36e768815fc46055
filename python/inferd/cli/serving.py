"""``inferd serve`` from its first line of output to its exit: progress, table, signals.

Reads the desired state, drives the control plane, prints. Knows nothing of flags and files.

The main thread only waits and takes signals. What may block (loading, draining) runs in the background: Python runs
its signal handlers between instructions of the main thread, never inside a call into the data plane.
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
from inferd.control.control_plane import ControlPlane, Progress
from inferd.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine

__all__ = ["serve_until_signal"]

Outcomes = SimpleQueue["int | InferdError | None"]
"""Signals by their numbers, and ends of what runs in the background: an error, or None."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal that closes sends it more than once, and systemd sends it with SIGTERM: it never hurries a drain.
_HANGUP = signal.SIGHUP


def serve_until_signal(desired: DesiredState, machine: Machine) -> int:
    """Serve ``desired`` until the first SIGTERM, SIGINT or SIGHUP, then drain. Another of the first two exits at once.

    Returns:
        The exit status: 0 when every admitted request was answered, else 1.

    Raises:
        InferdError: it could not start.
    """
    started_s = time.monotonic()
    outcomes: Outcomes = SimpleQueue()
    for number in _SIGNALS:
        # A queue, since its put is safe inside a handler.
        signal.signal(number, lambda number, _: outcomes.put(number))
    # nohup has it ignored, and means it.
    if signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        signal.signal(_HANGUP, lambda number, _: outcomes.put(number))
    control = ControlPlane(desired, machine, _say)
    _in_background(control.load, outcomes)
    outcome = outcomes.get()
    if isinstance(outcome, InferdError):
        control.close()
        raise outcome
    if outcome is None:
        _announce(control, time.monotonic() - started_s)
        outcome = outcomes.get()
    return _drain(control, outcomes, outcome)


def _drain(control: ControlPlane, outcomes: Outcomes, number: int | InferdError | None) -> int:
    limit_s = control.desired.server.drain_timeout_s
    click.echo(f"{_name(number)}: draining, at most {limit_s:g} s; again to exit now", err=True)
    stopped: SimpleQueue[int | InferdError] = SimpleQueue()

    def stop() -> None:
        try:
            stopped.put(control.stop())
        except BaseException as error:
            stopped.put(error if isinstance(error, InferdError) else InferdError(f"{type(error).__name__}: {error}"))
            raise

    _in_background(stop, outcomes)
    # A load that the stop cuts off ends in the same queue, well or not.
    while stopped.empty():
        outcome = outcomes.get()
        if outcome is None or isinstance(outcome, InferdError) or outcome == _HANGUP:
            continue
        click.echo(f"{_name(outcome)} again: exiting now", err=True)
        flush()
        # Workers end with this process. Nothing else here may wait for anything.
        os._exit(128 + outcome)
    left = stopped.get()
    if isinstance(left, InferdError):
        raise left
    click.echo("stopped" if left == 0 else f"stopped; {left} requests were not answered in {limit_s:g} s", err=True)
    return 0 if left == 0 else 1


def _in_background(act: Callable[[], object], outcomes: Outcomes) -> None:
    """Run ``act`` in a background thread; its outcome goes into the queue."""

    def body() -> None:
        try:
            act()
        except InferdError as error:
            outcomes.put(error)
        except BaseException as error:
            outcomes.put(InferdError(f"{type(error).__name__}: {error}"))
            raise
        else:
            outcomes.put(None)

    threading.Thread(target=body, daemon=True).start()


def _say(progress: Progress) -> None:
    click.echo(show.progress_line(progress), err=True)


def _announce(control: ControlPlane, took_s: float) -> None:
    desired, addresses = control.desired, control.data_plane.addresses
    loaded, first = control.loaded, desired.models[0]
    signature = loaded[first.name, first.version].signature
    click.echo(show.serving_table(desired, loaded))
    if desired.pipelines:
        click.echo("")
        click.echo(show.pipeline_table(desired, control.pipelines))
    notes = [*desired.notes, *show.left_out(loaded)]
    if notes:
        click.echo("")
        click.echo(show.note_lines(notes))
    click.echo("")
    click.echo(show.address_lines(addresses, docs=desired.gateway["docs_folder"] is not None))
    click.echo(f"try            {show.curl_line(addresses['data'], first.name, signature)}")
    click.echo(f"ready in {took_s:.2f} s")


def _name(number: object) -> str:
    return signal.Signals(number).name if isinstance(number, int) else "stop"
