"""Generate diverse texts for the probe.

Reads an example BYTES element, hands on others of its kind: plain text, JSON of the same structure, images. Knows
nothing of models.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ORDINARY", "containing", "varied"]

ORDINARY = b"a good day"
"""Used if there is no example."""
_WORDS = ("the", "cat", "sat", "on", "a", "red", "mat", "and", "said", "no", "42", "times", "3.5", "good", "bad", "yes")
_TEXTS = (
    "",
    "\u00e9t\u00e9 \u6771\u4eac \U0001f642 \u017dlu\u0165",
    "forty two, 3.14 and -7 of 1000",
    "a",
    "YES!!! Is it?",
    "42",
    "the same the same the same",
)
_KEYS_MAX = 16
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


def varied(example: bytes | None, number: int, random: np.random.Generator, words: Sequence[str] = ()) -> bytes:
    """Return text ``number`` of the kind of ``example``; deterministic for a given generator state.

    Args:
        example: a text that the model accepts; ``None``: unknown.
        number: from 0.
        random: draws words, numbers and pixels.
        words: constants of the model's code.
    """
    if example is not None and example.startswith(_IMAGES):
        return _image(example, number, random)
    if example is not None and example[:1] in (b"{", b"["):
        try:
            return json.dumps(_varied_json(json.loads(example), number, random, words), ensure_ascii=False).encode()
        except ValueError:
            pass
    return _text(number, random, words, (example or ORDINARY).decode(errors="replace")).encode()


def containing(example: bytes | None, words: Sequence[str], length: int) -> bytes | None:
    """Return a text of the kind of ``example`` that contains all of ``words`` and exceeds ``length``; images unchanged.

    Another word precedes them: a word at the start may be a command to the model. In JSON they become keys.
    """
    if example is not None and example.startswith(_IMAGES):
        return example
    if example is not None and example[:1] in (b"{", b"["):
        try:
            value = json.loads(example)
        except ValueError:
            return example
        keys = [word for word in words if word.isidentifier()][:_KEYS_MAX]
        return json.dumps({**dict.fromkeys(keys, True), **value}).encode() if isinstance(value, dict) else example
    text = " ".join(("so", *words))
    return text.ljust(length + 1, ".").encode()


def _text(number: int, random: np.random.Generator, words: Sequence[str], example: str) -> str:
    choice = number % (len(_TEXTS) + 3)
    if choice < len(_TEXTS):
        return _TEXTS[choice]
    if choice == len(_TEXTS):
        # Longer than others, to reveal effects of padding.
        return " ".join(random.choice([*_WORDS, *words], 60))
    if choice == len(_TEXTS) + 1:
        return f"{example} {example}"
    return " ".join(random.choice([*_WORDS, *words], 5))


def _varied_json(value: Any, number: int, random: np.random.Generator, words: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _varied_json(one, number, random, words) for key, one in value.items()}
    if isinstance(value, list):
        return [_varied_json(one, number + index, random, words) for index, one in enumerate(value)]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(random.integers(0, 10 ** (1 + number % 4)))
    if isinstance(value, float):
        return float(random.normal() * 10.0 ** (number % 4))
    return _text(number, random, words, value)


def _image(example: bytes, number: int, random: np.random.Generator) -> bytes:
    try:
        from PIL import Image

        image = Image.open(io.BytesIO(example))
        format_, mode = image.format, image.mode
        width, height = (size * (2 if number % 3 == 2 else 1) for size in image.size)
        pixels = np.asarray(image.convert("RGB").resize((width, height)))
        pixels = (random.integers(0, 256, pixels.shape), pixels * 0, pixels * 0 + 255)[number % 3].astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format=format_)
        return buffer.getvalue()
    except Exception:  # noqa: BLE001 (the library can't process it: use the example)
        return example
