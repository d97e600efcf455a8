"""The energy that a planner descends, to be looked at: over two numbers of an action, and over the floor of a world.

A learned distance falls along the way around a wall; a raw latent distance falls straight at it. Both stand beside the
true way to go, with their rank correlation and with the share of places from which steepest descent, from place to
neighbouring place and never through a wall, ends at the goal.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..envs import EnvState, Floor
from ..evals.metrics.ranks import spearman
from ..planning.energy import Energy
from ..planning.landscape import Axis, arrives, downhill, energy_map, open_moves
from ..planning.mpc import Seen
from ..planning.plan import Planner, single_action, start_plan
from ..planning.protocol import Outcome, Protocol, Tasks, draw_tasks
from ..types import Rng
from .films import chosen_rows, label_episode, pick_tasks
from .world import World

FLOOR_CELLS: Final = 33
NUM_GOALS: Final = 8
"""Goals that the numbers on the floor are means over."""
ACTION_POINTS: Final = 25
ENCODED_AT_ONCE: Final = 512

TRUE_WAY: Final = "true way to go"
TRUE_REWARD: Final = "true reward of the next step, negative"
STRAIGHT: Final = "straight line"
ON_MODEL: Final = "on the model"
ON_TRUTH: Final = "on the true dynamics"


class Landscapes(NamedTuple):
    """What is written: numbers and names for the result, and arrays for the pictures of a few episodes.

    `floor_energy` (E, M, Y, X) holds one picture per episode and map, NaN where nothing can be, `floor_downhill`
    (E, M, Y, X) the number of the place that each leads down to, `floor_arrives` (E, M, Y, X) whether the way down
    from there ends at the goal, `floor_ends` (E, 2) the numbers of the places nearest
    to start and goal, and `floor_x`, `floor_y` the values of the grid. `action_energy` (E, M, Y, X) with `action_x`,
    `action_y` and the planner's choice (E, 2) are the energies over two numbers of the first plan.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@torch.no_grad()
def measure_landscapes(world: World, protocol: Protocol, search: Planner, outcome: Outcome) -> Landscapes:
    """The energies of the episodes that a film shows; those that the environment or its actions have no picture of
    are left out."""
    tasks, rows = draw_tasks(world.env, protocol), chosen_rows(outcome)
    shown = pick_tasks(tasks, rows)
    found = [measure_floor(world, tasks, shown), measure_actions(world, protocol, search, shown)]
    facts = {key: value for part in found for key, value in part.facts.items()}
    if facts:
        facts["downward"] = bool(world.env.size)  # as in the environment's pictures
        facts["episodes"] = [label_episode(outcome, row) for row in rows]
    return Landscapes(facts, {key: value for part in found for key, value in part.arrays.items()})


# --- over the floor


Maps = dict[str, Float[Tensor, "y x"]]
"""Named energies of the places of a floor."""


def measure_floor(world: World, tasks: Tasks, shown: Tasks) -> Landscapes:
    """The energy of every place, with numbers on the way to several goals where there are goals."""
    floor = world.env.floor(_row(shown.start, 0), FLOOR_CELLS)
    if floor is None:
        return Landscapes({}, {})
    # Without a goal, the energy of a place is that of every episode.
    count = len(shown.ids) if world.env.has_goal else 1
    pictures = [map_places(world, _row(shown.start, k), _goal(shown, k)) for k in range(count)]
    facts: dict[str, Any] = {"axes": list(floor.names), "maps": list(pictures[0][1])}
    arrays = {
        "floor_x": floor.x.numpy(),
        "floor_y": floor.y.numpy(),
        "floor_energy": np.stack([_stack(maps) for _, maps in pictures]).astype(np.float32),
    }
    if shown.goal is not None:
        facts |= rate_maps(world, tasks)
        leads = [_lead_down(world, own, maps) for own, maps in pictures]
        arrays["floor_downhill"] = np.stack([_stack(each) for each in leads]).astype(np.int32)
        arrays["floor_arrives"] = np.stack(
            [
                _stack({name: arrives(world.env, own, lead, _row(shown.goal, k)) for name, lead in each.items()})
                for k, ((own, _), each) in enumerate(zip(pictures, leads, strict=True))
            ]
        )
        arrays["floor_ends"] = np.array(
            [
                [_nearest(world, own, _row(end, k)) for end in (shown.start, shown.goal)]
                for k, (own, _) in enumerate(pictures)
            ]
        )
    return Landscapes({"floor": facts}, arrays)


def rate_maps(world: World, tasks: Tasks) -> dict[str, Any]:
    """`correlation` with the true way to go, and `arrives`: the share of places that lead to the goal, by map.

    Means over the first goals of the protocol. The straight line is what knows no walls.
    """
    count = min(NUM_GOALS, len(tasks.ids))
    scores: dict[str, list[tuple[float, float]]] = {}
    for k in range(count):
        goal = _goal(tasks, k)
        assert goal is not None
        floor, maps = map_places(world, _row(tasks.start, k), goal)
        free = floor.free.reshape(maps[TRUE_WAY].shape)
        maps[STRAIGHT] = _fill(floor, world.env.distance(floor.states, _repeat(goal, len(floor.free))))
        truth = maps[TRUE_WAY][free].numpy()
        for name, leads in _lead_down(world, floor, maps).items():
            share = float(arrives(world.env, floor, leads, goal)[free].float().mean())
            score = spearman(maps[name][free].numpy(), truth), share
            scores.setdefault(name, []).append(score)
    means = {name: np.mean(values, 0).tolist() for name, values in scores.items()}
    return {
        "goals": count,
        "correlation": {name: mean[0] for name, mean in means.items() if name != TRUE_WAY},
        "arrives": {name: mean[1] for name, mean in means.items()},
    }


