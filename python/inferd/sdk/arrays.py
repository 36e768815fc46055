"""Arrays on their way into a user's own code.

Reads arrays over memory that the next batch uses again, hands on what a model may hold. Knows nothing of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["handed"]


def handed(array: np.ndarray, *, zero_copy: bool) -> np.ndarray:
    """``array`` as a model gets it.

    Args:
        array: over memory that is used again when the model has returned.
        zero_copy: whether the model does without a copy: it may read the array until it returns, and not write there.

    Returns:
        An array of the model's own, or a view that can't be written to.
    """
    if not zero_copy:
        return array.copy()
    view = array.view()
    view.flags.writeable = False
    return view
