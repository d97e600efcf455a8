"""A linear model of dynamics: the change of a latent from the latent and the action, by ridge regression.

    s_{t+1} − s_t = V W [Vᵀ (s_t − m), a_t, 1]

m is the mean latent and V holds the MAX_DIRECTIONS directions in which latents vary most, all of them if there are no
more; along the others nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from .readers import L2_STRENGTHS, choose_reader

MAX_DIRECTIONS = 256
MAX_ROWS = 4096


@dataclass(frozen=True, eq=False)
class LinearDynamics:
    """The module's model: `matrix` is W for the latent, `drive` for the action."""

    mean: Float64[Tensor, " d"]
    axes: Float64[Tensor, "d r"]
    matrix: Float64[Tensor, "r r"]
    drive: Float64[Tensor, "a r"]
    bias: Float64[Tensor, " r"]

    def step(self, s: Float[Tensor, "b d"], action: Float[Tensor, "b a"]) -> Float64[Tensor, "b d"]:
        """The latent after an action, differentiable in both."""
        s, action = s.double(), action.double()
        change = (s - self.mean) @ self.axes @ self.matrix + action @ self.drive + self.bias
        return s + change @ self.axes.T

    def roll_out(self, s: Float[np.ndarray, "n d"], action: Float[np.ndarray, "n t a"]) -> Float64[np.ndarray, "n t d"]:
        """The latents after each of T actions, from the latents `s` alone."""
        now, found = torch.from_numpy(s), []
        for each in torch.from_numpy(action).unbind(1):
            now = self.step(now, each)
            found.append(now)
        return torch.stack(found, 1).numpy()


def fit_linear_dynamics(
    s: Float[np.ndarray, "n t d"],
    action: Float[np.ndarray, "n u a"],
    held: Bool[np.ndarray, " n"],
    l2: Sequence[float] = L2_STRENGTHS,
) -> LinearDynamics:
    """The model of all transitions; its strength is the best one on the samples `held`, see `choose_reader`."""
    frames = s.reshape(-1, s.shape[-1]).astype(np.float64)
    mean, axes = frames.mean(0), principal_axes(frames)
    z = (s - mean) @ axes
    steps, r = action.shape[1], axes.shape[1]
    now = np.concatenate([z[:, :-1], action], -1).reshape(-1, r + action.shape[-1])
    change = np.diff(z, axis=1).reshape(-1, r, 1)
    reader, _ = choose_reader(now, change, np.repeat(held, steps), l2)
    weight = reader.weight / reader.std[:, None]
    parts = (mean, axes, weight[:r], weight[r:], reader.bias - reader.mean @ weight)
    return LinearDynamics(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def principal_axes(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "d r"]:
    """The directions in which the rows, MAX_ROWS of them, vary most: MAX_DIRECTIONS, or all axes if D is no larger."""
    if rows.shape[1] <= MAX_DIRECTIONS:
        return np.eye(rows.shape[1])
    rows = rows[:: -(-len(rows) // MAX_ROWS)]
    centred = rows - rows.mean(0)
    axes: np.ndarray
    if len(centred) >= centred.shape[1]:
        axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :MAX_DIRECTIONS]
        return axes
    power, along = np.linalg.eigh(centred @ centred.T)
    kept = power > power[-1] * 1e-10
    axes = (centred.T @ along[:, kept] / np.sqrt(power[kept]))[:, ::-1][:, :MAX_DIRECTIONS]
    return axes
