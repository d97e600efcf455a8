"""Writes completed pictures as PNG files and clips as arrays, and a grid of the first beside input and truth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data import Dataset
from ..data.draws import spread_evenly
from ..evals.metrics.generation import Tally, tally_completions
from ..reporting.pictures import to_rgb
from .complete_folder import GRID_FILE, Chunk, free_path

COLUMN_TITLES: Final = ("input", "completion", "truth")
GRID_PICTURES: Final = 8
GRID_CLIPS: Final = 4
GRID_FRAMES: Final = 16
CLIP_TILE: Final = 64
PICTURE_TILE: Final = 112
"""Pixels to which a picture of the grid is enlarged, at most."""
TILE_GAP: Final = 8
HEADER_HEIGHT: Final = 22
GROUP_GAP: Final = 12
TEXT_COLOR: Final = (60, 60, 60)
HIDDEN_GREY: Final = 0.5

Pixels = UInt8[np.ndarray, "n h w 3"]


def write_pictures(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, "h w"], std: Tensor, count: int
) -> Tally:
    """Write FOLDER/NAME.png for every item and FOLDER/grid.png; returns how far all are from the truth.

    Pixels are clipped to [0, 1] and measured so; pictures in other units are not.
    """
    total, rows = Tally(), list[Pixels]()
    for chunk in chunks:
        triples, unit = stack_triples(chunk, hidden)
        total = total.plus(tally_completions(triples[:, 1], chunk.true, hidden))
        pixels = to_pixels(triples, unit)
        for item, picture in zip(chunk.id, pixels[:, 1], strict=True):
            save_png(picture, free_path(folder, dataset.name(item), ".png"), grey=chunk.true.shape[1] == 1)
        rows += list(pixels[: GRID_PICTURES - len(rows)])
    if rows:
        picture_grid(rows).save(folder / GRID_FILE)
    return total


def write_clips(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, "t h w"], std: Tensor, count: int
) -> Tally:
    """Write FOLDER/NAME.npy for every item and FOLDER/grid.png; returns how far all are from the truth.

    An array is (C, T, H, W) float32 in the units of the data; pixels in [0, 1] are clipped, and measured so.
    """
    frames = spread_evenly(len(hidden), GRID_FRAMES)
    total, rows = Tally(), list[Pixels]()
    for chunk in chunks:
        triples, unit = stack_triples(chunk, hidden)
        total = total.plus(tally_completions(triples[:, 1], chunk.true, hidden))
        for item, made in zip(chunk.id, triples[:, 1].numpy(), strict=True):
            np.save(free_path(folder, dataset.name(item), ".npy"), made)
        if left := GRID_CLIPS - len(rows) // len(COLUMN_TITLES):
            rows += clip_rows(triples[:left, :, :, frames], unit)
    if rows:
        picture_grid(rows, [f"frame {t}" for t in frames], COLUMN_TITLES, CLIP_TILE).save(folder / GRID_FILE)
    return total


def stack_triples(chunk: Chunk, hidden: Bool[Tensor, "..."]) -> tuple[Float[Tensor, "b 3 c ..."], bool]:
    """Input, completion and truth, as in TITLES, and whether they are pixels, which are clipped to [0, 1]."""
    unit = bool((chunk.true >= 0).all() and (chunk.true <= 1).all())
    made = chunk.made.clamp(0, 1) if unit else chunk.made
    given = torch.where(hidden, HIDDEN_GREY if unit else float(chunk.true.mean()), chunk.true)
    return torch.stack([given, made, chunk.true], 1), unit


def to_pixels(x: Float[Tensor, "b k c h w"], unit: bool) -> UInt8[np.ndarray, "b k h w 3"]:
    """Pictures as 8-bit colours; values that are not in [0, 1] (`unit`) are stretched to it."""
    if not unit:
        flat = to_rgb(x.flatten(0, 1).numpy())
        return np.asarray(flat.reshape(*x.shape[:2], *flat.shape[1:]))
    colors = x[:, :, :3] if x.shape[2] >= 3 else x.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    return (colors * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()


def clip_rows(triples: Float[Tensor, "b 3 c t h w"], unit: bool) -> list[Pixels]:
    """The frames of each clip as 8-bit colours, in three rows: input, completion and truth."""
    flat = to_pixels(triples.movedim(3, 2).flatten(1, 2), unit)
    return list(flat.reshape(-1, triples.shape[3], *flat.shape[2:]))


def save_png(picture: UInt8[np.ndarray, "h w 3"], path: Path, grey: bool) -> None:
    """Write one PNG file, with a single channel if `grey`."""
    image = Image.fromarray(picture[..., 0] if grey else picture)
    image.save(path, "PNG")


def picture_grid(
    rows: Sequence[Pixels], titles: Sequence[str] = COLUMN_TITLES, labels: Sequence[str] = (), tile: int = PICTURE_TILE
) -> Image.Image:
    """Rows of pictures with a title above each column; small pictures are enlarged without smoothing, up to `tile`.

    `labels` stand before the rows and repeat; each run through them is a group.
    """
    height, width = rows[0].shape[1:3]
    scale = max(1, tile // max(height, width))
    h, w = height * scale, width * scale
    across, wide = len(titles), max(w, 7 * max(map(len, titles)))
    margin, group = TILE_GAP + 8 * max(map(len, labels), default=0), len(labels) or len(rows)
    high = HEADER_HEIGHT + TILE_GAP + len(rows) * (h + TILE_GAP) + (len(rows) - 1) // group * GROUP_GAP
    sheet = Image.new("RGB", (margin + across * (wide + TILE_GAP), high), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, title in enumerate(titles):
        at = (margin + k * (wide + TILE_GAP) + wide // 2, HEADER_HEIGHT // 2 + 2)
        pen.text(at, title, TEXT_COLOR, font, anchor="mm")
    for i, row in enumerate(rows):
        top = HEADER_HEIGHT + TILE_GAP + i * (h + TILE_GAP) + i // group * GROUP_GAP
        if labels:
            pen.text((TILE_GAP, top + h // 2), labels[i % group], TEXT_COLOR, font, anchor="lm")
        for k, picture in enumerate(row):
            left = margin + k * (wide + TILE_GAP) + (wide - w) // 2
            sheet.paste(Image.fromarray(picture).resize((w, h), Image.Resampling.NEAREST), (left, top))
    return sheet
