"""Completed pictures as PNG files, and the first of them in one grid beside input and truth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data import Dataset
from ..evals.metrics.generation import Tally, tally
from ..reporting.pictures import rgb
from .complete_folder import GRID, Chunk, free

ROWS: Final = 8
TILE: Final = 112
GAP: Final = 8
HEAD: Final = 22
GROUP: Final = 12
INK: Final = (60, 60, 60)
GREY: Final = 0.5
TITLES: Final = ("input", "completion", "truth")

Pixels = UInt8[np.ndarray, "n h w 3"]


def write(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, "h w"], std: Tensor, count: int
) -> Tally:
    """FOLDER/NAME.png for every item, FOLDER/grid.png, and the sums of how far all are from the truth.

    Pixels are cut off at 0 and 1, and measured so; pictures in other units are not.
    """
    total, rows = Tally(), list[Pixels]()
    for chunk in chunks:
        three, unit = compared(chunk, hidden)
        total = total.plus(tally(three[:, 1], chunk.true, hidden))
        shown = pixels(three, unit)
        for item, picture in zip(chunk.id, shown[:, 1], strict=True):
            save(picture, free(folder, dataset.name(item), ".png"), grey=chunk.true.shape[1] == 1)
        rows += list(shown[: ROWS - len(rows)])
    if rows:
        grid(rows).save(folder / GRID)
    return total


def compared(chunk: Chunk, hidden: Bool[Tensor, "..."]) -> tuple[Float[Tensor, "b 3 c ..."], bool]:
    """Input, completion and truth as TITLES, and whether they are pixels, which are cut off at 0 and 1."""
    unit = bool((chunk.true >= 0).all() and (chunk.true <= 1).all())
    made = chunk.made.clamp(0, 1) if unit else chunk.made
    seen = torch.where(hidden, GREY if unit else float(chunk.true.mean()), chunk.true)
    return torch.stack([seen, made, chunk.true], 1), unit


def pixels(x: Tensor, unit: bool) -> UInt8[np.ndarray, "b k h w 3"]:
    """Pictures (B, K, C, H, W) as 8-bit colours; what is not in [0, 1] is stretched to it."""
    if not unit:
        flat = rgb(x.flatten(0, 1).numpy())
        return np.asarray(flat.reshape(*x.shape[:2], *flat.shape[1:]))
    few = x[:, :, :3] if x.shape[2] >= 3 else x.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    return (few * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()


def save(picture: UInt8[np.ndarray, "h w 3"], path: Path, grey: bool) -> None:
    """One PNG file, of one channel where the data have one."""
    image = Image.fromarray(picture[..., 0] if grey else picture)
    image.save(path, "PNG")


def grid(
    rows: Sequence[Pixels], titles: Sequence[str] = TITLES, labels: Sequence[str] = (), tile: int = TILE
) -> Image.Image:
    """Rows of pictures, a column under each title; small pictures are enlarged without smoothing, at most to `tile`.

    `labels` stand before the rows, again and again; then as many rows belong together.
    """
    height, width = rows[0].shape[1:3]
    scale = max(1, tile // max(height, width))
    h, w = height * scale, width * scale
    across, wide = len(titles), max(w, 7 * max(map(len, titles)))
    margin, group = GAP + 8 * max(map(len, labels), default=0), len(labels) or len(rows)
    high = HEAD + GAP + len(rows) * (h + GAP) + (len(rows) - 1) // group * GROUP
    sheet = Image.new("RGB", (margin + across * (wide + GAP), high), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, title in enumerate(titles):
        pen.text((margin + k * (wide + GAP) + wide // 2, HEAD // 2 + 2), title, INK, font, anchor="mm")
    for i, row in enumerate(rows):
        top = HEAD + GAP + i * (h + GAP) + i // group * GROUP
        if labels:
            pen.text((GAP, top + h // 2), labels[i % group], INK, font, anchor="lm")
        for k, picture in enumerate(row):
            left = margin + k * (wide + GAP) + (wide - w) // 2
            sheet.paste(Image.fromarray(picture).resize((w, h), Image.Resampling.NEAREST), (left, top))
    return sheet
