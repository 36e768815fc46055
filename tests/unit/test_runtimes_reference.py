"""What people read of the runtimes is what the runtimes declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.errors import ModelFailed
from inferd.runtimes.describe import reference
from inferd.runtimes.registry import NAMES, runtime
from inferd.spec.settings import ModelSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "runtimes.md"


def test_the_reference_of_the_runtimes_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert text.endswith(reference()), (
        "docs/reference/runtimes.md differs from the declarations; "
        "replace what follows its introduction by the output of `inferd runtimes`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_a_runtime_does_not_read_end_the_load(name: str) -> None:
    takes = runtime(name).TAKES
    if isinstance(takes.parameters, str):
        takes.check(ModelSpec(parameters={"anything": 1}))
        return
    takes.check(ModelSpec(parameters=dict.fromkeys(takes.parameters, "value")))
    with pytest.raises(ModelFailed, match="does not support parameters: anything"):
        takes.check(ModelSpec(parameters={"anything": 1}))
    with pytest.raises(ModelFailed, match="does not support class: Mine"):
        takes.check(ModelSpec(class_="Mine"))
