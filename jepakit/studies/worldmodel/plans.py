"""Measures how well a finished world model plans: heads trained over it, episodes under one protocol, and its metric.

What is measured stays in the run folder, as heads/NAME and evals/plan-PLANNER.json, and is not measured again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ... import launch
from ...core.progress import SilentProgress
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
    split_settings,
)
from ...inference.world import World, open_world
from ...run import checkpoint
from ...training.request import Request
from ...types import Rng

HEAD_STEPS: Final = 1500
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


def train_head(run: Path, name: str, changes: Mapping[str, Any] | None = None) -> None:
    """Train the head called `name` over a finished run, in its folder, unless that has been done.

    It takes HEAD_STEPS, or as many steps as the run if those are fewer, as in a rehearsal. `changes` change settings.
    """
    out = run / "heads" / name
    if (out / "summary.json").is_file():
        return
    steps = min(HEAD_STEPS, int(json.loads((run / "summary.json").read_text())["steps"]))
    flags = {"length.steps": steps, "evals.report": False, "loop.workers": 0, "loop.amp": False, **(changes or {})}
    seed = checkpoint.settings_of(run).seed
    request = Request(recipe=name, out=out, init=run, flags={**flags, "seed": seed}, overwrite=True)
    launch.train_and_report(request, SilentProgress())


def train_metric(run: Path) -> None:
    """Train the distance to go over a finished run, unless that has been done."""
    train_head(run, "metric", {"optim.lr": 2e-3, "optim.start_lr": 2e-3})


def load_or_plan(run: Path, planner: str = "cem", **options: Any) -> dict[str, Any]:
    """The result of `inference.plan.plan_run` on the last step of a run: read from its folder, or planned and written.

    `options` are those of `plan_run`.
    """
    return stored_plan(run, planner, options) or plan_run(run, planner=planner, film=False, **options).result


def stored_plan(run: Path, planner: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A stored result with the same planner and options, and with the diagnosis if they ask for it."""
    step = int(json.loads((run / "summary.json").read_text())["steps"])
    changes, _, others = split_settings(options.get("settings") or {})
    search = choose_planner(planner, changes)
    knobs = describe_planner(planner, search)
    wanted: dict[str, Any] = {"planner": knobs, "episodes": 50, "horizon": HORIZON, "replan_every": 1, "seed": 0}
    wanted |= {key: value for key, value in options.items() if key in (*wanted, "steps")}
    if others:
        wanted["oracle"] = choose_oracle(Search(search, wanted["horizon"], knobs), others).words
    head = {"latent": "latent", "metric": "learned"}.get(options.get("source", "auto"), "")
    for path in sorted((run / "evals").glob("plan-*.json")):
        found: dict[str, Any] = json.loads(path.read_text())
        same = wanted.items() <= found["protocol"].items() and found["step"] == step
        whole = "model" in found or not options.get("diagnose", True)
        if same and whole and found["energy"].startswith(head):
            return found
    return None


def measure_rooms(run: Path) -> Mapping[str, float]:
    """How well a world model of Two Rooms plans by a metric that is trained over it, and what that may depend on."""
    train_metric(run)
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
    env, metric = world.env, world.energies.metric
    start, goal = env.tasks(np.arange(NUM_PAIRS), Rng(0).fork("studies", "pairs"))
    true_way, straight = (part.numpy() for part in (env.way_to_go(start, goal), env.distance(start, goal)))
    a, b = (world.encode(env.observe(state)) for state in (start, goal))
    latent = (a - b).flatten(1).norm(dim=1)
    assert metric is not None
    learned = metric.steps_to_go(a, b)
    base = spearman(straight, true_way)
    return {
        METRIC_RANK: spearman(learned.cpu().numpy(), true_way) - base,
        LATENT_RANK: spearman(latent.cpu().numpy(), true_way) - base,
    }
