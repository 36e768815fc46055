"""Copies the models from the package that ships them, and draws pages with known text.

    python examples/ocr/make.py [FOLDER]

FOLDER (default: this one) gets `models/` and `pages/`. Needs the packages of ``inferd[examples]``.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
# Multiples of 32, as the detector requires.
WIDTH, HEIGHT = 640, 320
PAGES = {
    "invoice": ["Invoice 2041", "Total 318.50 EUR", "Due 30 November"],
    "ward": ["Patient 7 Room 12", "Blood pressure 120 over 80"],
    "plate": ["Pump 4 serial KX 9931"],
    "blank": [],
}


def models(folder: Path) -> None:
    """Copy the detector, the recogniser and its characters to ``folder``."""
    found = find_spec("rapidocr_onnxruntime")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("error: the package with the models is not installed\nhelp: pip install 'inferd[examples]'")
    shipped = Path(found.submodule_search_locations[0]) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("detect", "det"), ("recognise", "rec")):
        [file] = shipped.glob(f"*_{part}_*.onnx")
        shutil.copyfile(file, folder / f"{name}.onnx")
    facts = {fact.key: fact.value for fact in onnx.load(folder / "recognise.onnx").metadata_props}
    (folder / "characters.txt").write_text("\n".join(facts["character"].splitlines()), encoding="utf-8")


def page(lines: list[str]) -> Image.Image:
    """Draw lines of text, black on white."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((40, 40 + 90 * number), line, fill="black", font=ImageFont.load_default(size=36))
    return image


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    models(folder / "models")
    (folder / "pages").mkdir(exist_ok=True)
    for name, lines in PAGES.items():
        page(lines).save(folder / "pages" / f"{name}.png")
    print(f"made {folder}/models and {len(PAGES)} pages")


if __name__ == "__main__":
    main()
