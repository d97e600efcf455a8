"""How an agent is judged: the protocol that stands beside every number, and the numbers with their intervals.

The same weights score 14 or 84 % under different protocols, so a score without one says little.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..core.statistics import Z95, wilson_interval
from ..envs import Environment, EnvState
from ..types import Ids, Rng
from .mpc import Act, Episode, mpc

VERSION: Final = 1
MAX_DRAWS: Final = 100  # tasks drawn for one that is kept, before a protocol is called impossible


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on beside the weights.

    `task` is the environment's name and `planner` the planner with its knobs, as text; `horizon` and `replan_every`
    count the agent's actions, blocks of `block` of the environment's `steps`. A task counts if the true way to its goal
    has a length from `min_distance` to `max_distance`, in units, and if it is not solved already. It is solved within
    `success_radius` of the goal. Tasks are drawn by `seed`. `oracle` is the oracle's search, if it is another
    one. `version` changes when the meaning of a field does.
    """

    task: str
    planner: str
    episodes: int = 50
    steps: int = 200
    horizon: int = 8
    block: int = 1
    replan_every: int = 1
    success_radius: float | None = None
    min_distance: float = 0.0
    max_distance: float | None = None
    seed: int = 0
    oracle: str | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        counts = ("episodes", "steps", "horizon", "block", "replan_every")
        if wrong := [name for name in counts if getattr(self, name) < 1]:
            raise ValueError(f"{wrong[0]} of the protocol is {getattr(self, wrong[0])}; give 1 or more")
        if self.version != VERSION:
            raise ValueError(f"this is a protocol of version {self.version}, and jepakit has version {VERSION}")

    def lines(self) -> list[str]:
        """The protocol in words, to be shown beside every number."""
        goal = []
        if self.success_radius is not None:
            most = "or more" if self.max_distance is None else f"to {self.max_distance:g}"
            goal = [
                f"goals {self.min_distance:g} {most} units away by the shortest way, none solved at the start",
                f"solved within {self.success_radius:g} units; at the end: after the last step, ever: after any step",
            ]
        return [
            f"{self.task}: {self.episodes} episodes of {self.steps} steps, seed {self.seed} (protocol {self.version})",
            *goal,
            f"{self.planner}, horizon {self.horizon} actions of {self.block} steps, "
            f"planned again every {self.replan_every}",
            *([] if self.oracle is None else [f"the planner on the true dynamics: {self.oracle}"]),
        ]  # fmt: skip


class Tasks(NamedTuple):
    """The episodes of a protocol: their ids, starts, goals (None without), and how many were rejected as solved."""

    ids: Ids
    start: EnvState
    goal: EnvState | None
    rejected: int

    def part(self, begin: int, end: int) -> "Tasks":
        """Some of the episodes, by their place."""
        return Tasks(
            self.ids[begin:end],
            {name: value[begin:end] for name, value in self.start.items()},
            None if self.goal is None else {name: value[begin:end] for name, value in self.goal.items()},
            self.rejected,
        )


