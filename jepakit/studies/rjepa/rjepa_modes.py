"""Single modes of R-JEPA: theory and training show which modes survive weight decay.

One unit w reads a filtered input e_t of variance v whose neighbours have correlation r; one number p predicts, and the
target has no gradient: L = ½ E (p w e_t − w e_{t+1})². From a balanced start, w = p at all times.

1. Gradient descent with weight decay η: dp/dt = v p² (r − p) − η p, so p = 0, or p = (r ± √(r² − 4 η / v)) / 2. The
   larger root is stable; a start below the smaller root decays to 0, and beyond η = r² v / 4 every start does.
2. AdamW divides each gradient by its root mean square, over batches of B pairs, so that its decay λ has another scale:
   r − p = λ p √((2 p² − 4 p r + 1 + r²) / B + (r − p)²) for normal inputs. The left side is larger at p = 0 and
   smaller at p = r: there is always a root in between, whatever v. The mode shrinks with λ, and there is no threshold.

   The formula assumes that AdamW's mean square is that of the current gradients. If a mode shrinks by more than about
   a thousandth per step (rate times decay), large early gradients remain in the mean, and the mode decays to 0: with
   r = 0.9, v = 1 and λ = 3.2, p stays at 0.310 as predicted at a rate of 3e-4, and decays to 0 at 1e-3.

Both results hold for a single mode. If a weight contributes to many modes, AdamW's root mean square covers all of them.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...types import Rng

MODES: Final = ((0.9, 1.0), (0.9, 0.25), (0.5, 1.0))  # (r, v)
WEIGHT_DECAYS: Final = tuple(1e-3 * 10 ** (k / 6) for k in range(25))  # 1e-3 … 10
STEPS, BATCH, START = 6000, 64, 0.6
LEARNING_RATES: Final = {"gradient descent": 0.1, "AdamW": 1e-3}


class Roots(NamedTuple):
    """The value at which a mode settles, and the smallest start that leads there; both 0 if every start decays to 0."""

    stable: float
    border: float


def fixed_points(r: float, v: float, decay: float) -> Roots:
    """The fixed points of gradient descent: case 1 of the module."""
    inside = r * r - 4 * decay / v
    if inside < 0:
        return Roots(0.0, 0.0)
    return Roots((r + math.sqrt(inside)) / 2, (r - math.sqrt(inside)) / 2)


def adam_fixed_point(r: float, decay: float, batch: int) -> float:
    """The fixed point of AdamW, case 2 of the module, by bisection."""
    low, high = 0.0, r
    for _ in range(60):
        p = (low + high) / 2
        scatter = (2 * p * p - 4 * p * r + 1 + r * r) / batch + (r - p) ** 2
        if r - p > decay * p * math.sqrt(scatter):
            low = p
        else:
            high = p
    return low


def descend_mode(r: float, v: float, decay: float, start: float, lr: float, steps: int) -> float:
    """The final p of gradient descent on the expected loss from w = p = `start`."""
    w = p = start
    for _ in range(steps):
        by_p, by_w = v * w * w * (p - r), v * p * w * (p - r)
        w, p = w - lr * (by_w + decay * w), p - lr * (by_p + decay * p)
    return p


def train_modes(
    modes: Sequence[tuple[float, float]],
    decays: Sequence[float],
    rng: Rng,
    adam: bool,
    steps: int = STEPS,
    batch: int = BATCH,
    start: float = START,
) -> Float[Tensor, "m k"]:
    """Train each mode with each decay on new normal pairs in every step; returns √|p w| over the last tenth."""
    gen, lr = rng.generator(), LEARNING_RATES["AdamW" if adam else "gradient descent"]
    r, v = (torch.tensor(column)[:, None] for column in zip(*modes, strict=True))
    weight = torch.tensor(decays).expand(len(modes), -1)
    w, p = (torch.full_like(weight, start) for _ in range(2))
    moments = [torch.zeros(2, *weight.shape) for _ in range(2)]
    kept = torch.zeros_like(weight)
    for k in range(steps):
        e, noise = torch.randn(2, batch, len(modes), generator=gen)
        e, noise = e * v[:, 0].sqrt(), noise * v[:, 0].sqrt()
        after = r[:, 0] * e + (1 - r[:, 0] ** 2).sqrt() * noise
        second, crossed = (e * e).mean(0)[:, None], (e * after).mean(0)[:, None]
        inner = p * w * second - w * crossed
        gradient = torch.stack([inner * p, inner * w])
        if adam:
            gradient = _adam_scaled(gradient, moments, k)
        w, p = w - lr * (gradient[0] + weight * w), p - lr * (gradient[1] + weight * p)
        if k >= steps - steps // 10:
            kept += (p * w).abs().sqrt() / (steps // 10)
    return kept


def _adam_scaled(gradient: Tensor, moments: list[Tensor], k: int) -> Tensor:
    """The gradient as scaled by Adam in step k."""
    first, second = moments
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    return first / (1 - 0.9 ** (k + 1)) / ((second / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
