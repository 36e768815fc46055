"""Hand arrays over to user code.

Reads arrays over memory that the next batch reuses, hands on arrays that a model may keep. Knows nothing of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["copy_or_view"]


def copy_or_view(array: np.ndarray, *, zero_copy: bool) -> np.ndarray:
    """Return ``array`` as a copy, or as a read-only view.

    Args:
        array: over memory that is reused once the model has returned.
        zero_copy: whether the model accepts a read-only view that is valid until it returns.
    """
    if not zero_copy:
        return array.copy()
    view = array.view()
    view.flags.writeable = False
    return view
