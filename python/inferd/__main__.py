"""``python -m inferd``: the same as ``inferd``."""

from inferd.cli import main

main()
