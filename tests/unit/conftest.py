"""What several files of unit tests start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from outside.texts import Encoder


@pytest.fixture
def encoder() -> Encoder:
    """A small transformer of texts."""
    import numpy as np

    from outside import texts

    return texts.Encoder(texts.wordpiece(), np.random.default_rng(1))


@pytest.fixture
def unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself may read skops files."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
