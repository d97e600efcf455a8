"""Draws the path of a gaze over a picture."""

import math
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .records import Array

FIRST, LAST = (255, 214, 64), (214, 40, 90)
"""The colours of the first and the last fixation."""


def draw_scanpath(picture: Array, places: Array, side: int = 480) -> Array:
    """Pixels (H, W, 3) uint8 with a numbered dot at each of `places` (T, 2), in picture pixels, and lines between them.

    The result's longer side is always `side`; numbers count from 1, colours go from yellow to red.
    """
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.BICUBIC
    image = Image.fromarray(picture).resize(size, kind)
    draw, points = ImageDraw.Draw(image), [(float(x) * scale, float(y) * scale) for x, y in places]
    radius = max(6, side // 48)
    for a, b in pairwise(points):
        draw.line([a, b], fill=(0, 0, 0), width=4)
        draw.line([a, b], fill=(255, 255, 255), width=2)
    font = ImageFont.load_default(radius * 1.25)
    for t, at in spread_dots(points, radius):
        box = [at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius]
        draw.ellipse(box, fill=step_color(t, len(points)), outline=(0, 0, 0), width=1)
        draw.text(at, str(t + 1), fill=(0, 0, 0), font=font, anchor="mm")
    return np.asarray(image)


def step_color(t: int, count: int) -> tuple[int, ...]:
    """The colour of fixation t of `count`."""
    share = t / max(count - 1, 1)
    return tuple(round(a + share * (b - a)) for a, b in zip(FIRST, LAST, strict=True))


def spread_dots(points: list[tuple[float, float]], radius: int) -> list[tuple[int, tuple[float, float]]]:
    """Yields (t, position of its dot); a dot that would hide an earlier one moves to the nearest of growing circles."""
    rings = [(ring * radius, math.tau * k / (8 * ring or 1)) for ring in range(4) for k in range(8 * ring or 1)]
    placed: list[tuple[float, float]] = []
    for x, y in points:
        tries = ((x + far * math.cos(turn), y + far * math.sin(turn)) for far, turn in rings)
        free = (p for p in tries if all(math.dist(p, q) >= 1.6 * radius for q in placed))
        placed.append(next(free, (x, y)))
    return list(enumerate(placed))
