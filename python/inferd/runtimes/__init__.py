"""Runtimes: one file per framework, with its control-plane side and its worker side.

``claims`` and ``compose`` run in the control plane: they detect the framework's model files and describe how to start a
worker. ``load`` creates the runtime inside that worker. No file imports its framework before it loads a model.
"""
