"""The worker process of a Python model. It meets the control plane by process and wire only."""
