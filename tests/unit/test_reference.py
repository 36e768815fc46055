"""The reference that people read is the one that the declarations give."""

from __future__ import annotations

from pathlib import Path

from inferd.spec.describe import reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_settings_reference_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert text.endswith(reference()), (
        "docs/reference/settings.md differs from the declarations; "
        "replace what follows its introduction by the output of `inferd settings`"
    )
