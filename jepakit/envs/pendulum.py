"""Pendulum: swing up a rod by a torque too weak to lift it, and hold it there.

The dynamics and the reward are those of Gymnasium's Pendulum-v1, in float64: at the angle θ (0 is upright) with the
velocity ω and the torque u in [-2, 2],

    ω ← clip(ω + (3 g / (2 l) sin θ + 3 / (m l²) u) dt, -8, 8),   θ ← θ + ω dt,   reward -(θ² + 0.1 ω² + 0.001 u²)

with θ in [-π, π), g = 10, m = l = 1, dt = 0.05. The reward belongs to the state before the step.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.draws import uniform_draws
from ..types import ActionSpec, Ids, Rng
from .base import Environment, EnvState, Floor, Policy, Transition, grid_states
from .drawing import paint, thick_lines

GRAVITY: Final = 10.0
SECONDS: Final = 0.05
MAX_TORQUE: Final = 2.0
MAX_VELOCITY: Final = 8.0
EXTENT: Final = 1.3  # of the picture, from its middle, in lengths of the rod
ROD_RADIUS: Final = 0.15
MIN_PIXELS: Final = 16


@dataclass(frozen=True)
class Config:
    """Settings of Pendulum: what is observed, as numbers or as grey pictures of `size` pixels, and the time limit.

    With `hide_velocity` the numbers are (cos θ, sin θ) alone, so that one observation does not tell the state. A
    picture never shows the velocity.
    """

    observation: Literal["state", "pixels"] = "state"
    hide_velocity: bool = False
    size: int = 32
    time_limit: int = 200

    def __post_init__(self) -> None:
        if self.size < MIN_PIXELS:
            raise ValueError(f"size is {self.size}; a pendulum needs {MIN_PIXELS} pixels or more, such as 32")

    def build(self) -> "Pendulum":
        """The environment with these settings."""
        return Pendulum(self)


ENVS: Final = {
    "pendulum": Config(),
    "pendulum-pixels": Config(observation="pixels"),
}
DESCRIPTIONS: Final = {
    "pendulum": "Pendulum: swing up a rod and hold it; observed as (cos, sin, velocity)",
    "pendulum-pixels": "Pendulum, observed as grey pictures",
}


class Pendulum(Environment):
    """Pendulum as defined above. A state has `angle` and `velocity` (B,), in radians and seconds, float64."""

    action = ActionSpec(1, (-MAX_TORQUE,), (MAX_TORQUE,), names=("torque",))
    terminates = False
    factors_names = ("angle", "velocity")
    policies: ClassVar[tuple[str, ...]] = ("random", "scripted")

    def __init__(self, config: Config) -> None:
        self.config = config
        pixels = config.observation == "pixels"
        self.name = "pendulum-pixels" if pixels else "pendulum"
        self.channels = 1 if pixels else 3 - config.hide_velocity
        self.size = (config.size, config.size) if pixels else ()
        self.time_limit = config.time_limit

    def reset(self, ids: Ids, rng: Rng) -> EnvState:
        """Any angle, and a velocity from -1 to 1."""
        u = 2 * torch.from_numpy(uniform_draws(rng.fork("start"), ids, 2)) - 1
        return {"angle": math.pi * u[:, 0], "velocity": u[:, 1]}

    def step(self, state: EnvState, action: Float[Tensor, "b a"]) -> Transition:
        """One step of 0.05 seconds; an episode never terminates."""
        torque = self.admit(action).double()[:, 0]
        angle, velocity = state["angle"], state["velocity"]
        cost = upright_angle(angle).square() + 0.1 * velocity.square() + 0.001 * torque.square()
        faster = velocity + (1.5 * GRAVITY * angle.sin() + 3 * torque) * SECONDS
        velocity = faster.clamp(-MAX_VELOCITY, MAX_VELOCITY)
        moved = {"angle": angle + velocity * SECONDS, "velocity": velocity}
        return Transition(moved, -cost.float(), torch.zeros_like(cost, dtype=torch.bool), {})

    def observe(self, state: EnvState) -> Float[Tensor, "b c ..."]:
        """(cos θ, sin θ, ω), without ω if it is hidden; or pictures (B, 1, size, size)."""
        if self.size:
            return _rod(state, self.size[0])[:, None]
        numbers = [state["angle"].cos(), state["angle"].sin(), state["velocity"]][: self.channels]
        return torch.stack(numbers, 1).float()

    def factors(self, state: EnvState) -> dict[str, Float[Tensor, "b _"]]:
        """`angle` (B, 2) as (cos, sin) and `velocity` (B, 1)."""
        angle, velocity = state["angle"], state["velocity"]
        return {"angle": torch.stack([angle.cos(), angle.sin()], 1).float(), "velocity": velocity[:, None].float()}

    def draw(self, state: EnvState, size: int = 64) -> Float[Tensor, "b 3 h w"]:
        """A red rod on white, upright when the angle is 0."""
        return paint([_rod(state, size)], [(0.8, 0.3, 0.3)])

    def floor(self, state: EnvState, cells: int) -> Floor | None:
        """Angle by velocity; None if an observation does not show the velocity."""
        if self.channels < 3:
            return None
        angles = torch.linspace(-math.pi, math.pi, cells, dtype=torch.float64)
        velocities = torch.linspace(-MAX_VELOCITY, MAX_VELOCITY, cells, dtype=torch.float64)
        angle, velocity, _ = grid_states(state, angles, velocities)
        free = torch.ones(len(angle), dtype=torch.bool)
        return Floor({"angle": angle, "velocity": velocity}, angles, velocities, ("angle", "velocity"), free)

    def start_policy(self, policy: str, ids: Ids, rng: Rng, steps: int, hold: int) -> tuple[EnvState, Policy]:
        """`scripted` pumps energy into the swing and balances near the top; `random` draws each torque."""
        if policy != "scripted":
            return super().start_policy(policy, ids, rng, steps, hold)
        return self.reset(ids, rng), lambda n, state: _swing_up(state)


def upright_angle(angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The same angle in [-π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _swing_up(state: EnvState) -> Float[Tensor, "b 1"]:
    """The torque of a controller: with the swing as long as its energy is below that at the top, then to the top."""
    angle, velocity = upright_angle(state["angle"]), state["velocity"]
    missing = GRAVITY / 2 * (1 - angle.cos()) - velocity.square() / 6
    pump = MAX_TORQUE * torch.where(velocity < 0, -1.0, 1.0) * (4 * missing).clamp(-1, 1)
    balance = -12 * angle - 3 * velocity
    return torch.where(angle.abs() < 0.35, balance, pump)[:, None]


def _rod(state: EnvState, size: int) -> Float[Tensor, "b h w"]:
    # A positive angle turns anticlockwise, as in Gymnasium's own picture.
    tip = torch.stack([-state["angle"].sin(), state["angle"].cos()], 1)
    return thick_lines(torch.zeros_like(tip), tip, ROD_RADIUS, size, EXTENT)
