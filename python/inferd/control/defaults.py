"""What a model is served with where its files don't say.

Reads settings that were given and the machine, hands on whole settings. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inferd.control.resources import share_threads
from inferd.spec.settings import ModelSpec

if TYPE_CHECKING:
    from inferd.control.resources import Machine
    from inferd.spec.files import Given

__all__ = ["complete"]

# Most rows of a batch where none is given. With an objective the scheduler takes as many as it and what batches take
# allow: simulated in bursts, 128 met as many as 256, and 64 nearly so. Without one, nothing bounds what callers wait.
_ROWS_WITHIN_OBJECTIVE = 128
_ROWS_AT_BEST_EFFORT = 32


def complete(given: Given, machine: Machine) -> tuple[ModelSpec, int]:
    """The settings of a model that was given ``given``, and the threads of each of its replicas."""
    spec = ModelSpec(**given)
    if spec.batch_rows_max is None:
        rows = _ROWS_WITHIN_OBJECTIVE if spec.slo else _ROWS_AT_BEST_EFFORT
        spec = msgspec.structs.replace(spec, batch_rows_max=rows)
    return spec, spec.threads or share_threads(machine.cores, spec.replicas)
