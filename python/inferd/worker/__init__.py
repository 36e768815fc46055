"""The worker process of a Python model. It talks to the control plane only across the process boundary."""
