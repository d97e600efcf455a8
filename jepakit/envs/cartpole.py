"""CartPole: keep a pole upright on a cart, by pushing the cart to the left or to the right.

The dynamics, the reward (1 a step) and the end (the cart leaves ±2.4, or the pole ±12°) are those of Gymnasium's
CartPole-v1, in float64. Source: Barto, Sutton & Anderson, Neuronlike adaptive elements, 1983.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.draws import uniform_draws
from ..types import ActionSpec, Ids, Rng
from .base import Environment, EnvState, Policy, Transition
from .drawing import paint, thick_lines

GRAVITY: Final = 9.8
CART_MASS: Final = 1.0
POLE_MASS: Final = 0.1
HALF_POLE: Final = 0.5  # half the length of the pole
FORCE: Final = 10.0
SECONDS: Final = 0.02
MAX_POSITION: Final = 2.4
MAX_ANGLE: Final = 12 * math.pi / 180
START: Final = 0.05


@dataclass(frozen=True)
class Config:
    """Settings of CartPole: with `hide_velocity` an observation is (position, angle) alone; and the time limit."""

    hide_velocity: bool = False
    time_limit: int = 500

    def build(self) -> "CartPole":
        """The environment with these settings."""
        return CartPole(self)


class CartPole(Environment):
    """CartPole as defined above. A state has `motion` (B, 4): position, velocity, angle, angular velocity, float64.

    The actions are one-hot: left, right.
    """

    name = "cartpole"
    action = ActionSpec(2, discrete=True, names=("left", "right"))
    size = ()
    factors_names = ("position", "velocity", "angle", "rotation")
    policies: ClassVar[tuple[str, ...]] = ("random", "scripted")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.channels = 2 if config.hide_velocity else 4
        self.time_limit = config.time_limit

    def reset(self, ids: Ids, rng: Rng) -> EnvState:
        """Nearly at rest in the middle: each number from -0.05 to 0.05."""
        return {"motion": START * (2 * torch.from_numpy(uniform_draws(rng.fork("start"), ids, 4)) - 1)}

    def step(self, state: EnvState, action: Float[Tensor, "b a"]) -> Transition:
        """One step of 0.02 seconds; `terminated` where the cart or the pole has left its bounds."""
        push = self.admit(action).double()
        _, velocity, angle, rotation = state["motion"].unbind(1)
        sin, cos, mass = angle.sin(), angle.cos(), CART_MASS + POLE_MASS
        drive = (FORCE * (push[:, 1] - push[:, 0]) + POLE_MASS * HALF_POLE * rotation.square() * sin) / mass
        turn = (GRAVITY * sin - cos * drive) / (HALF_POLE * (4 / 3 - POLE_MASS * cos.square() / mass))
        speed_up = drive - POLE_MASS * HALF_POLE * turn * cos / mass
        rates = torch.stack([velocity, speed_up, rotation, turn], 1)
        motion = state["motion"] + SECONDS * rates
        out = (motion[:, 0].abs() > MAX_POSITION) | (motion[:, 2].abs() > MAX_ANGLE)
        return Transition({"motion": motion}, torch.ones(len(out), device=out.device), out, {})

    def observe(self, state: EnvState) -> Float[Tensor, "b c ..."]:
        """(position, velocity, angle, angular velocity), without velocities if they are hidden."""
        return state["motion"][:, :: 2 if self.config.hide_velocity else 1].float()

    def factors(self, state: EnvState) -> dict[str, Float[Tensor, "b _"]]:
        """`position`, `velocity`, `rotation` (B, 1), and `angle` (B, 2) as (cos, sin)."""
        position, velocity, angle, rotation = state["motion"].float().unbind(1)
        return {
            "position": position[:, None],
            "velocity": velocity[:, None],
            "angle": torch.stack([angle.cos(), angle.sin()], 1),
            "rotation": rotation[:, None],
        }

    def draw(self, state: EnvState, size: int = 64) -> Float[Tensor, "b 3 h w"]:
        """A black cart with a brown pole on its track; the picture shows the whole track."""
        position, _, angle, _ = state["motion"].float().unbind(1)
        zero = torch.zeros_like(position)
        cart = torch.stack([position, zero - 0.6], 1)
        tip = cart + torch.stack([angle.sin(), angle.cos()], 1)
        end = torch.stack([zero + MAX_POSITION, zero - 0.6], 1)
        side = cart.new_tensor([0.2, 0.0])
        lines = [
            (end * cart.new_tensor([-1, 1]), end, 0.02),
            (cart - side, cart + side, 0.13),
            (cart, tip, 0.06),
        ]
        shapes = [thick_lines(a, b, radius, size, MAX_POSITION + 0.2) for a, b, radius in lines]
        return paint(shapes, [(0.6, 0.6, 0.6), (0.1, 0.1, 0.1), (0.7, 0.5, 0.3)])

    def start_policy(self, policy: str, ids: Ids, rng: Rng, steps: int, hold: int) -> tuple[EnvState, Policy]:
        """`scripted` balances by a linear rule; `random` tosses a coin."""
        if policy != "scripted":
            return super().start_policy(policy, ids, rng, steps, hold)
        return self.reset(ids, rng), lambda n, state: _balance(state)


def _balance(state: EnvState) -> Float[Tensor, "b 2"]:
    """A push to the side to which the pole is about to fall, corrected for where the cart is going."""
    gains = state["motion"].new_tensor([0.05, 0.1, 1.0, 0.3])
    right = (state["motion"] * gains).sum(1) > 0
    return torch.stack([~right, right], 1).float()
