"""Records a trained R-JEPA on scanpaths: features of every fixation, states, predictions and gates."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...data.scanpaths.dataset import Scanpaths
from ...methods.rjepa import RJEPA
from ...types import unit


class States(NamedTuple):
    """States of every level on N sequences of T frames, bottom first; the top's predicted next states and its gates.

    Positions and features of a map share one axis.
    """

    levels: tuple[Float[np.ndarray, "t n _"], ...]
    pred: Float[np.ndarray, "t1 n w"]
    gate: Float[np.ndarray, "t n v"]

    @property
    def h(self) -> Float[np.ndarray, "t n w"]:
        """The states of the top level."""
        return self.levels[-1]


@torch.no_grad()
def encode_fixations(
    method: RJEPA, data: Scanpaths, ids: Int64[np.ndarray, " n"]
) -> tuple[Float[Tensor, "t n d h w"], Float[Tensor, "t1 n a"]]:
    """The encoder's feature maps of the fixations in some scanpaths, and the saccades between them."""
    clips = [data.clip(int(i), data.native, padded=True) for i in ids]
    x = method.normalize(unit(torch.stack([clip.x for clip in clips])))
    return method.maps(x), torch.stack([clip.action for clip in clips]).transpose(0, 1)


@torch.no_grad()
def record_circuit(
    method: RJEPA, y: Float[Tensor, "t n d h w"], action: Float[Tensor, "t1 n a"] | None = None
) -> States:
    """The circuit's states over a sequence of features; without `action` the predictor gets no saccade."""
    circuits = method.circuits
    cell, states = circuits.top.cell, circuits.start(y.shape[1])
    shown: list[list[Tensor]] = []
    gates, top = [], []
    for rows in circuits.read(y).unbind():
        before = states
        states, read = circuits.step(states, rows)
        gates.append(cell.gate(before[-1], cell.drive(read[-1])).reshape(y.shape[1], -1))
        lower = zip(circuits.levels[:-1], states[:-1], strict=True)
        shown.append([level.maps(state).flatten(1) for level, state in lower])
        top.append(circuits.shown(states[-1]))
    h = torch.stack(top)
    pred = method.predict(h[:-1], action).flatten(2).numpy()
    levels = (*(torch.stack(each).numpy() for each in zip(*shown, strict=True)), h.flatten(2).numpy())
    return States(levels, pred, torch.stack(gates).numpy())
