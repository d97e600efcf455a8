"""Completed pictures as PNG files, and the first of them in one grid beside input and truth."""

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data import Dataset
from ..evals.generation import Tally, tally
from ..reporting.pictures import rgb
from .chunk import Chunk

ROWS: Final = 8
TILE: Final = 112
GAP: Final = 8
HEAD: Final = 22
GREY: Final = 0.5
TITLES: Final = ("input", "completion", "truth")

Pixels = UInt8[np.ndarray, "n h w 3"]


def write(chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, "h w"], std: Tensor) -> Tally:
    """FOLDER/NAME.png for every item, FOLDER/grid.png, and the sums of how far all are from the truth.

    Pixels are cut off at 0 and 1, and measured so; pictures in other units are not.
    """
    total, rows = Tally(), list[Pixels]()
    for chunk in chunks:
        unit = bool((chunk.true >= 0).all() and (chunk.true <= 1).all())
        made = chunk.made.clamp(0, 1) if unit else chunk.made
        total = total.plus(tally(made, chunk.true, hidden))
        seen = torch.where(hidden, GREY if unit else float(chunk.true.mean()), chunk.true)
        shown = pixels(torch.stack([seen, made, chunk.true], 1), unit)
        for item, picture in zip(chunk.id, shown[:, 1], strict=True):
            save(picture, free(folder, dataset.name(item)), grey=chunk.true.shape[1] == 1)
        rows += list(shown[: ROWS - len(rows)])
    if rows:
        grid(rows).save(folder / "grid.png")
    return total


def pixels(x: Tensor, unit: bool) -> UInt8[np.ndarray, "b k h w 3"]:
    """Pictures (B, K, C, H, W) as 8-bit colours; what is not in [0, 1] is stretched to it."""
    if not unit:
        flat = rgb(x.flatten(0, 1).numpy())
        return np.asarray(flat.reshape(*x.shape[:2], *flat.shape[1:]))
    few = x[:, :, :3] if x.shape[2] >= 3 else x.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    return (few * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()


def save(picture: UInt8[np.ndarray, "h w 3"], path: Path, grey: bool) -> None:
    """One PNG file, of one channel where the data have one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture[..., 0] if grey else picture)
    image.save(path, "PNG")


def free(folder: Path, name: str) -> Path:
    """A path in `folder` that is named like the item, folders of its own included, and that no other item has."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    *above, last = parts or ["item"]
    suffix = PurePosixPath(last).suffix
    stem = last.removesuffix(suffix) if suffix.lower() in Image.registered_extensions() else last
    names = chain((stem, last), (f"{last}-{k}" for k in count(2)))
    paths = (folder.joinpath(*above, f"{found}.png") for found in names)
    return next(path for path in paths if not path.exists() and path != folder / "grid.png")


def grid(rows: Sequence[Pixels], titles: Sequence[str] = TITLES) -> Image.Image:
    """Rows of pictures, a column under each title; small pictures are enlarged without smoothing."""
    height, width = rows[0].shape[1:3]
    scale = max(1, TILE // max(height, width))
    h, w = height * scale, width * scale
    across, wide = len(titles), max(w, 7 * max(map(len, titles)))
    sheet = Image.new("RGB", (GAP + across * (wide + GAP), HEAD + GAP + len(rows) * (h + GAP)), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, title in enumerate(titles):
        pen.text((GAP + k * (wide + GAP) + wide // 2, HEAD // 2 + 2), title, (60, 60, 60), font, anchor="mm")
    for i, row in enumerate(rows):
        for k, picture in enumerate(row):
            left = GAP + k * (wide + GAP) + (wide - w) // 2
            tile = Image.fromarray(picture).resize((w, h), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, HEAD + GAP + i * (h + GAP)))
    return sheet
