"""Compares long unrolled forecasts with the true system by the statistics of their paths.

The values of a chaotic system cannot be predicted for long. The statistics of its paths can be compared: where a path
spends its time, and how fast neighbouring paths diverge.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ... import losses
from ...evals.metrics.readers import Reader
from ...evals.windows import past_and_future

ROWS_AT_ONCE = 512
"""Points per batch of the neighbour search."""


def axis_distances(a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "m c"]) -> Float64[np.ndarray, " c"]:
    """The 1-D Wasserstein distance between two sets of points along each axis, in the axis's own units."""
    from scipy.stats import wasserstein_distance

    return np.array([wasserstein_distance(a[:, c], b[:, c]) for c in range(a.shape[1])])


def lyapunov_exponent(
    paths: Float[np.ndarray, "n t c"], dt: float, apart: int, fit: tuple[int, int], sample: int = 4000
) -> float:
    """The largest Lyapunov exponent per unit of time: the slope of the mean log distance of neighbours over time.

    Every point (at most `sample` points, evenly spread) is paired with the nearest point on another path or more than
    `apart` steps away; `fit` is the range of later steps, first and last, over which the slope is fitted. Raises
    ValueError if the paths are too short. Source: Rosenstein, Collins & De Luca 1993, Physica D 65, 117.
    """
    n, t, c = paths.shape
    first, last = fit
    room = t - last
    if not 0 <= first < last or room < 1 or (n == 1 and room <= 2 * apart):
        raise ValueError(
            f"the paths have {t} steps, too few for distances after {first} to {last} steps of neighbours more than "
            f"{apart} apart; give longer paths, or smaller numbers"
        )
    points = torch.from_numpy(np.ascontiguousarray(paths[:, :room].reshape(-1, c))).double()
    who, when = np.repeat(np.arange(n), room), np.tile(np.arange(room), n)
    chosen = np.unique(np.linspace(0, len(points) - 1, min(sample, len(points))).astype(int))
    near = np.concatenate(
        [
            _nearest_points(points, who, when, rows, apart)
            for rows in np.array_split(chosen, -(-len(chosen) // ROWS_AT_ONCE))
        ]
    )
    steps = np.arange(first, last + 1)
    ours, theirs = (paths[who[at][:, None], when[at][:, None] + steps] for at in (chosen, near))
    distance = np.linalg.norm(ours.astype(np.float64) - theirs, axis=-1)
    # A path at a fixed point has neighbours at distance 0.
    logs = np.log(np.maximum(distance, 1e-12 * (float(points.std()) or 1.0)))
    return float(np.polyfit(steps * dt, logs.mean(0), 1)[0])


def _nearest_points(
    points: Float[Tensor, "p c"], who: np.ndarray, when: np.ndarray, rows: np.ndarray, apart: int
) -> np.ndarray:
    """The index of the nearest point to each of `rows` that is not its neighbour in time."""
    distance = torch.cdist(points[rows], points)
    close = (who[rows][:, None] == who) & (np.abs(when[rows][:, None] - when) <= apart)
    distance[torch.from_numpy(close)] = torch.inf
    return distance.argmin(1).numpy()


@torch.no_grad()
def unroll_blocks(method: Any, x: Float[Tensor, "b c t"], blocks: int) -> Float[Tensor, "b blocks _"]:
    """`blocks` half windows, each predicted from the previous one without any observed value: P(f(x)), P(P(f(x))), …

    x holds the past half; the method is a BiJEPA, whose predictions are in the same space as the predictor's input.
    Raises ValueError if the two halves have different numbers of tokens.
    """
    masks = past_and_future(method, len(x), x.device, x.shape[-1])
    if masks.context.shape[1] != masks.targets.shape[2]:
        raise ValueError(
            f"the past has {masks.context.shape[1]} tokens and the future {masks.targets.shape[2]}, so a prediction "
            "cannot be the next input; give an encoder.patch that cuts the window evenly"
        )
    s, found = method.context(x, masks), []
    for _ in range(blocks):
        s = method.predictors[0](s, masks)[:, 0]
        found.append(s.flatten(1))
        s = losses.on_sphere(s) if method.cfg.sphere else s
    return torch.stack(found, 1)


def decode_path(reader: Reader, s: Float[Tensor, "b k d"], channels: int) -> Float64[np.ndarray, "b c _"]:
    """The path (B, C, K · H) whose blocks of H steps the reader reads from representations."""
    b, k, _ = s.shape
    values = reader(s.flatten(0, 1).double().numpy()).reshape(b, k, channels, -1)
    path: np.ndarray = values.transpose(0, 2, 1, 3).reshape(b, channels, -1)
    return path
