"""A trained world model as a policy that collects data: it acts by planning, with some random actions if asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs import Episodes, SimulationError
from ..planning.energy import Kind, Reduce
from ..planning.mpc import Act, Episode, mpc
from ..planning.plan import Planner
from ..run import checkpoint, parse
from ..types import Ids, Rng
from .energies import Source
from .plan import HORIZON, choose_planner, describe_planner
from .world import World, environment_settings, open_world


@dataclass(frozen=True)
class Planning:
    """How a run acts: the search and its energy, as in `plan_run`, and the share `noise` of random actions."""

    planner: str = "cem"
    horizon: int = HORIZON
    replan_every: int = 1
    noise: float = 0.0
    source: Source = "auto"
    distance: Kind = "l2"
    reduce: Reduce = "sum"

    @classmethod
    def of(cls, changes: Mapping[str, Any]) -> "Planning":
        """The defaults with these changes. Raises ValueError for an unknown field."""
        found: Planning = parse.apply_changes(cls(), changes, "planning")
        return found


@dataclass(frozen=True)
class RunPolicy:
    """A checkpoint of a run that plans in an environment.

    `settings` are those of the environment and `knobs` those of the planner, as {"cem.samples": 300}. The policy is
    small, so that every process gets it and opens the run by itself.
    """

    run: Path
    step: int | None
    environment: str
    settings: Mapping[str, Any]
    planning: Planning
    knobs: Mapping[str, Any]

    def open(self) -> tuple[World, Planner]:
        """The run in its environment, and the search. Raises ValueError if they do not fit."""
        how = self.planning
        world = open_world(
            checkpoint.load_run(self.run, self.step), self.run, self.environment, self.settings,
            source=how.source, distance=how.distance, reduce=how.reduce,
        )  # fmt: skip
        return world, choose_planner(how.planner, self.knobs)

    def describe(self, world: World, planner: Planner) -> dict[str, Any]:
        """What the actions depend on beside the environment: the weights, the energy and the search."""
        how, energies = self.planning, world.energies
        parts = {"world model": energies.method, "metric": energies.metric, "value": energies.value}
        return {
            "step": self.step,
            "weights": {name: checkpoint.module_hash(part) for name, part in parts.items() if part is not None},
            "energy": energies.describe(world.env.has_goal),
            "planner": describe_planner(how.planner, planner),
            "horizon": how.horizon,
            "replan_every": how.replan_every,
            "noise": how.noise,
        }

    def play(self, world: World, planner: Planner, ids: Ids, rng: Rng, steps: int) -> Episodes:
        """The episodes `ids` of at most `steps` steps, from starts, and to goals, of their own.

        Episode `id` depends on `rng` and its id; how many are planned together changes it by rounding, and so
        sometimes by much. Raises SimulationError if the environment raises one.
        """
        env, how = world.env, self.planning
        start, goal = env.tasks(ids, rng) if env.has_goal else (env.reset(ids, rng), None)
        agent: Act = world.planning(planner, how.horizon, how.replan_every, how.noise)(goal)
        rows = Rng(rng.seed, rng.step, 0, int(ids.max()) + 1, (*rng.path, "plan"), tuple(ids.tolist()))
        played = mpc(env, start, agent, steps, block=world.energies.form.every, rng=rows)
        for row, reason in played.failed.items():
            raise SimulationError(f"the environment failed in episode {ids[row]}: {reason}", row)
        return observe_episode(world, played)


def open_policy(
    run: Path, environment: str, settings: Mapping[str, Any], knobs: Mapping[str, Any], planning: Planning
) -> tuple[RunPolicy, dict[str, Any], World]:
    """The newest checkpoint of a run as a policy, what it depends on, and its world.

    `settings` are the environment's own. Raises ValueError, with the remedy, if run, environment, planner and energy do
    not fit: the first step is tried.
    """
    loaded = checkpoint.load_run(run)
    own = environment_settings(environment, settings, getattr(loaded.run.data, "size", None))
    policy = RunPolicy(run, loaded.step, environment, own, planning, knobs)
    world, planner = policy.open()
    policy.play(world, planner, np.zeros(1, dtype=np.int64), Rng(0), 1)
    return policy, policy.describe(world, planner), world


def observe_episode(world: World, played: Episode) -> Episodes:
    """What was played, with its observations and the truth at every frame, as `Environment.behave` has them."""
    env, frames = world.env, played.action.shape[1] + 1
    action = torch.stack([env.admit(single) for single in played.action.unbind(1)], 1)
    last = torch.arange(1, frames) == played.length[:, None]
    truth = env.factors({name: value.flatten(0, 1) for name, value in played.states.items()})
    factors: dict[str, Tensor] = {name: v.reshape(len(action), frames, -1) for name, v in truth.items()}
    done = last & played.terminated[:, None]
    x = env.observe_path(played.states)
    return Episodes(x, action, played.reward, done, played.length, played.states, factors)
