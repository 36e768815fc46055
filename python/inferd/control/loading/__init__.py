"""What it takes to load one model, and to load it again: conversions, snapshots of files, latency curves.

Reads resolved models, drives the data plane. Knows nothing of which models are wanted.
"""
