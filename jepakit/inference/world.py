"""A world: a trained world model in an environment, and the agents that act there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import devices
from ..envs import ENVS, Environment, EnvState, build_environment
from ..evals.transitions import proprio_size
from ..planning.energy import Energy
from ..planning.mpc import Act, Seen, exploring_agent, model_perception, planning_agent, random_agent, true_state
from ..planning.oracle import TrueEnergy, encoded_energy, true_cost, true_distance, true_return
from ..planning.plan import Cost, Planner
from ..planning.protocol import AgentOf
from ..planning.rollout import rollout_cost
from ..run import parse
from ..run.checkpoint import LoadedRun
from ..types import Rng, State
from .energies import Energies, open_energies

Memory = tuple[State, Tensor]
"""The model's state, and the last frames, which are stacked with the next one."""


@dataclass(frozen=True, eq=False)
class World:
    """A model's energies, and the environment that it acts in."""

    env: Environment
    energies: Energies

    def encode(self, frames: Tensor) -> Tensor:
        """The tokens (R, N, D) of frames (R, C, *size) of the environment."""
        return self.energies.encode(frames)

    def energy_of(self, goal: EnvState | None) -> Energy:
        """The energy of paths to the goals of B episodes, or that of rewards where there are none."""
        return self.energies.of_goal(None if goal is None else self.encode(self.env.observe(goal)))

    def perceive(self, seen: Seen, before: Memory | None) -> Memory:
        """The model's state after what was seen."""
        form, method = self.energies.form, self.energies.method
        frames = seen.x if before is None else torch.cat([before[1], seen.x], 1)
        first, count = frames.shape[1] - seen.x.shape[1], seen.x.shape[1]
        x = torch.stack([form.stack_frames(frames[:, : first + k + 1]) for k in range(count)], 1)
        follow = model_perception(method.start, method.observe, method.mean.device)
        state = follow(Seen(x, form.fold(seen.action), seen.state), None if before is None else before[0])
        return state, frames[:, -form.stack :]

    # --- costs

    def cost_on_model(self, goal: EnvState | None) -> Callable[[Memory], Cost]:
        """What the energy says of actions from what was perceived, as the model imagines them."""
        energy, step = self.energy_of(goal), self.energies.method.step
        return lambda now: rollout_cost(step, energy, now[0])

    def cost_on_truth(self, goal: EnvState | None) -> Callable[[EnvState], Cost]:
        """What the same energy says of actions from a state, as the environment does them; it can be copied."""
        return self._true_cost(encoded_energy(self.env, self.encode, self.energy_of(goal)))

    # --- agents

    def planning(self, planner: Planner, horizon: int, replan_every: int = 1, noise: float = 0.0) -> AgentOf:
        """The agents that plan on the model; a share `noise` of their actions is random."""
        return lambda goal: self._act(self.perceive, self.cost_on_model(goal), planner, horizon, replan_every, noise)

    def planning_on_truth(self, planner: Planner, horizon: int, replan_every: int = 1) -> AgentOf:
        """The agents that plan by the model's energy on the true dynamics."""
        return lambda goal: self._act(true_state, self.cost_on_truth(goal), planner, horizon, replan_every)

    def oracle(self, planner: Planner, horizon: int, replan_every: int = 1) -> AgentOf:
        """The agents that plan alike on the true dynamics, by the true way to go or the true return."""

        def agent(goal: EnvState | None) -> Act:
            reduce = self.energies.reduce
            energy = true_return() if goal is None else true_distance(self.env, goal, reduce=reduce)
            return self._act(true_state, self._true_cost(energy), planner, horizon, replan_every)

        return agent

    def random(self, goal: EnvState | None) -> Act:
        """The agent that draws its actions."""
        return self._in_environment(random_agent(self.energies.spec))

    def _true_cost(self, energy: TrueEnergy) -> Callable[[EnvState], Cost]:
        def cost_of(state: EnvState) -> Cost:
            cost = true_cost(self.env, state, energy)
            # Environments are on the processor, wherever the model plans.
            return lambda actions: cost(self.energies.form.unfold(actions).cpu()).to(actions.device)

        return cost_of

    def _act(
        self,
        perceive: Callable[[Seen, Any], Any],
        cost_of: Callable[[Any], Cost],
        planner: Planner,
        horizon: int,
        replan_every: int,
        noise: float = 0.0,
    ) -> Act:
        spec, device = self.energies.spec, self.energies.method.mean.device
        agent = planning_agent(perceive, cost_of, planner, spec, horizon, replan_every, device)
        return self._in_environment(exploring_agent(agent, spec, noise) if noise else agent)

    def _in_environment(self, agent: Act) -> Act:
        """An agent whose actions are the model's, as one whose actions are blocks of the environment's."""

        def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
            actions, memory = agent(seen, memory, rng)
            return self.energies.form.unfold(actions.cpu()), memory

        return act


