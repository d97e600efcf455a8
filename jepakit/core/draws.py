"""Random numbers per item that depend on nothing but a seed and the item."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..types import Ids, Rng


def uniform_draws(rng: Rng, ids: Ids, draws: int) -> Float[np.ndarray, "b draws"]:
    """Uniform numbers in [0, 1) that depend only on `rng` (not on its step's batch) and on each id.

    A counter-based generator: the splitmix64 finaliser mixes the key with the id, and then with each draw's index.
    Source: Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    key = np.uint64(rng.generator().initial_seed())
    rows = _mix_bits(ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key)
    counters = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = _mix_bits(rows[:, None] + counters) >> np.uint64(11)
    numbers: np.ndarray = bits * 2.0**-53
    return numbers


def normal_draws(u: Float[np.ndarray, "b n"]) -> Float[Tensor, "b n"]:
    """Normal numbers from an even number of uniform ones in [0, 1). Source: Box & Muller, 1958."""
    half = u.shape[1] // 2
    radius = np.sqrt(-2 * np.log1p(-u[:, :half]))
    angle = 2 * np.pi * u[:, half:]
    return torch.from_numpy(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1))


def _mix_bits(x: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
