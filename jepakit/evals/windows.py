"""Windows of series cut into past and future: the values, the method's representations, and its predictions."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..masks.halves import Halves
from ..methods.base import Method, method_name
from ..methods.masked import Masked
from ..types import Batch, Masks, Rng
from .split import Unlabelled

MIN_WINDOWS = 10
"""The fewest windows to fit on; a fifth of them is held out."""


@dataclass(frozen=True, eq=False)
class Windows(Unlabelled):
    """Row i is window `id[i]`: `s` represents its past, and `pred` is the method's prediction of its future from that.

    Both hold all tokens side by side; `past` and `future` are the values, as the model normalises them.
    """

    s: Float32[np.ndarray, "n _"]
    pred: Float32[np.ndarray, "n _"]
    past: Float32[np.ndarray, "n c p"]
    future: Float32[np.ndarray, "n c h"]
    id: Int64[np.ndarray, " n"]

    ROWS = ("s", "pred", "past", "future", "id")

    def same(self, other: "Windows") -> bool:
        """Whether both hold equal values."""
        return np.array_equal(self.past, other.past) and np.array_equal(self.future, other.future)

    def check_values(self) -> None:
        """Raise ValueError if there are too few windows, or if a representation is not finite."""
        if len(self) < MIN_WINDOWS:
            raise ValueError(
                f"there are {len(self)} windows to fit on; give {MIN_WINDOWS} or more, or a smaller data.stride"
            )
        if not (np.isfinite(self.s).all() and np.isfinite(self.pred).all()):
            raise ValueError("a representation is not finite; use an earlier checkpoint")

    @property
    def held(self) -> Bool[np.ndarray, " n"]:
        """The last fifth in order; a random fifth would overlap the windows that are fitted on."""
        rows: np.ndarray = np.arange(len(self)) >= len(self) - max(1, len(self) // 5)
        return rows


def check_cut(method: Method) -> None:
    """Raise ValueError, naming the fix, if the method cannot predict the later half of a series."""
    name = method_name(type(method))
    if len(method.signal.size) != 1:
        raise ValueError(f"the run's samples have size {method.signal.size} and no future to forecast; train on series")
    if not isinstance(method, Masked):
        raise ValueError(
            f"{name} does not predict a future from a past; train bijepa or ijepa on the series, "
            "with --method.masks '[{name: halves}]'"
        )
    encoder: Any = method.encoder
    Halves().check(tuple(encoder.grid))


def past_and_future(method: Method, batch: int, device: torch.device | str = "cpu", steps: int | None = None) -> Masks:
    """Masks with the first half of the tokens as context and the rest as targets; a middle token belongs to the past.

    They are for a window of `steps` steps, by default that of the method's signal.
    """
    encoder: Any = method.encoder
    grid = ((steps or method.signal.size[0]) // encoder.patch[0],)
    masks = Halves()(grid, batch, Rng(0))
    return Masks(masks.context.to(device), masks.targets.to(device), grid)


def steps_seen(method: Method, steps: int | None = None) -> int:
    """How many steps of a window belong to the past."""
    encoder: Any = method.encoder
    return int(past_and_future(method, 1, steps=steps).context.shape[1] * encoder.patch[0])


@torch.no_grad()
def represent_windows(
    method: Any, x: Float[Tensor, "b c t"]
) -> tuple[Float32[np.ndarray, "b _"], Float32[np.ndarray, "b _"]]:
    """f(past) and the method's prediction from it, as rows (B, …); values after the cut are never seen."""
    masks = past_and_future(method, len(x), x.device, x.shape[-1])
    s, pred = method.context(x, masks), method.predict(x, masks)
    return s.flatten(1).float().cpu().numpy(), pred.flatten(1).float().cpu().numpy()


def read_windows(method: Method, batches: Iterable[Batch], device: str = "cpu") -> Windows:
    """All windows in `batches`. Raises ValueError if there are none."""
    cut, parts = steps_seen(method), []
    for batch in batches:
        x = batch.to(device).x
        values = method.normalize(x).float().cpu().numpy()
        parts.append((*represent_windows(method, x), values[..., :cut], values[..., cut:], batch.id.numpy()))
    if not parts:
        raise ValueError("there is nothing to evaluate: the data contain no window")
    return Windows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def as_raw(windows: Windows) -> Windows:
    """The same windows with the past values in place of representations: the input of linear autoregression."""
    flat = windows.past.reshape(len(windows), -1)
    return replace(windows, s=flat, pred=flat)
