"""``config.pbtxt`` of a Triton model repository, as settings and pipelines of inferd.

``text`` reads the file by ``schema``; ``meaning`` says what has no effect and what can't be; ``mapping`` and
``ensemble`` turn the rest into what ``model.yaml`` and ``pipelines:`` would say.
"""
