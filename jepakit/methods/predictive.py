"""The base class of methods with a state that unfolds in time, for planners, streams and environment loops."""

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ..core.notes import Note
from ..types import Signal, Size, State
from .base import Method


class Predictive(Method):
    """A method with a state: `start` from a frame, `observe` the next real frame, `step` to an imagined one.

    A frame is one raw time step: (B, C, H, W) of a video, (B, C, p) of a series cut into patches of p steps. An action
    (B, A) is the one that leads to the frame, or to the first of its steps. Later frames and actions never change a
    state; the contract checks this. `judges_dynamics` says that `diagnostics` hold what the verdict reads of a world
    model (`collapse.DYNAMICS_KEYS`).
    """

    judges_dynamics: ClassVar[bool] = False

    @classmethod
    def fit_config(
        cls, cfg: Any, signal: Signal, proposal: tuple[Size, str] | None = None, frames: bool = True
    ) -> tuple[Any, list[Note]]:
        """As `Method.fit_config`; an auto patch of a video is a whole frame."""
        return super().fit_config(cfg, signal, proposal, frames)

    def start(self, obs: Float[Tensor, "b c ..."]) -> State:
        """The state after one frame."""
        raise NotImplementedError

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Float[Tensor, "b a"] | None = None) -> State:
        """The state after a new frame, to which `action` led."""
        raise NotImplementedError

    def step(self, state: State, action: Float[Tensor, "b a"] | None = None, z: Tensor | None = None) -> State:
        """The state that the method predicts after `action`, without a frame."""
        raise NotImplementedError
