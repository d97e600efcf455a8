r"""Linear readers of a representation: how well a signal's values can be read from it.

    ridge    min_W,b  mean |x W + b − y|² + l2 |W|²       closed form; x at zero mean and unit variance
    Adam     the same without l2 on unscaled x, after a few full-batch steps from a random start: not converged

Source of the second: BiJEPA, arXiv:2603.00049, which reports its error on the samples that it was fitted to.

`fit_linear_changes` reads values from values instead: of every channel, the change since its last value from the same
channel's past. Source: Zeng et al. 2022, arXiv:2205.13504.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ...types import Rng

L2_STRENGTHS = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for l2, in units of the variance of a feature."""


def check_strengths(l2: Sequence[float]) -> None:
    """Raise ValueError unless `l2` holds positive values, at least one."""
    if not l2 or min(l2) <= 0:
        raise ValueError(f"l2={l2} must hold positive values, e.g. l2=(1e-4, 1e-2)")


@dataclass(frozen=True, eq=False)
class Reader:
    """y = ((x − mean) / std) weight + bias."""

    mean: Float64[np.ndarray, " d"]
    std: Float64[np.ndarray, " d"]
    weight: Float64[np.ndarray, "d k"]
    bias: Float64[np.ndarray, " k"]

    def __call__(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """The values read from each row of x."""
        read: np.ndarray = (x - self.mean) / self.std @ self.weight + self.bias
        return read


def fit_ridge(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], l2: Sequence[float]) -> list[Reader]:
    """One ridge reader per strength, in closed form from a single decomposition, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean, std, bias = x.mean(0), x.std(0), y.mean(0)
    # A feature that does not vary carries no information; dividing by its rounding error would amplify noise.
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    z, n = (x - mean) / std, len(x)
    wide = z.shape[1] > n
    power, axes = np.linalg.eigh((z @ z.T if wide else z.T @ z) / n)
    along = axes.T @ ((y - bias) if wide else z.T @ (y - bias)) / n
    back = z.T @ axes if wide else axes
    return [Reader(mean, std, back @ (along / (np.maximum(power, 0) + s)[:, None]), bias) for s in l2]


def choose_reader(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n c h"],
    held: Bool[np.ndarray, " n"],
    l2: Sequence[float] = L2_STRENGTHS,
) -> tuple[Reader, Float64[np.ndarray, " h"]]:
    """A reader of all C · H values, and for each of the H steps the strength that is best on the samples `held`.

    Strengths are compared after fitting the other samples; then all samples are fitted. For ties, the strongest wins.
    """
    strengths, (n, c, h) = sorted(l2, reverse=True), y.shape
    flat = y.reshape(n, -1)
    if len(strengths) == 1:
        return fit_ridge(x, flat, strengths)[0], np.full(h, float(strengths[0]))
    trials = fit_ridge(x[~held], flat[~held], strengths)
    errors = [((t(x[held]) - flat[held]) ** 2).reshape(-1, c, h).mean((0, 1)) for t in trials]
    best = np.argmin(errors, axis=0)
    fits = fit_ridge(x, flat, strengths)
    weight = np.stack([reader.weight for reader in fits])[np.tile(best, c), :, np.arange(c * h)].T
    return replace(fits[0], weight=weight), np.array(strengths)[best]


@dataclass(frozen=True, eq=False)
class LinearChanges:
    """Reads the change of every channel since its last value: one reader for all channels, or one for each.

    With `level`, it reads the change from the values as they are, else from their differences from the last one.
    """

    readers: Sequence[Reader]
    level: bool = False

    def __call__(self, past: Float[np.ndarray, "n c p"]) -> Float64[np.ndarray, "n c h"]:
        """The values that follow each past."""
        n, c, steps = past.shape
        x = past if self.level else past - past[..., -1:]
        if len(self.readers) == 1:
            changes = self.readers[0](x.reshape(-1, steps)).reshape(n, c, -1)
        else:
            changes = np.stack([reader(x[:, k]) for k, reader in enumerate(self.readers)], axis=1)
        values: np.ndarray = past[..., -1:] + changes
        return values


def fit_linear_changes(
    past: Float[np.ndarray, "n c p"],
    future: Float[np.ndarray, "n c h"],
    held: Bool[np.ndarray, " n"],
    shared: bool = True,
    level: bool = False,
    l2: Sequence[float] = L2_STRENGTHS,
) -> LinearChanges:
    """Ridge readers of changes, with weights that all channels share or with weights for each; `held` as above."""
    n, c, steps = past.shape
    x, y = past if level else past - past[..., -1:], future - past[..., -1:]
    if shared:
        rows = (x.reshape(-1, steps), y.reshape(n * c, 1, -1), np.repeat(held, c))
        return LinearChanges([choose_reader(*rows, l2)[0]], level)
    return LinearChanges([choose_reader(x[:, k], y[:, k : k + 1], held, l2)[0] for k in range(c)], level)


def adam_train_error(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], rng: Rng, steps: int = 100, lr: float = 1e-2
) -> float:
    """The mean squared error of a linear layer on the samples it was fitted to, after its last full-batch Adam step.

    Weight and bias start uniform within 1 / √d of 0, like those of `nn.Linear`. With so few steps the layer stays short
    of the optimum, and the more so the smaller x is.
    """
    d, k, bound = x.shape[1], y.shape[1], 1 / sqrt(x.shape[1])
    drawn = (2 * torch.rand(d + 1, k, generator=rng.generator()) - 1) * bound
    weight, bias = (part.clone().requires_grad_() for part in (drawn[:d], drawn[d]))
    optimizer = torch.optim.Adam([weight, bias], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (x @ weight + bias - y).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        return float((x @ weight + bias - y).square().mean())