def open_world(
    loaded: LoadedRun,
    run: Path,
    environment: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> World:
    """The world of a run: by default in the environment that generated its data; `settings` are the environment's own.

    `options` are those of `open_energies`. Raises ValueError, with the remedy, if the run is no world model, if the
    environment is unknown or does not fit the model, or if the model lacks what the energy is made of.
    """
    energies = open_energies(loaded, run, **options)
    data: Any = loaded.run.data
    name = environment or data.path
    kind = name.partition(":")[0]
    if kind not in ENVS.names():
        raise ValueError(
            f"{run} was trained on {name!r}, which is no environment; name one as --env NAME "
            f"({', '.join(ENVS.names())} or gym:ID)"
        )
    env = build_environment(name, **environment_settings(name, settings or {}, getattr(data, "size", None)))
    check_fit(env, energies, name)
    energies.choose(env.has_goal)
    device, _ = devices.best_device()
    for part in (energies.method, energies.metric, energies.value):
        if part is not None:
            part.to(device)
    return World(env, energies)


def environment_settings(name: str, changes: Mapping[str, Any], size: tuple[int, int] | None = None) -> dict[str, Any]:
    """An environment's own settings as their types ask; pictures have the `size` of a model's unless they say another.

    Raises ValueError for an unknown environment, or a setting that it lacks or that does not fit.
    """
    kind = name.partition(":")[0]
    config: Any = ENVS.load(kind)
    sized = size is not None and "size" in {f.name for f in fields(config)}
    own = {**({"size": int(size[0])} if sized and size else {}), **changes}
    changed = parse.apply_changes(config, own, "env")
    return {key: getattr(changed, key) for key in own}


def check_fit(env: Environment, energies: Energies, name: str) -> None:
    """Raise ValueError if a model's frames or actions are not those of an environment."""
    signal, spec, form = energies.method.signal, energies.spec, energies.form
    seen = (env.channels * form.stack, *env.size)
    wanted = (signal.channels, *signal.size[1:])
    if seen != wanted:
        raise ValueError(
            f"{name} shows frames of {_shape(seen)}, but the model was trained on {_shape(wanted)}; "
            "give an environment like its data, or its settings as --env.KEY VALUE"
        )
    if (env.action.size * form.block, env.action.discrete) != (spec.size, spec.discrete):
        kinds = ["choices" if discrete else "numbers" for discrete in (env.action.discrete, spec.discrete)]
        raise ValueError(
            f"{name} takes actions of {env.action.size * form.block} {kinds[0]}, but the model was trained on "
            f"{spec.size} {kinds[1]}; give an environment like its data"
        )
    if proprio_size(energies.method):
        raise ValueError(f"the model reads proprioception, which {name} does not show; train one with method.proprio 0")


def _shape(sides: tuple[int, ...]) -> str:
    return f"{sides[0]} channels" + (f" of {' x '.join(map(str, sides[1:]))} px" if sides[1:] else "")
