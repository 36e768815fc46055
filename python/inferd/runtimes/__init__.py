"""One file per framework. What a kind of model file needs, on both sides of the process border.

``compose`` runs in the control plane and says how a worker is started; a runtime runs inside that worker.
"""
