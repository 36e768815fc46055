"""Triton's ``config.pbtxt`` as settings and pipelines of inferd.

``text`` parses the file by ``schema``; ``meaning`` reports fields without effect and unsupported ones; ``mapping`` and
``ensemble`` translate the rest into the equivalent of ``model.yaml`` and ``pipelines:``.
"""
