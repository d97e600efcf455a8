"""Methods that unfold in time, as planners, streams and environment loops use them."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..core.notes import Note
from ..types import Signal, Size, State
from .base import Method


class Predictive(Method):
    """A method with a state: `start` from a frame, `observe` the next real one, `step` to an imagined one.

    A frame is one raw time step: (B, C, H, W) of a video, (B, C, p) of a series cut into patches of p steps. An action
    (B, A) is the one that leads to the frame, of a frame of several steps to its first. Later frames and actions never
    change a state; the contract checks it.
    """

    @classmethod
    def fit_config(
        cls, cfg: Any, signal: Signal, proposal: tuple[Size, str] | None = None, frames: bool = True
    ) -> tuple[Any, list[Note]]:
        """As `Method.fit_config`; a patch of video that was left open is a whole frame."""
        return super().fit_config(cfg, signal, proposal, frames)

    def start(self, obs: Float[Tensor, "b c ..."]) -> State:
        """The state after one frame."""
        raise NotImplementedError

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Float[Tensor, "b a"] | None = None) -> State:
        """The state after a further frame, to which `action` led."""
        raise NotImplementedError

    def step(self, state: State, action: Float[Tensor, "b a"] | None = None, z: Tensor | None = None) -> State:
        """The state that the method predicts after `action`, no frame seen."""
        raise NotImplementedError
