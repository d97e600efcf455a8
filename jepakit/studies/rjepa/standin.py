"""Generates scanpaths over digits that replace human scanpaths if the OSIE data set is missing."""

import gzip
import json
from pathlib import Path
from typing import Final

from PIL import Image

from ...core import files
from ...data.images import synthetic
from ...data.scanpaths import settings
from ...data.scanpaths.dataset import Scanpaths
from .rjepa_gaze import OSIE_FILE, STEPS

PICTURES, VIEWERS, SIDE = 400, 4, 64
VIEWER_NAME: Final = "made up"


def find_scanpaths(data: Path, out: Path) -> Path:
    """The folder of all data sets if it contains OSIE, else the study's own folder with a generated stand-in."""
    if (data / OSIE_FILE).exists():
        return data
    if not (out / "stand-in" / OSIE_FILE).exists():
        make_scanpaths(out / "stand-in" / OSIE_FILE)
    return out / "stand-in"


def make_scanpaths(file: Path) -> None:
    """Write pictures of digits on photographs beside `file`, and several salient scanpaths of each into `file`."""
    pictures = synthetic.Config("digits_on_photos", count=PICTURES, size=(SIDE, SIDE)).open()
    folder = file.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(pictures)):
        pixels = (pictures.raw(i) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
    looked = settings.Config(str(folder), count=STEPS, viewers=VIEWERS, steps=STEPS).open()
    rows = []
    for i in range(len(looked)):
        path = looked.scanpath_of(i)
        viewer = f"{VIEWER_NAME} {path.subject}"
        x, y = path.xy.T.tolist()
        rows.append({"image": Path(path.image).name, "subject": viewer, "x": x, "y": y})
    # The file is written last, so that it exists only when all pictures do.
    with files.replace_file(file) as part, part.open("wb") as plain, gzip.open(plain, "wt") as packed:
        json.dump(rows, packed)


def is_made_up(data: Scanpaths) -> bool:
    """Whether the scanpaths are generated."""
    return all(name.startswith(VIEWER_NAME) for name in data.subjects)
