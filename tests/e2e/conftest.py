"""Folders as a user has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outside import models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model file, a folder of models and an ``inferd.yaml``."""
    models.identity(tmp_path / "fraud.onnx", "FP32", ["n", 4])
    for version in ("2", "10"):
        models.identity(tmp_path / "models" / "echo" / version / "model.onnx", "FP32", ["n", 4])
    models.moody(tmp_path / "models" / "moody" / "1" / "model.py")
    (tmp_path / "inferd.yaml").write_text(
        """
server:
  body_max_bytes: 1MiB
defaults:
  threads: 1
models:
  - path: fraud.onnx
    name: fraud-detector
    slo: 20ms
    replicas: 2
  - path: models
"""
    )
    return tmp_path
