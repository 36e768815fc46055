"""``python -m inferd.cli``: the same as ``inferd``."""

from inferd.cli import main

main()
