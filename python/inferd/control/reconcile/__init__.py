"""Brings what runs to what is wanted: compare, plan, act, and again whenever either changes.

Knows nothing of files, settings and sockets.
"""
