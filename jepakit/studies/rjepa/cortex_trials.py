"""Runs trials on the features of held-out scanpaths: it exchanges, repeats or independently draws fixations."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from ...methods.rjepa import RJEPA
from ...types import Rng
from .rjepa_states import States, record_circuit

AT, REPEATED, REPEATS = 5, 4, 6  # fixations, counted from 1
WINDOW, SEQUENCES = 40, 256
OWN, SAME, OTHER = TRIAL_PARTS = ("own", "same picture", "other picture")
MIN_PER_PICTURE: Final = 2


class HeldScanpaths(NamedTuple):
    """Scanpaths: features, saccades, the number of fixations of each (the rest is padding), and its picture."""

    y: Float[Tensor, "t n d h w"]
    action: Float[Tensor, "t1 n a"]
    length: Int64[np.ndarray, " n"]
    picture: Int64[np.ndarray, " n"]

    def select(self, rows: Int64[np.ndarray, " k"]) -> "HeldScanpaths":
        """The scanpaths in `rows`."""
        at = torch.from_numpy(rows)
        return HeldScanpaths(self.y[:, at], self.action[:, at], self.length[rows], self.picture[rows])

    @property
    def real(self) -> Shaped[np.ndarray, "t n"]:
        """A mask of the fixations that are real, not padding."""
        there: np.ndarray = np.arange(len(self.y))[:, None] < self.length
        return there


class Swap(NamedTuple):
    """States with one fixation its own, from the same picture, or from another; `part` has the original scanpaths."""

    part: HeldScanpaths
    states: Mapping[str, States]

    def errors(self, name: str) -> Float64[np.ndarray, "t1 n"]:
        """The prediction error at every fixation after the first, over the unswapped states' variance at that step."""
        each: np.ndarray = prediction_error(self.states[name]) / state_variance(self.states[OWN].h[1:])[:, None]
        return each


def other_picture(picture: Int64[np.ndarray, " n"], rng: Rng) -> Int64[np.ndarray, " n"]:
    """A partner from another picture for each scanpath; each is a partner once. Raises ValueError if there is none.

    Scanpaths are ordered by picture, in random picture order; a partner's offset is the largest number of scanpaths of
    any picture.
    """
    names, place, counts = np.unique(picture, return_inverse=True, return_counts=True)
    if 2 * counts.max() > len(picture):
        raise ValueError(
            f"one of {len(names)} held-out pictures has {counts.max()} of their {len(picture)} scanpaths, so fixations "
            "cannot be exchanged with other pictures; give more pictures"
        )
    drawn = torch.randperm(len(names), generator=rng.generator()).numpy()
    order = np.argsort(drawn[place], kind="stable")
    found = np.empty_like(order)
    found[order] = np.roll(order, -int(counts.max()))
    return found


def same_picture(picture: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """A partner from the same picture for each scanpath, each used once; a lone scanpath is its own partner."""
    found = np.arange(len(picture))
    for name in np.unique(picture):
        rows = np.flatnonzero(picture == name)
        found[rows] = np.roll(rows, -1)
    return found


def swap_fixation(method: RJEPA, held: HeldScanpaths, rng: Rng) -> Swap:
    """The states with one fixation exchanged; all three parts contain the same patches, only in different scanpaths."""
    long = held.select(np.flatnonzero(held.length >= AT))
    names, counts = np.unique(long.picture, return_counts=True)
    part = long.select(np.flatnonzero(np.isin(long.picture, names[counts >= MIN_PER_PICTURE])))
    found = {OWN: record_circuit(method, part.y, part.action)}
    for name, partner in ((SAME, same_picture(part.picture)), (OTHER, other_picture(part.picture, rng))):
        y = part.y.clone()
        y[AT - 1] = part.y[AT - 1, torch.from_numpy(partner)]
        found[name] = record_circuit(method, y, part.action)
    return Swap(part, found)


def draw_independent(method: RJEPA, held: HeldScanpaths, rng: Rng) -> States:
    """The states on sequences of fixations drawn independently from all scanpaths: only the circuit links them."""
    step, sample = torch.from_numpy(np.argwhere(held.real)).T
    drawn = torch.randint(len(step), (WINDOW, SEQUENCES), generator=rng.generator())
    return record_circuit(method, held.y[step[drawn], sample[drawn]])


def repeat_fixation(method: RJEPA, held: HeldScanpaths) -> Mapping[str, Float64[np.ndarray, " r"]]:
    """Responses to repeats of one fixation, then to the next fixation, and last to that one in its own scanpath.

    `change` is ‖h_t − h_{t−1}‖, `error` the prediction error, and `response` |h − mean| over the deviation, where mean
    and deviation are those of the states after REPEATED fixations. All are means over scanpaths and units. Saccades of
    repeats are zero.
    """
    part, k = held.select(np.flatnonzero(held.length > REPEATED)), REPEATED - 1
    y, action = part.y, part.action
    again = torch.cat([y[:k], y[k : k + 1].expand(REPEATS, *y.shape[1:]), y[k + 1 : k + 2]])
    still = torch.zeros_like(action[:1]).expand(REPEATS - 1, *action.shape[1:])
    found = record_circuit(method, again, torch.cat([action[:k], still, action[k : k + 1]]))
    plain = record_circuit(method, y[: k + 2], action[: k + 1])
    mean, std = plain.h[k].mean(0), np.maximum(plain.h[k].std(0), 1e-12)
    spread = float(state_variance(plain.h[k : k + 1])[0])

    def measured(each: States) -> dict[str, np.ndarray]:
        response = np.abs((each.h[1:] - mean) / std)
        return {
            "change": state_change(each.h).mean(1),
            "error": prediction_error(each).mean(1) / spread,
            "response": response.mean((1, 2), dtype=np.float64),
        }

    # The first entry of each belongs to the second fixation.
    there = measured(plain)
    return {name: np.append(curve[k - 1 :], there[name][k]) for name, curve in measured(found).items()}


def prediction_error(found: States) -> Float64[np.ndarray, "t1 n"]:
    """The mean squared difference between every state after the first and its prediction."""
    each: np.ndarray = np.square(found.pred - found.h[1:], dtype=np.float64).mean(2)
    return each


def state_variance(h: Float[np.ndarray, "t n w"]) -> Float64[np.ndarray, " t"]:
    """The variance over samples at each step, averaged over units: the error of the best constant."""
    each: np.ndarray = np.maximum(h.var(1, dtype=np.float64).mean(1), 1e-12)
    return each


def state_change(h: Float[np.ndarray, "t n w"]) -> Float64[np.ndarray, "t1 n"]:
    """The change ‖h_t − h_{t−1}‖ at every step after the first."""
    each: np.ndarray = np.linalg.norm(np.diff(h.astype(np.float64), axis=0), axis=2)
    return each
