"""The API for user-written models: the base class, its annotations, and the conversion between values and tensors.

Runs in workers and in :mod:`inferd.testing`. Knows nothing of channels and servers.
"""
