"""Windows of series cut into past and future: what is seen, what the method makes of it, and what came after."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..masks.halves import Halves
from ..methods.base import Method
from ..methods.masked import Masked
from ..types import Batch, Masks, Rng

FEWEST = 10
"""Windows to fit on, at least: a fifth of them is held out."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Row i is window `id[i]`: `s` is the representation of its past, `pred` that which the method predicts from it.

    Both hold all tokens side by side; `past` and `future` are the values, at the model's normalisation.
    """

    s: Float32[np.ndarray, "n _"]
    pred: Float32[np.ndarray, "n _"]
    past: Float32[np.ndarray, "n c p"]
    future: Float32[np.ndarray, "n c h"]
    id: Int64[np.ndarray, " n"]

    @property
    def y(self) -> Int64[np.ndarray, " n"]:
        """No window has a label."""
        return np.full(len(self), -1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.id)

    def where(self, rows: Bool[np.ndarray, " n"]) -> "Windows":
        """The windows where `rows` is true."""
        return Windows(*(getattr(self, key)[rows] for key in ("s", "pred", "past", "future", "id")))

    def same(self, other: "Windows") -> bool:
        """Whether both hold the same values."""
        return np.array_equal(self.past, other.past) and np.array_equal(self.future, other.future)

    def check(self) -> None:
        """Raises ValueError where there are too few windows, or where a representation is not finite."""
        if len(self) < FEWEST:
            raise ValueError(
                f"there are {len(self)} windows to fit on; give {FEWEST} or more, or a smaller data.stride"
            )
        if not (np.isfinite(self.s).all() and np.isfinite(self.pred).all()):
            raise ValueError("a representation is not finite; take an earlier checkpoint")

    @property
    def held(self) -> Bool[np.ndarray, " n"]:
        """The last fifth in order: windows that overlap would tell a random fifth what they know."""
        rows: np.ndarray = np.arange(len(self)) >= len(self) - max(1, len(self) // 5)
        return rows


def check_cut(method: Method) -> None:
    """Raises ValueError, naming the fix, where the method cannot predict the later half of a series."""
    name = type(method).__module__.rsplit(".", 1)[-1]
    if len(method.signal.size) != 1:
        raise ValueError(
            f"the run is of samples of size {method.signal.size}, which have no future to forecast; train on series"
        )
    if not isinstance(method, Masked):
        raise ValueError(
            f"{name} predicts no future from a past; train bijepa or ijepa on the series, "
            "with --method.masks '[{name: halves}]'"
        )
    encoder: Any = method.encoder
    Halves().check(tuple(encoder.grid))


def past_and_future(method: Method, batch: int, device: torch.device | str = "cpu", steps: int | None = None) -> Masks:
    """The first half of the tokens as context, the rest as targets; of an odd number the middle one is past.

    They are those of a window of so many `steps`, by default of the method's signal.
    """
    encoder: Any = method.encoder
    grid = ((steps or method.signal.size[0]) // encoder.patch[0],)
    masks = Halves()(grid, batch, Rng(0))
    return Masks(masks.context.to(device), masks.targets.to(device), grid)


def steps_seen(method: Method, steps: int | None = None) -> int:
    """How many steps of a window are past."""
    encoder: Any = method.encoder
    return int(past_and_future(method, 1, steps=steps).context.shape[1] * encoder.patch[0])


@torch.no_grad()
def represented(
    method: Any, x: Float[Tensor, "b c t"]
) -> tuple[Float32[np.ndarray, "b _"], Float32[np.ndarray, "b _"]]:
    """f(past) and what the method predicts from it, as rows; what x holds after the cut is never seen."""
    masks = past_and_future(method, len(x), x.device, x.shape[-1])
    s, pred = method.context(x, masks), method.predict(x, masks)
    return s.flatten(1).float().cpu().numpy(), pred.flatten(1).float().cpu().numpy()


def read(method: Method, batches: Iterable[Batch], device: str = "cpu") -> Windows:
    """All windows of `batches`."""
    cut, parts = steps_seen(method), []
    for batch in batches:
        x = batch.to(device).x
        values = method.normalize(x).float().cpu().numpy()
        parts.append((*represented(method, x), values[..., :cut], values[..., cut:], batch.id.numpy()))
    if not parts:
        raise ValueError("there is nothing to evaluate: the data hold no window")
    return Windows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def as_raw(windows: Windows) -> Windows:
    """The same windows with the past values themselves as what is read: linear autoregression."""
    flat = windows.past.reshape(len(windows), -1)
    return replace(windows, s=flat, pred=flat)
