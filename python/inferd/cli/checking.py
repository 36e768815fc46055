"""``inferd check``: what would be served, and what keeps it from being served.

Reads the desired state, has it checked, prints. Knows nothing of flags and files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inferd.cli import show
from inferd.control.checking import check, check_deeply

if TYPE_CHECKING:
    from inferd.control.control_plane import Progress
    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine

__all__ = ["report"]


def report(desired: DesiredState, machine: Machine, *, deep: bool) -> None:
    """Check ``desired`` and print what it is; ``deep``: with the code of its models.

    Raises:
        InferdError: it can't be served.
    """
    checked = (check_deeply if deep else check)(desired, machine, _say)
    if deep:
        click.echo(show.serving_table(desired, checked.loaded))
        if desired.pipelines:
            click.echo("")
            click.echo(show.pipeline_table(desired, checked.pipelines))
    else:
        click.echo(show.desired_table(desired, checked.unread))
    notes = [*desired.notes, *show.left_out(checked.loaded)]
    if notes:
        click.echo("")
        click.echo(show.note_lines(notes))


def _say(progress: Progress) -> None:
    click.echo(show.progress_line(progress), err=True)
