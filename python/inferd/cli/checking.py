"""``inferd check``: what would be served, and what keeps it from being served.

Reads a plan, has it checked, prints. Knows nothing of flags and files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inferd.cli import show
from inferd.control.checking import check, check_deeply

if TYPE_CHECKING:
    from inferd.control.resolve import Plan
    from inferd.control.resources import Machine
    from inferd.control.supervisor import Event

__all__ = ["report"]


def report(plan: Plan, machine: Machine, *, deep: bool) -> None:
    """Check ``plan`` and print what it is; ``deep``: with the code of its models.

    Raises:
        InferdError: it can't be served.
    """
    checked = (check_deeply if deep else check)(plan, machine, _say)
    if deep:
        click.echo(show.serving_table(plan, checked.loaded))
        if plan.pipelines:
            click.echo("")
            click.echo(show.pipeline_table(plan, checked.pipelines))
    else:
        click.echo(show.plan_table(plan, checked.unread))
    notes = [*plan.notes, *show.left_out(checked.loaded)]
    if notes:
        click.echo("")
        click.echo(show.note_lines(notes))


def _say(event: Event) -> None:
    click.echo(show.event_line(event), err=True)