AgentOf = Callable[[EnvState | None], Act]
"""The goals of B episodes, None in an environment without, to the agent that acts in them."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an agent did in the finished episodes, one entry each, under a protocol.

    `solved_end`, `solved_ever` and `distance_start` (the true way to the goal) are of environments with a goal.
    `failed` maps the ids of episodes whose environment raised an error to its sentence. `seconds_per_action` is the
    agent's time for each action of each episode, when that many are decided at once; `seconds_per_decision` is what one
    decision for all of them takes.
    """

    protocol: Protocol
    ids: Ids
    returns: Float[Tensor, " e"]
    length: Int64[Tensor, " e"]
    solved_end: Bool[Tensor, " e"] | None = None
    solved_ever: Bool[Tensor, " e"] | None = None
    distance_start: Float[Tensor, " e"] | None = None
    rejected: int = 0
    failed: Mapping[int, str] = field(default_factory=dict)
    seconds_per_action: float = 0.0
    seconds_per_decision: float = 0.0

    @property
    def score(self) -> float:
        """The success rate at the end, or the mean return in an environment without goals."""
        return float((self.returns if self.solved_end is None else self.solved_end.float()).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the score over episodes: Wilson's of a rate, Student's of a mean return."""
        if self.solved_end is None:
            return mean_interval(self.returns.tolist())
        return wilson_interval(int(self.solved_end.sum()), len(self.ids))


def draw_tasks(env: Environment, protocol: Protocol) -> Tasks:
    """The protocol's episodes, in the order of their ids. Raises ValueError if hardly any task fits the protocol."""
    rng, wanted = Rng(protocol.seed).fork("tasks"), protocol.episodes
    if not env.has_goal:
        ids = np.arange(wanted)
        return Tasks(ids, env.reset(ids, rng), None, 0)
    ids_kept: list[Ids] = []
    starts: list[EnvState] = []
    goals: list[EnvState] = []
    found = rejected = drawn = 0
    while found < wanted:
        if drawn >= MAX_DRAWS * wanted:
            raise ValueError(
                f"of {drawn} tasks of {protocol.task}, {found} have a way of {protocol.min_distance:g} to "
                f"{protocol.max_distance or np.inf:g} units and are not solved at the start; widen these distances"
            )
        ids = np.arange(drawn, drawn + wanted)
        start, goal = env.tasks(ids, rng)
        way, solved = env.way_to_go(start, goal), _within(env, start, goal, protocol)
        fits = (way >= protocol.min_distance) & (way <= (protocol.max_distance or torch.inf)) & ~solved
        rows = fits.nonzero()[: wanted - found, 0]
        found, drawn = found + len(rows), drawn + wanted
        rejected += int(solved[: int(rows[-1]) + 1 if found == wanted else None].sum())
        ids_kept.append(ids[rows.numpy()])
        starts.append({name: value[rows] for name, value in start.items()})
        goals.append({name: value[rows] for name, value in goal.items()})
    return Tasks(np.concatenate(ids_kept), _concatenate(starts), _concatenate(goals), rejected)


def _concatenate(states: list[EnvState]) -> EnvState:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def evaluate(env: Environment, protocol: Protocol, agent_of: AgentOf, at_once: int | None = None) -> Outcome:
    """What an agent does in the protocol's episodes, `at_once` of them together (None: all).

    Every episode has randomness of its own, so that `at_once` changes results by rounding alone. Episodes whose
    environment raises an error are left out and named. Raises ValueError if none is left.
    """
    tasks, rng = draw_tasks(env, protocol), Rng(protocol.seed).fork("act")
    count = at_once or protocol.episodes
    found: list[Outcome] = []
    for begin in range(0, protocol.episodes, count):
        part = tasks.part(begin, begin + count)
        rows = range(begin, begin + len(part.ids))
        own = Rng(rng.seed, rng.step, 0, protocol.episodes, rng.path, tuple(rows))
        episode = mpc(env, part.start, agent_of(part.goal), protocol.steps, block=protocol.block, rng=own)
        found.append(_outcome(env, protocol, part, episode))
    return _join_outcomes(found)


def _outcome(env: Environment, protocol: Protocol, tasks: Tasks, episode: Episode) -> Outcome:
    done = torch.tensor([row not in episode.failed for row in range(len(tasks.ids))])
    facts: dict[str, Any] = {}
    if tasks.goal is not None:
        frames = next(iter(episode.states.values())).shape[1]
        goal = {name: value.repeat_interleave(frames, 0) for name, value in tasks.goal.items()}
        path = {name: value.flatten(0, 1) for name, value in episode.states.items()}
        solved = _within(env, path, goal, protocol).reshape(len(tasks.ids), frames)
        facts["solved_end"], facts["solved_ever"] = solved[done, -1], solved[done].any(1)
        facts["distance_start"] = env.way_to_go(tasks.start, tasks.goal)[done]
    return Outcome(
        protocol,
        tasks.ids[done.numpy()],
        episode.reward.sum(1)[done],
        episode.length[done],
        rejected=tasks.rejected,
        failed={int(tasks.ids[row]): reason for row, reason in episode.failed.items()},
        seconds_per_action=episode.seconds / max(int(episode.length.sum()), 1),
        seconds_per_decision=episode.seconds / max(episode.decisions, 1),
        **facts,
    )


def _join_outcomes(parts: list[Outcome]) -> Outcome:
    """The outcome of all groups of episodes; times are averages over groups, weighed by their steps or decisions."""
    if not sum(len(part.ids) for part in parts):
        reasons = [reason for part in parts for reason in part.failed.values()]
        raise ValueError(f"the environment failed in all {len(reasons)} episodes, first with {reasons[0]}")

    def concatenate(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    steps = np.array([max(int(part.length.sum()), 1) for part in parts], float)
    facts = ("returns", "length", "solved_end", "solved_ever", "distance_start")
    return Outcome(
        parts[0].protocol,
        np.concatenate([part.ids for part in parts]),
        **{name: concatenate(name) for name in facts},
        rejected=parts[0].rejected,
        failed={row: reason for part in parts for row, reason in part.failed.items()},
        seconds_per_action=float(np.average([part.seconds_per_action for part in parts], weights=steps)),
        seconds_per_decision=float(np.mean([part.seconds_per_decision for part in parts])),
    )


def _within(env: Environment, state: EnvState, goal: EnvState, protocol: Protocol) -> Bool[Tensor, " b"]:
    radius = env.success_radius if protocol.success_radius is None else protocol.success_radius
    return env.distance(state, goal) < radius


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Student's 95 % interval of a mean; the whole line for one value."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return -np.inf, np.inf
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / sqrt(n)
    return mean - half, mean + half


class Paired(NamedTuple):
    """Two agents on the same starts: the first's score minus the second's, its 95 % interval, and p of no difference.

    `only_first` and `only_second` count the episodes that one of them solved and the other did not.
    """

    difference: float
    low: float
    high: float
    p: float
    episodes: int
    only_first: int = 0
    only_second: int = 0


def compare_paired(first: Outcome, second: Outcome) -> Paired:
    """Compare two agents on the episodes that both finished.

    Success at the end by McNemar's exact test, with the interval of Agresti & Min, Statistics in Medicine 24 (2005)
    729; returns by the paired t-test. Raises ValueError if protocols draw other tasks or no episode is shared.
    """
    fields = ("task", "steps", "success_radius", "seed")
    if different := [name for name in fields if getattr(first.protocol, name) != getattr(second.protocol, name)]:
        raise ValueError(f"the protocols differ in {different[0]}, so their episodes are no pairs; use one protocol")
    shared, a, b = np.intersect1d(first.ids, second.ids, return_indices=True)
    if not len(shared):
        raise ValueError("the two agents share no finished episode; evaluate both under one protocol")
    if first.solved_end is None or second.solved_end is None:
        return _paired_returns((first.returns[a] - second.returns[b]).double().numpy())
    only_first = int((first.solved_end[a] & ~second.solved_end[b]).sum())
    only_second = int((second.solved_end[b] & ~first.solved_end[a]).sum())
    return mcnemar(only_first, only_second, len(shared))


def mcnemar(only_first: int, only_second: int, episodes: int) -> Paired:
    """The difference of two paired rates from the numbers of episodes in which they disagree."""
    from scipy.stats import binomtest

    disagree = only_first + only_second
    p = float(binomtest(only_first, disagree).pvalue) if disagree else 1.0
    n, x, y = episodes + 2, only_first + 0.5, only_second + 0.5
    centre, half = (x - y) / n, Z95 * sqrt(max(x + y - (x - y) ** 2 / n, 0.0)) / n
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    return Paired((only_first - only_second) / episodes, low, high, p, episodes, only_first, only_second)


def _paired_returns(difference: Float[np.ndarray, " e"]) -> Paired:
    from scipy.stats import ttest_1samp

    low, high = mean_interval(difference.tolist())
    varies = len(difference) > 1 and np.ptp(difference) > 0
    p = float(ttest_1samp(difference, 0).pvalue) if varies else float(not difference.any())
    return Paired(float(difference.mean()), low, high, p, len(difference))


def results(outcome: Outcome, floor: Outcome | None = None, oracle: Outcome | None = None) -> dict[str, Any]:
    """What is written beside a run: the agent's numbers, those of a random policy and of an oracle, the protocol.

    `low` and `high` are the ends of the 95 % interval of `success_end`, or of `return` in an environment without
    goals. `normalised` is the return between that of the random policy (0) and of the oracle (1).
    """
    low, high = outcome.interval
    found: dict[str, Any] = {
        "success_end": _mean(outcome.solved_end),
        "success_ever": _mean(outcome.solved_ever),
        "return": _mean(outcome.returns),
        "low": low,
        "high": high,
        "floor": None if floor is None else floor.score,
        "oracle": None if oracle is None else oracle.score,
        "episodes": len(outcome.ids),
        "distance_start": _mean(outcome.distance_start),
        "rejected": outcome.rejected,
        "failed": {str(row): reason for row, reason in outcome.failed.items()},
        "seconds_per_action": outcome.seconds_per_action,
        "seconds_per_decision": outcome.seconds_per_decision,
        "protocol": asdict(outcome.protocol),
    }
    if floor is not None:
        found["against_floor"] = compare_paired(outcome, floor)._asdict()
    if oracle is not None:
        found["against_oracle"] = compare_paired(outcome, oracle)._asdict()
    if floor is not None and oracle is not None and oracle.score != floor.score:
        found["normalised"] = (outcome.score - floor.score) / (oracle.score - floor.score)
    return found


def _mean(values: Tensor | None) -> float | None:
    return None if values is None else float(values.float().mean())
