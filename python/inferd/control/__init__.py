"""The control plane: what should run on this machine, and seeing that it does.

Reads specifications and model folders, hands resolved settings to the data plane. Never in a request's way.
"""
