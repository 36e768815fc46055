"""The specification: every setting once, and how files, flags and arguments become settings.

Reads YAML, text and keyword arguments, hands on :class:`ServerSpec` and :class:`ModelSpec`.
Knows nothing of models on disk, of this machine, or of the data plane.
"""
