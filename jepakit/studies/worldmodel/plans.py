"""Measures how well a finished world model plans: episodes under one protocol, and its distance to go.

Results stay in the run folder, as evals/plan-PLANNER.json, and are read from there the next time.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ...evals.metrics.ranks import spearman
from ...inference.plan import (
    GREEDY_MODEL,
    GREEDY_TRUE,
    HORIZON,
    ORACLE,
    RANDOM,
    Search,
    choose_oracle,
    choose_planner,
    describe_planner,
    plan_run,
    plan_settings,
    protocol_of,
    split_settings,
)
from ...inference.world import World, open_world
from ...run import checkpoint
from ...types import Rng

EPISODES: Final = 40
REPLAN_EVERY: Final = 4
NUM_PAIRS: Final = 512
"""Starts and goals on which a distance to go is ranked."""

SUCCESS: Final = "success at the end"
SUCCESS_EVER: Final = "success ever"
GREEDY_ON_TRUTH: Final = GREEDY_TRUE
GREEDY_ON_MODEL: Final = GREEDY_MODEL
GHOSTING: Final = "share of pushes through the wall"
POSITION_ERROR: Final = "position error, imagined"
POSITION_ERROR_SEEN: Final = "position error, seen"
METRIC_RANK: Final = "rank of the metric minus straight lines"
LATENT_RANK: Final = "rank of the latent distance minus straight lines"
EFFECTIVE_RANK: Final = "effective rank of the latents"


def load_or_plan(run: Path, planner: str = "cem", **options: Any) -> dict[str, Any]:
    """The result of `inference.plan.plan_run` on the last step of a run: read from its folder, or planned and written.

    `options` are those of `plan_run`.
    """
    return stored_plan(run, planner, options) or plan_run(run, planner=planner, film=False, **options).result


def stored_plan(run: Path, planner: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A stored result of the last step with the same protocol and energy, and with the diagnosis if they ask for it."""
    loaded = checkpoint.load_run(run)
    knobs, env, oracle = split_settings(options.get("settings") or {})
    search, horizon = choose_planner(planner, knobs), options.get("horizon", HORIZON)
    words = describe_planner(planner, search)
    best = choose_oracle(Search(search, horizon, words), oracle).words if oracle else None
    energy = {key: options[key] for key in ("source", "distance", "reduce") if key in options}
    world = open_world(loaded, run, options.get("environment"), env, **energy)
    counts: dict[str, Any] = {"episodes": 50, "steps": None, "horizon": horizon, "replan_every": 1, "seed": 0}
    counts |= {key: value for key, value in options.items() if key in counts}
    wanted = plan_settings(world, protocol_of(world, words, **counts, oracle=best))
    for path in sorted((run / "evals").glob("plan-*.json")):
        found: dict[str, Any] = json.loads(path.read_text())
        # A setting that an older result does not name had no other value than None.
        same = all(found["settings"].get(key) == value for key, value in wanted.items())
        if same and found["step"] == loaded.step and ("model" in found or not options.get("diagnose", True)):
            return found
    return None


def measure_rooms(run: Path) -> Mapping[str, float]:
    """How well a world model of Two Rooms plans by the distance to go over it, and what that may depend on."""
    result = load_or_plan(run, episodes=EPISODES, replan_every=REPLAN_EVERY)
    model, agents = result["model"], result["agents"]
    position = model["factors"]["position"]
    panel = json.loads((run / "summary.json").read_text())["panel"]
    through = model["ghosting"]["share"][-1]
    return {
        SUCCESS: result["success_end"],
        SUCCESS_EVER: result["success_ever"],
        GREEDY_ON_TRUTH: agents[GREEDY_TRUE]["score"],
        GREEDY_ON_MODEL: agents[GREEDY_MODEL]["score"],
        ORACLE: agents[ORACLE]["score"],
        RANDOM: agents[RANDOM]["score"],
        **({} if through is None else {GHOSTING: through}),
        POSITION_ERROR_SEEN: position["seen"],
        POSITION_ERROR: position["imagined"][-1],
        **distance_ranks(open_world(checkpoint.load_run(run), run)),
        EFFECTIVE_RANK: panel["rank_target"],
    }


@torch.no_grad()
def distance_ranks(world: World) -> dict[str, float]:
    """Spearman's correlation of two distances with the true way to go, minus that of the straight line.

    The pairs are tasks of the environment. The distances are those of the metric, and between latents.
    """
    env, steps_to_go = world.env, world.energies.steps_to_go
    start, goal = env.tasks(np.arange(NUM_PAIRS), Rng(0).fork("studies", "pairs"))
    true_way, straight = (part.numpy() for part in (env.way_to_go(start, goal), env.distance(start, goal)))
    a, b = (world.encode(env.observe(state)) for state in (start, goal))
    latent = (a - b).flatten(1).norm(dim=1)
    assert steps_to_go is not None
    learned = steps_to_go(a, b)
    base = spearman(straight, true_way)
    return {
        METRIC_RANK: spearman(learned.cpu().numpy(), true_way) - base,
        LATENT_RANK: spearman(latent.cpu().numpy(), true_way) - base,
    }
