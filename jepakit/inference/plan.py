"""Plans with a trained world model: one plan for one's own loop, or whole episodes under a protocol."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.files import replace_file
from ..core.progress import Progress, SilentProgress, progress_counter
from ..envs import EnvState
from ..evals.probing import save_result
from ..model import Model, check_frame
from ..planning import PLANNERS
from ..planning.energy import Kind, Reduce
from ..planning.greedy import Greedy
from ..planning.mpc import Act, Seen
from ..planning.plan import Plan, Planner, start_plan
from ..planning.protocol import AgentOf, Outcome, Protocol, evaluate, results
from ..planning.rollout import rollout_cost
from ..run import checkpoint, parse
from ..run.checkpoint import LoadedRun
from ..types import Rng
from .decoder import check_frame_decoder, load_or_train_frame_decoder
from .diagnosis import diagnose_model
from .energies import Energies, Source, open_energies
from .films import decode_frames, film_episodes
from .landscapes import measure_landscapes
from .world import World, open_world

HORIZON: Final = 8
"""The model's actions in a plan, where nobody says another number."""


class PlanReport(NamedTuple):
    """What `plan_run` wrote: the results, their file, and the film, if there is one."""

    result: dict[str, Any]
    path: Path
    film: Path | None


def plan(
    run: str | os.PathLike[str] | Model,
    obs: Tensor,
    goal: Tensor | None = None,
    *,
    planner: str | Planner = "cem",
    horizon: int = HORIZON,
    start: Plan | None = None,
    source: Source = "auto",
    distance: Kind = "l2",
    reduce: Reduce = "sum",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Plan:
    """The plan from an observation to a goal, for a loop of one's own; `plan.mean` (B, H, A) is what to do.

    `obs` and `goal` are raw frames of B episodes, (B, C, H, W) with pixels in [0, 1] or (B, C), or one frame without
    the batch. Without a goal, the predicted rewards count. `start` is where the search starts, such as
    `shift(last_plan)`. `settings` are the planner's knobs, as {"cem.samples": 300}. Raises ValueError if the run is no
    world model, if a frame does not fit it, or if the planner does not fit its actions.
    """
    energies = _energies_of(run, source, distance, reduce)
    search = choose_planner(planner, settings or {}) if isinstance(planner, str) else planner
    state = energies.method.start(energies.form.stack_frames(_frames(obs, energies)[:, None]))
    if goal is not None and len(_frames(goal, energies)) != len(state.tokens):
        raise ValueError(
            f"there are {len(state.tokens)} observations and {len(_frames(goal, energies))} goals; give one per episode"
        )
    energy = energies.of_goal(None if goal is None else energies.encode(_frames(goal, energies)))
    begin = start or start_plan(len(state.tokens), horizon, energies.spec, device=energies.method.mean.device)
    return search(rollout_cost(energies.method.step, energy, state), begin, energies.spec, Rng(seed))


def _energies_of(run: Any, source: Source, distance: Kind, reduce: Reduce) -> Energies:
    """The energies of a loaded model, or of a run folder with its heads."""
    if isinstance(run, Model):
        return open_energies(run.loaded, None, source, distance, reduce)
    return open_energies(checkpoint.load_run(Path(run)), Path(run), source, distance, reduce)


def _frames(frame: Tensor, energies: Energies) -> Float[Tensor, "b c ..."]:
    """One frame, or those of B episodes, as a batch. Raises ValueError if it does not fit the model."""
    signal, stack = energies.method.signal, energies.form.stack
    own = dataclasses.replace(signal, channels=signal.channels // stack, mean=(), std=())
    batch = frame[None] if frame.ndim == len(signal.size) else frame
    if len(signal.size) == 1:  # a vector is one step of a series
        return check_frame(batch[..., None], own)[..., 0].to(energies.method.mean)
    return check_frame(batch, own).to(energies.method.mean)


def choose_planner(name: str, settings: Mapping[str, Any]) -> Planner:
    """The planner called `name`, with the knobs that dotted `settings` change. Raises ValueError for unknown ones."""
    knobs: Any = PLANNERS.load(name)
    changes = parse.flags_to_changes(settings)
    if unknown := [section for section in changes if section != name]:
        raise ValueError(f"{unknown[0]} is not the planner {name}; write its settings as --{name}.KEY VALUE")
    planner: Planner = parse.apply_changes(knobs, changes.get(name, {}), name)
    return planner


class Search(NamedTuple):
    """A planner, the number of actions in its plans, and both in words."""

    planner: Planner
    horizon: int
    words: str


def choose_oracle(search: Search, settings: Mapping[str, Any]) -> Search:
    """The search of the oracle: that of the model, changed by knobs of the planner, another `planner` or `horizon`.

    Raises ValueError for unknown ones.
    """
    knobs = dict(settings)
    name, horizon = str(knobs.pop("planner", "")), knobs.pop("horizon", search.horizon)
    if not str(horizon).isdigit() or int(horizon) < 1:
        raise ValueError(f"oracle.horizon is {horizon}; give 1 or more actions")
    planner = PLANNERS.load(name) if name else search.planner
    planner = parse.apply_changes(planner, parse.flags_to_changes(knobs), "oracle")
    words = describe_planner(name or search.words.partition(" ")[0], planner)
    return Search(planner, int(horizon), f"{words}, horizon {horizon} actions")


def describe_planner(name: str, planner: Planner) -> str:
    """A planner with its knobs, as text."""
    knobs: dict[str, Any] = dataclasses.asdict(planner) if dataclasses.is_dataclass(planner) else {}
    return f"{name} ({', '.join(f'{key} {value}' for key, value in knobs.items())})"


def plan_run(
    run: str | os.PathLike[str],
    environment: str | None = None,
    *,
    planner: str = "cem",
    episodes: int = 50,
    steps: int | None = None,
    horizon: int = HORIZON,
    replan_every: int = 1,
    seed: int = 0,
    source: Source = "auto",
    distance: Kind = "l2",
    reduce: Reduce = "sum",
    step: int | None = None,
    diagnose: bool = True,
    film: bool = True,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> PlanReport:
    """Let a run act by planning, beside a random policy and an oracle, and write evals/plan-PLANNER.json and a film.

    A result of another checkpoint, protocol or energy gets a name of its own and replaces none. `environment` is by
    default that of the run's data. An episode takes `steps` steps of the environment (default: its time limit);
    `horizon` and `replan_every` count the model's actions. `source`, `distance` and `reduce` say what the energy is
    made of. With `diagnose`, further agents and measures show whether the energy, the model or the search fails.
    `settings` are those of the planner, as {"cem.samples": 300}, of the environment, as {"env.size": 33}, and of
    the oracle's own search, as {"oracle.horizon": 12}. Raises ValueError, before any episode, if these do not fit.
    """
    folder, show = Path(run), progress or SilentProgress()
    changes, own, others = split_settings(settings or {})
    search = choose_planner(planner, changes)
    best = choose_oracle(Search(search, horizon, words := describe_planner(planner, search)), others)
    loaded = checkpoint.load_run(folder, step, note=show.note)
    world = open_world(loaded, folder, environment, own, source=source, distance=distance, reduce=reduce)
    protocol = protocol_of(world, words, episodes, steps, horizon, replan_every, seed, best.words if others else None)
    refuse_unfit(folder, loaded, world, others, film)
    for note in [*describe_unfinished_heads(folder), "; ".join(protocol.lines())]:
        show.note(note)
    outcomes = run_agents(world, protocol, agents_of(world, search, best, protocol, diagnose), show)
    result, arrays = summarize_agents(world, outcomes, loaded.step), dict[str, np.ndarray]()
    if diagnose:
        show.note("measuring what the model knows of the layout")
        result["model"] = diagnose_model(world, protocol)
        result["landscapes"], arrays = measure_landscapes(world, protocol, search, outcomes[PLANNER])
    path = save_result(folder, "plan", result, planner)
    save_arrays(path.with_suffix(".npz"), arrays)
    decode = frame_decoder(folder, loaded, world, show) if film else None
    shown = film_episodes(world, protocol, search, outcomes[PLANNER], path, decode, show) if film else None
    return PlanReport(result, path, shown)


def refuse_unfit(run: Path, loaded: LoadedRun, world: World, oracle: Mapping[str, Any], film: bool) -> None:
    """Raise ValueError for what would count for nothing, or would only fail after the last episode."""
    if oracle and not world.env.copyable:
        raise ValueError(
            f"the state of {world.env.name} cannot be copied, so there is no oracle; leave out "
            f"oracle.{next(iter(oracle))}"
        )
    if film and world.env.size and is_newest(run, loaded):
        check_frame_decoder(run, loaded)


def describe_unfinished_heads(run: Path) -> list[str]:
    """A sentence for each head whose training was interrupted: what it says is used all the same."""
    notes = []
    for folder in (run / "heads" / "metric", run / "heads" / "value"):
        if (folder / "config.yaml").is_file() and (saved := checkpoint.saved_steps(folder)):
            steps = checkpoint.settings_of(folder).length.steps or 0
            if saved[-1] < steps:
                notes.append(
                    f"{folder} is at step {saved[-1]} of {steps}; finish it with jepa train --resume --out {folder}"
                )
    return notes


def is_newest(run: Path, loaded: LoadedRun) -> bool:
    """Whether this is the newest checkpoint of the run, on which heads are trained."""
    return loaded.step == checkpoint.saved_steps(run)[-1]


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The settings of planners, those of the environment, written as env.KEY, and those of the oracle, oracle.KEY."""
    rest = dict(settings)
    env, oracle = (
        {key.removeprefix(part): rest.pop(key) for key in list(rest) if key.startswith(part)}
        for part in ("env.", "oracle.")
    )
    return rest, env, oracle


def protocol_of(
    world: World,
    planner: str,
    episodes: int,
    steps: int | None,
    horizon: int,
    replan_every: int,
    seed: int,
    oracle: str | None = None,
) -> Protocol:
    """The protocol of a world, its episodes as long as its time limit unless `steps` says another number."""
    env = world.env
    return Protocol(
        env.name,
        planner,
        episodes,
        steps or env.time_limit,
        horizon,
        world.energies.form.every,
        replan_every,
        env.success_radius if env.has_goal else None,
        seed=seed,
        oracle=oracle,
    )


def summarize_agents(world: World, outcomes: Mapping[str, Outcome], step: int) -> dict[str, Any]:
    """What is written of all agents. Another protocol or energy is another result, by its `settings`."""
    result = results(outcomes[PLANNER], outcomes[RANDOM], outcomes.get(ORACLE))
    identity = plan_settings(world, outcomes[PLANNER].protocol)
    return result | {
        "kind": "plan",
        "energy": identity["energy"],
        "agents": {name: summarize(outcome) for name, outcome in outcomes.items()},
        "step": step,
        "data": world.env.name,
        "settings": identity,
    }


def plan_settings(world: World, protocol: Protocol) -> dict[str, Any]:
    """What tells one result of a checkpoint from another: the energy in words, and the protocol."""
    return {"energy": world.energies.describe(world.env.has_goal), **dataclasses.asdict(protocol)}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an .npz file, or remove what an earlier result left there if there are none."""
    if not arrays:
        path.unlink(missing_ok=True)
        return
    with replace_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def frame_decoder(run: Path, loaded: LoadedRun, world: World, progress: Progress) -> Callable[[Tensor], Tensor] | None:
    """What maps tokens to frames, for a model of pictures: the run's decoder, trained once.

    None for vectors, and for an earlier checkpoint, for which the run's decoder would have to be replaced.
    """
    if not world.env.size:
        return None
    if not is_newest(run, loaded):
        progress.note("the film shows no imagined frames, as the decoder belongs to the newest checkpoint of the run")
        return None
    decoder = load_or_train_frame_decoder(run, loaded, progress).to(world.energies.method.mean.device)

    @torch.no_grad()
    def decode(tokens: Tensor) -> Tensor:
        # Of stacked frames, the newest.
        return decode_frames(decoder, tokens)[:, -world.env.channels :]

    return decode


PLANNER: Final = "planner"
RANDOM: Final = "random policy"
ORACLE: Final = "planner on the true dynamics"
GREEDY_TRUE: Final = "greedy on the true dynamics"
GREEDY_MODEL: Final = "greedy on the model"


def agents_of(world: World, search: Planner, best: Search, protocol: Protocol, diagnose: bool) -> dict[str, AgentOf]:
    """The agents that a run is judged by, by name; oracles only where the environment's state can be copied."""
    horizon, often = protocol.horizon, protocol.replan_every
    agents: dict[str, AgentOf] = {PLANNER: world.planning(search, horizon, often), RANDOM: world.random}
    if world.env.copyable:
        agents[ORACLE] = world.oracle(best.planner, best.horizon, often)
    if diagnose and world.env.has_goal:
        agents[GREEDY_MODEL] = world.planning(Greedy(), 1)
        if world.env.copyable:
            agents[GREEDY_TRUE] = world.planning_on_truth(Greedy(), 1)
    return agents


def run_agents(
    world: World, protocol: Protocol, agents: Mapping[str, AgentOf], progress: Progress
) -> dict[str, Outcome]:
    """What each agent does on the same starts."""
    found = {}
    for name, agent in agents.items():
        often = protocol.replan_every if name in (PLANNER, ORACLE) else 1
        decisions = -(-protocol.steps // (protocol.block * often))
        count = progress_counter(progress, f"acting: {name}", "decisions")
        found[name] = evaluate(world.env, protocol, count_decisions(agent, count, decisions))
        low, high = found[name].interval
        score = found[name].score
        goal = world.env.has_goal
        words = (
            f"{100 * score:.0f} % ({100 * low:.0f} to {100 * high:.0f}) at the goal" if goal else f"return {score:.1f}"
        )
        progress.note(f"{name}: {words}, {found[name].seconds_per_action:.3f} s per action")
    return found


def count_decisions(agent: AgentOf, count: Callable[[int, int], None], total: int) -> AgentOf:
    """The same agents; `count` receives the number of every decision that they take, and the `total`."""

    def agent_of(goal: EnvState | None) -> Act:
        inner, taken = agent(goal), itertools.count(1)

        def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
            decided = inner(seen, memory, rng)
            count(next(taken), total)
            return decided

        return act

    return agent_of


def summarize(outcome: Outcome) -> dict[str, float | None]:
    """The numbers of one agent."""
    low, high = outcome.interval
    ever = outcome.solved_ever
    return {
        "score": outcome.score,
        "low": low,
        "high": high,
        "success_ever": None if ever is None else float(ever.float().mean()),
        "return": float(outcome.returns.mean()),
        "seconds_per_action": outcome.seconds_per_action,
    }
