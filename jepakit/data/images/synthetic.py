"""Generated labelled images that need no download; the same seed gives the same images.

Digits are scikit-learn's 8 x 8 scans (`load_digits`, 1,797 of them); photographs are its two sample images. The
training and the test part never share a scan: every fifth scan is for testing.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from ...core.draws import uniform_draws
from ...types import Rng
from ..config import DataConfig, shared_last
from ..rows import generated_part
from .arrays import Arrays
from .augment import Augment
from .box import check_size
from .scenes import SHAPES, Scenes, draw_scenes, outline_distance

Task = Literal["digits_on_photos", "digits", "shapes", "scenes"]
TASKS: tuple[Task, ...] = ("digits_on_photos", "digits", "shapes", "scenes")
DIGIT_NAMES = tuple("0123456789")


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """`count` generated images of side `size`.

    `path` names the task: "digits_on_photos" (a coloured digit, anywhere, over a crop of a photograph: raw pixels
    say little), "digits" (a white digit anywhere on black), "shapes" (one of five, any size, place and colour) or
    "scenes" (three shapes that move through films of 8 images, with the class of every pixel; the label is the front
    shape's). Part "train" and part "test" are disjoint; "all" is both. A part keeps its first `limit` images.
    The rest is as in `DataConfig`.
    """

    path: str = "digits_on_photos"
    count: int = 8000
    seed: int = 0
    size: tuple[int, int] | None = (32, 32)
    held_out: float = field(default=0.2, kw_only=True)
    augment: Augment = field(default_factory=Augment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (2,)
    holds: ClassVar[str] = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        if self.count < 1:
            raise ValueError(f"count is {self.count}; give at least one picture")
        if self.size and min(self.size) < 16:
            raise ValueError(f"size is {self.size}; give at least 16 x 16, which a digit needs")

    def open(self) -> Arrays:
        """Draw the images. Raises ValueError for an unknown task or an empty part."""
        if self.path not in TASKS:
            raise ValueError(f"no generated set {self.path!r}; set data.path to one of {', '.join(TASKS)}")
        if self.path == "scenes":
            return self._open_scenes()
        data, labels = generate_pictures(self)
        classes = SHAPES if self.path == "shapes" else DIGIT_NAMES
        rows = np.arange(len(labels), dtype=np.int64)
        note = f"{len(rows)} generated pictures, task {self.path!r}, seed {self.seed}"
        return Arrays(data, rows, labels, classes, (note,), self.path, cfg=self)

    @property
    def is_generated(self) -> bool:
        """Always true: the path names what is drawn."""
        return True

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read `path`: it names a task."""
        return f"{path!r} names a generated set" if path in TASKS else ""

    def part(self) -> tuple[Int64[np.ndarray, " n"], int]:
        """The ids of the chosen part, and the first id that is for testing. Raises ValueError if the part is empty."""
        return generated_part(self.count, self.split, self.held_out, self.limit, "pictures")

    def _open_scenes(self) -> Scenes:
        ids, cut = self.part()
        data, masks, films, labels = draw_scenes(ids, cut, self.size or (32, 32), self.seed)
        note = f"{len(ids)} generated pictures of {len(np.unique(films))} films, seed {self.seed}"
        return Scenes(data, np.arange(len(ids)), labels, SHAPES, (note,), self.path, masks, films, cfg=self)


def generate_pictures(cfg: Config) -> tuple[UInt8[np.ndarray, "n c h w"], Int64[np.ndarray, " n"]]:
    """Images (N, C, H, W) and labels of the chosen part."""
    ids, cut = cfg.part()
    u = uniform_draws(Rng(cfg.seed).fork("synthetic", cfg.path), ids, 16)
    size = cfg.size or (32, 32)
    if cfg.path == "shapes":
        return _draw_shapes(u, size)
    glyphs, labels = _digit_scans(u[:, 0], ids >= cut)
    alpha = _place_glyphs(glyphs, u, size)
    if cfg.path == "digits":
        return (alpha * 255).round().to(torch.uint8)[:, None].numpy(), labels
    back = _photo_crops(u, size)
    ink = torch.from_numpy(u[:, 8:11]).float()[:, :, None, None] * 255
    mixed = back + alpha[:, None] * (ink - back)
    return mixed.round().clamp(0, 255).to(torch.uint8).numpy(), labels


def moving_digits(
    count: int, frames: int = 16, size: tuple[int, int] = (32, 32), seed: int = 0, test: bool = False
) -> tuple[UInt8[np.ndarray, "n 1 t h w"], Int64[np.ndarray, " n"]]:
    """Clips (N, 1, T, H, W) of one white digit that moves in a straight line and bounces off the edges, and labels.

    Digits come from the training scans, or from the test scans if `test`. Without bounces, no digit moves further than
    15 % of the free room in a step.
    """
    u = uniform_draws(Rng(seed).fork("synthetic", "moving"), np.arange(count, dtype=np.int64), 16)
    glyphs, labels = _digit_scans(u[:, 0], np.full(count, test))
    steps = np.arange(frames)[None]
    # A triangle wave of the position is a bounce.
    path = [np.abs((u[:, i : i + 1] * 2 + (u[:, i + 4 : i + 5] - 0.5) * 0.3 * steps) % 2 - 1) for i in (1, 2)]
    clips = []
    for t in range(frames):
        still = u.copy()
        still[:, 1], still[:, 2] = path[0][:, t], path[1][:, t]
        clips.append(_place_glyphs(glyphs, still, size))
    return (torch.stack(clips, dim=1) * 255).round().to(torch.uint8)[:, None].numpy(), labels


def _digit_scans(
    u: Float[np.ndarray, " n"], test: Shaped[np.ndarray, " n"]
) -> tuple[Float[Tensor, "n 8 8"], Int64[np.ndarray, " n"]]:
    """One scan per sample in [0, 1], from the test scans if `test` is true, and its digit."""
    from sklearn.datasets import load_digits

    scans, digits = load_digits(return_X_y=True)
    held = np.arange(len(scans)) % 5 == 0
    picked = np.empty(len(u), dtype=np.int64)
    for part in (True, False):
        pool = np.flatnonzero(held == part)
        picked[test == part] = pool[(u[test == part] * len(pool)).astype(np.int64)]
    glyphs = torch.from_numpy(scans[picked].reshape(-1, 8, 8)).float() / 16
    return glyphs, digits[picked].astype(np.int64)


def _place_glyphs(
    glyphs: Float[Tensor, "n 8 8"], u: Float[np.ndarray, "n 16"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Each glyph at u[:, 1:3] of the free room, between 0.45 and 0.65 of the short side high, antialiased."""
    height, width = size
    side = torch.from_numpy((0.45 + 0.2 * u[:, 3]) * min(size)).float()
    corner = [torch.from_numpy(u[:, i]).float() * (room - side) for i, room in ((1, width), (2, height))]
    across = (torch.arange(width) + 0.5 - corner[0][:, None]) / side[:, None] * 2 - 1
    down = (torch.arange(height) + 0.5 - corner[1][:, None]) / side[:, None] * 2 - 1
    grid = torch.stack([across[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], dim=-1)
    return F.grid_sample(glyphs[:, None], grid, align_corners=False)[:, 0].mul(1.3).clamp(0, 1)


def _photo_crops(u: Float[np.ndarray, "n 16"], size: tuple[int, int]) -> Float[Tensor, "n 3 h w"]:
    """A random box of one of the two photographs per sample, flipped or not, in 0 … 255."""
    from sklearn.datasets import load_sample_images

    stack = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float()
    # Halved, so that boxes of 1 to 2 times the size need no further antialiasing.
    photos = F.interpolate(stack, scale_factor=0.5, mode="bilinear", antialias=True)
    height, width = photos.shape[-2:]
    which = (u[:, 4] * len(photos)).astype(np.int64)
    scale = torch.from_numpy(1 + u[:, 5]).float()[:, None]
    grids = []
    for axis, (length, room) in enumerate(((size[1], width), (size[0], height))):
        span = (length * scale).clamp(max=room)
        start = torch.from_numpy(u[:, 6 + axis]).float()[:, None] * (room - span)
        grids.append((start + (torch.arange(length) + 0.5) / length * span) / room * 2 - 1)
    mirrored = torch.from_numpy(u[:, 11] < 0.5)[:, None]
    across = torch.where(mirrored, grids[0].flip(1), grids[0])
    grid = torch.stack([across[:, None].expand(-1, size[0], -1), grids[1][:, :, None].expand(-1, -1, size[1])], dim=-1)
    out = torch.empty(len(u), 3, *size)
    for photo in range(len(photos)):
        mine = torch.from_numpy(np.flatnonzero(which == photo))
        out[mine] = F.grid_sample(photos[photo].expand(len(mine), -1, -1, -1), grid[mine], align_corners=False)
    return out


def _draw_shapes(
    u: Float[np.ndarray, "n 16"], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "n 3 h w"], Int64[np.ndarray, " n"]]:
    """One rotated shape per image, in its own colour on a plain background, and its kind."""
    height, width = size
    labels = (u[:, 0] * len(SHAPES)).astype(np.int64)
    radius = (0.18 + 0.12 * u[:, 3]) * min(size)
    x = np.arange(width)[None, None, :] + 0.5 - (radius + u[:, 1] * (width - 2 * radius))[:, None, None]
    y = np.arange(height)[None, :, None] + 0.5 - (radius + u[:, 2] * (height - 2 * radius))[:, None, None]
    turn = 2 * np.pi * u[:, 4, None, None]
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    r = radius[:, None, None]
    inside = outline_distance(labels, x, y, r)
    alpha = np.clip(0.5 - inside, 0, 1)[:, None]
    ground, ink = 0.6 * u[:, 5:8, None, None], 0.4 + 0.6 * u[:, 8:11, None, None]
    return np.rint(255 * (ground + alpha * (ink - ground))).astype(np.uint8), labels
