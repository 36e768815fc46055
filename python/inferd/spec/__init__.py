"""The settings, declared once, and their parsing from files, flags and arguments.

Reads YAML, text and keyword arguments, hands on :class:`ServerSpec` and :class:`ModelSpec`. Knows nothing of models on
disk, of this machine, or of the data plane.
"""
