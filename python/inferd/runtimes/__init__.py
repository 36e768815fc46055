"""One file per framework. What a kind of model file needs, on both sides of the process border.

Of each, ``claims`` and ``compose`` run in the control plane and say whether a file is theirs and how a worker is
started; ``load`` makes the runtime inside that worker. No file imports its framework until it loads a model.
"""
