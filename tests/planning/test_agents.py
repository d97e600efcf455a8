"""The agents that a run is judged by tell a wrong model from a wrong energy."""

from dataclasses import dataclass

import torch
from costs import planner
from torch import Tensor
from worlds import Plane, plane_step, plane_tokens

from jepakit.core.progress import SilentProgress
from jepakit.inference.energies import Energies
from jepakit.inference.plan import GREEDY_MODEL, GREEDY_TRUE, PLANNER, Search, agents_of, run_agents
from jepakit.inference.world import World
from jepakit.methods.predictive import Predictive
from jepakit.planning.protocol import Protocol
from jepakit.types import Signal, State

PLANE = Protocol("plane", "CEM()", episodes=6, steps=14, success_radius=0.1, min_distance=0.5)


@dataclass(frozen=True)
class Config:
    """`mirrored`: actions move the imagined dot the wrong way. `turned`: the latent is the position without its x."""

    mirrored: bool = False
    turned: bool = False


class PlaneModel(Predictive):
    """The plane itself as a world model, right or wrong on purpose."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, Signal(2, (2,), action=Plane.action))

    def start(self, obs: Tensor) -> State:
        return State(self._latent(obs))

    def observe(self, state: State, obs: Tensor, action: Tensor | None = None) -> State:
        return self.start(obs)

    def step(self, state: State, action: Tensor | None = None, z: Tensor | None = None) -> State:
        assert action is not None
        moved = plane_step(state, -action if self.cfg.mirrored else action)
        return State(moved.tokens * self._mask(), moved.hidden)

    def _latent(self, obs: Tensor) -> Tensor:
        return plane_tokens(obs) * self._mask()

    def _mask(self) -> Tensor:
        return torch.tensor([0.0, 1.0]) if self.cfg.turned else torch.ones(2)


def scores(cfg: Config) -> dict[str, float]:
    """The successes of the agents in the plane by this model."""
    world = World(Plane(), Energies(PlaneModel(cfg)))
    search = planner("cem", iterations=5)
    agents = agents_of(world, search, Search(search, PLANE.horizon, "cem"), PLANE, diagnose=True)
    named = {name: agents[name] for name in (GREEDY_TRUE, GREEDY_MODEL, PLANNER)}
    return {name: found.score for name, found in run_agents(world, PLANE, named, SilentProgress()).items()}


def test_three_agents_tell_a_wrong_model_from_a_wrong_energy() -> None:
    assert scores(Config()) == {GREEDY_TRUE: 1, GREEDY_MODEL: 1, PLANNER: 1}
    mirrored = scores(Config(mirrored=True))
    assert mirrored[GREEDY_TRUE] == 1
    assert mirrored[GREEDY_MODEL] == mirrored[PLANNER] == 0
    assert max(scores(Config(turned=True)).values()) < 0.5
