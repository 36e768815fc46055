"""The command line: parsing and printing only."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """The entry point ``inferd``."""
    _open_standard_streams()
    if os.getpid() == 1:
        from inferd.cli.init import leave_init_behind

        leave_init_behind()
    if sys.argv[1:2] == ["serve"]:
        # The other commands block on their output, as commands do.
        from inferd.cli.streams import never_wait

        never_wait()
    from inferd.cli.commands import run

    sys.exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Open what is closed of 0, 1 and 2: the next socket would get the number, and with it what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is this one: those below it were seen to.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
