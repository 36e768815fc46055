"""The command line: parsing and printing only."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point ``inferd``."""
    from inferd.cli.commands import run

    sys.exit(run(sys.argv[1:]))