def map_places(world: World, state: EnvState, goal: EnvState | None) -> tuple[Floor, Maps]:
    """The energies of the places in the world of `state`, NaN where nothing can be: the truth first, then the model's.

    With a goal, the true way to go, the energy of plans, and the raw latent distance. Else what the rewards say.
    """
    floor = world.env.floor(state, FLOOR_CELLS)
    assert floor is not None
    tokens = torch.cat([world.encode(part) for part in torch.split(world.env.observe(floor.states), ENCODED_AT_ONCE)])
    energies, maps = world.energies, Maps()
    if goal is None:
        action = torch.zeros(len(floor.free), world.env.action.size)
        maps[TRUE_REWARD] = _fill(floor, -world.env.step(floor.states, action).reward)
        kinds = {energies.name_energy(False): energies}
    else:
        maps[TRUE_WAY] = _fill(floor, world.env.way_to_go(floor.states, _repeat(goal, len(floor.free))))
        raw = dataclasses.replace(energies, source="latent")
        kinds = {own.name_energy(True): own for own in (energies, raw)}
    wanted = None if goal is None else world.encode(world.env.observe(goal))
    for name, own in kinds.items():
        maps[name] = _fill(floor, energy_of_places(own.of_goal(wanted), tokens, energies.spec.size))
    return floor, maps


def energy_of_places(energy: Energy, tokens: Float[Tensor, "r n d"], action_size: int) -> Float[Tensor, " r"]:
    """The energy of paths that stay where they are for one step without an action."""
    parts = torch.split(tokens, ENCODED_AT_ONCE)
    paths = [part[None, :, None].expand(-1, -1, 2, -1, -1) for part in parts]
    return torch.cat([energy(p, p.new_zeros(1, p.shape[1], 1, action_size))[0] for p in paths]).cpu()


def _lead_down(world: World, floor: Floor, maps: Maps) -> dict[str, Int64[Tensor, "y x"]]:
    moves = open_moves(world.env, floor)
    return {name: downhill(values, moves) for name, values in maps.items()}


def _fill(floor: Floor, values: Float[Tensor, " r"]) -> Float[Tensor, "y x"]:
    return values.float().where(floor.free, torch.nan).reshape(len(floor.y), len(floor.x))


def _nearest(world: World, floor: Floor, state: EnvState) -> int:
    """The number of the free place that is nearest to a state."""
    distance = world.env.distance(floor.states, _repeat(state, len(floor.free)))
    return int(distance.where(floor.free, torch.inf).argmin())


def _stack(maps: Mapping[str, Tensor]) -> np.ndarray:
    stacked: np.ndarray = torch.stack(list(maps.values())).numpy()
    return stacked


def _row(state: EnvState, k: int) -> EnvState:
    return {name: value[k : k + 1] for name, value in state.items()}


def _goal(tasks: Tasks, k: int) -> EnvState | None:
    return None if tasks.goal is None else _row(tasks.goal, k)


def _repeat(state: EnvState, count: int) -> EnvState:
    return {name: value.expand(count, *value.shape[1:]) for name, value in state.items()}


# --- over two numbers of a plan


def measure_actions(world: World, protocol: Protocol, search: Planner, shown: Tasks) -> Landscapes:
    """The energy over two numbers of the first plan of each episode, and what the planner chose.

    They are the first two of the first action, or those of the first two actions if an action is one number. On the
    true dynamics the energy is the same; the difference is what the model gets wrong.
    """
    spec, env = single_action(world.energies.spec), world.env
    axes: tuple[Axis, Axis] = ((0, 0), (0, 1)) if spec.size > 1 else ((0, 0), (1, 0))
    if spec.discrete or axes[1][0] >= protocol.horizon:
        return Landscapes({}, {})
    device, count = world.energies.method.mean.device, len(shown.ids)
    nothing = torch.zeros(count, 0, world.energies.form.every * env.action.size)
    now = world.perceive(Seen(env.observe(shown.start)[:, None], nothing, shown.start), None)
    costs: dict[str, Callable[[Tensor], Tensor]] = {ON_MODEL: world.cost_on_model(shown.goal)(now)}
    if env.copyable:
        costs[ON_TRUTH] = world.cost_on_truth(shown.goal)(shown.start)
    start = start_plan(count, protocol.horizon, world.energies.spec, device=device)
    plan = search(costs[ON_MODEL], start, world.energies.spec, Rng(protocol.seed).fork("landscape"))
    maps = [energy_map(cost, plan, world.energies.spec, axes, ACTION_POINTS) for cost in costs.values()]
    choice = torch.stack([plan.mean[:, step, number] for step, number in axes], 1)
    names = [spec.names[number] if spec.names else f"number {number}" for _, number in axes]
    if axes[1][0]:
        names = [f"{name} of action {step + 1}" for name, (step, _) in zip(names, axes, strict=True)]
    arrays = {
        "action_x": maps[0][0].numpy(),
        "action_y": maps[0][1].numpy(),
        "action_energy": torch.stack([energy for _, _, energy in maps], 1).float().numpy(),
        "action_choice": choice.cpu().numpy(),
    }
    return Landscapes({"actions": {"axes": names, "maps": list(costs)}}, arrays)
