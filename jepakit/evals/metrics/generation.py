"""Quality of completed samples compared with the truth: error, structural similarity and sharpness.

Everything is measured over the hidden part. An error alone rewards a blur, the mean of all possible completions: so we
also measure structural similarity and sharpness.
"""

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

WINDOW_SIZE: Final = 11
WINDOW_SIGMA: Final = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


class Tally(NamedTuple):
    """Sums over samples, so that any number of samples is measured in constant memory; `plus` adds two tallies."""

    items: int = 0
    values: float = 0.0
    squared_error_sum: float = 0.0
    similar: float = 0.0
    made: float = 0.0
    true: float = 0.0

    def plus(self, other: "Tally") -> "Tally":
        """The tally of both sets of samples."""
        return Tally._make(a + b for a, b in zip(self, other, strict=True))

    @property
    def mse(self) -> float:
        """The mean squared error over hidden values."""
        return self.squared_error_sum / max(self.values, 1.0)

    @property
    def ssim(self) -> float:
        """The mean structural similarity of pictures, over the hidden part; 1 for the truth itself."""
        return self.similar / max(self.items, 1)

    def numbers(self) -> dict[str, int | float]:
        """All numbers by name; `ssim` is missing unless samples are pictures in [0, 1]."""
        found: dict[str, int | float] = {
            "items": self.items,
            "mse": self.mse,
            "ssim": self.ssim,
            "sharpness": self.sharpness,
        }
        return {name: value for name, value in found.items() if value == value}

    @property
    def sharpness(self) -> float:
        """The gradient energy of all completions over the truth's: a blur is below 1; NaN if the truth is flat."""
        return self.made / self.true if self.true else float("nan")


def tally_completions(
    made: Float[Tensor, "b c ..."], true: Float[Tensor, "b c ..."], hidden: Bool[Tensor, "..."]
) -> Tally:
    """Compare completions with the truth where `hidden` (*size) is true.

    Structural similarity is measured only for pictures in [0, 1], and frame by frame for clips of them.
    """
    made, true = made.double(), true.double()
    squared = (made - true).square() * hidden
    alike = float("nan")
    if hidden.ndim > 1 and float(true.min()) >= 0 and float(true.max()) <= 1:
        each = ssim_map(*(x.movedim(1, -3).flatten(0, -4) for x in (made, true))).reshape(len(made), *hidden.shape)
        alike = float((each * hidden).sum() / hidden.sum())
    energies = (float(gradient_energy(x, hidden).sum()) for x in (made, true))
    count = float(hidden.sum()) * made.shape[0] * made.shape[1]
    return Tally(len(made), count, float(squared.sum()), alike, *energies)


def gradient_energy(x: Float[Tensor, "b c ..."], hidden: Bool[Tensor, "..."]) -> Float[Tensor, " b"]:
    """The sum (B,) of squared differences between neighbours along every axis, where both are hidden."""
    total = x.new_zeros(len(x))
    for axis in range(hidden.ndim):
        both = hidden.narrow(axis, 1, hidden.shape[axis] - 1) & hidden.narrow(axis, 0, hidden.shape[axis] - 1)
        total = total + (x.diff(dim=axis + 2).square() * both).flatten(1).sum(1)
    return total


def ssim(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """The structural similarity (B,) of pictures with values in [0, 1]: 1 if they are equal."""
    return ssim_map(x, y).flatten(1).mean(1)


def ssim_map(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """(2 m_x m_y + c1)(2 s_xy + c2) / ((m_x² + m_y² + c1)(s_x² + s_y² + c2)) at every pixel, channels averaged.

    Means m, variances s² and the covariance s_xy use a Gaussian window of 11 × 11 with deviation 1.5; at the border,
    only the part inside the picture counts. c1 = 0.01², c2 = 0.03². Source: Wang et al., Image quality assessment: from
    error visibility to structural similarity, 2004, which leaves the borders out.
    """
    m_x, m_y = gaussian_mean(x), gaussian_mean(y)
    v_x, v_y, v_xy = (
        gaussian_mean(x * x) - m_x * m_x,
        gaussian_mean(y * y) - m_y * m_y,
        gaussian_mean(x * y) - m_x * m_y,
    )
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    found = (2 * m_x * m_y + c1) * (2 * v_xy + c2) / ((m_x**2 + m_y**2 + c1) * (v_x + v_y + c2))
    return found.mean(1)


def gaussian_mean(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The Gaussian-weighted mean of the window around every pixel."""
    at = torch.arange(WINDOW_SIZE, dtype=x.dtype, device=x.device) - WINDOW_SIZE // 2
    line = (-at.square() / (2 * WINDOW_SIGMA**2)).exp()
    one = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)

    def summed(t: Tensor) -> Tensor:
        flat = t.flatten(0, 1)[:, None]
        down = F.conv2d(flat, line[None, None, :, None], padding=(WINDOW_SIZE // 2, 0))
        return F.conv2d(down, line[None, None, None], padding=(0, WINDOW_SIZE // 2))

    found: Tensor = (summed(x) / summed(one)).reshape(x.shape)
    return found
