"""The patch of an encoder whose settings leave it open."""

from dataclasses import replace
from typing import Any

from ..core.notes import Note
from ..types import Size
from .conv import CNN
from .mlp import MLP

MAX_SIDE = 16
MIN_PATCHES = 7  # along each side of a signal
MIN_CELLS = 4  # along each side of a small picture, such as a fixation


def auto_patch(side: int) -> int:
    """The largest divisor of `side`, at most 16, that leaves at least 7 patches; 1 where none does."""
    return max(p for p in range(1, MAX_SIDE + 1) if side % p == 0 and (side // p >= MIN_PATCHES or p == 1))


def cells_per_side(encoder: Any) -> int:
    """Patches along each side of a small picture, at least; a convolutional encoder sees as much of one as it can."""
    return 1 if isinstance(encoder, CNN) else MIN_CELLS


def fit_patch(encoder: Any, size: Size, proposal: tuple[Size, str] | None, frames: bool) -> tuple[Any, list[Note]]:
    """The settings of an encoder with its patch chosen for signals of `size`, and a note, where it was left open.

    `proposal` is what the data propose, with the reason; `frames`: the encoder has to see one frame at a time.
    """
    if not hasattr(encoder, "patch") or encoder.patch is not None:
        return encoder, []
    patch: Size
    if isinstance(encoder, MLP):
        # A perceptron relates no patch to another, so each sees as much as one half can hide.
        patch, why = (*size[:-1], -(-size[-1] // 2)), "half of a sample"
    elif proposal is not None:
        patch, why = proposal
    else:
        whole_frames = frames and len(size) > 1
        patch = (1, *size[1:]) if whole_frames else tuple(auto_patch(side) for side in size)
        grid = tuple(side // p for side, p in zip(size, patch, strict=True))
        start = (
            "a frame at a time" if whole_frames else f"the largest that leaves at least {MIN_PATCHES} patches a side"
        )
        why = f"{start}: grid {grid}"
    return replace(encoder, patch=patch), [Note("method.encoder.patch", list(patch), why)]
