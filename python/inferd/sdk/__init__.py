"""What a user's own model is written with: the class, its annotations, and how values become tensors.

Runs inside workers and in :mod:`inferd.testing`. Knows nothing of channels and servers.
"""
