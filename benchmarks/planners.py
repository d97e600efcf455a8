"""How much faster do we plan than two plain planners with the same model, samples and iterations?

The growing planner has the shape of published research code: it encodes the frame once per sample and iteration, and
each step of a roll-out is predicted from all latents and actions so far, which are concatenated. The batched one is
what a careful programmer writes for one problem: it encodes once, rolls all episodes and samples out in one batch per
step, and keeps the path. Both are CEM with the same elites and floor, written here. All three see the same frames and
goals, and take turns round by round; ratios are medians of the ratios within a round.

    python benchmarks/planners.py [--rounds 5] [--episodes 50] [--rounds-of-many 3] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from record import save
from torch import Tensor

from jepakit.methods.worldmodel import Config, WorldModel
from jepakit.nn import CNN
from jepakit.nn.dynamics import GRU, ResidualMLP
from jepakit.planning import CEM, goal_distance, rollout_cost, start_plan
from jepakit.types import ActionSpec, Rng, Signal

SIZE, WIDTH, ELITES, FLOOR = (33, 33), 128, 30, 0.05
SPEC = ActionSpec(2, max_norm=2.45).repeat(2)
# samples, iterations, horizon
BUDGETS = {"300 x 30 x 5": (300, 30, 5), "500 x 10 x 12": (500, 10, 12)}
MODELS = {"mlp": ResidualMLP(), "gru": GRU()}
Search = Callable[[Tensor, Tensor], Tensor]


def world_model(dynamics: Any) -> WorldModel:
    """The model of the recipe for Two Rooms, untrained: its speed does not depend on its weights."""
    torch.manual_seed(0)
    signal = Signal(2, (9, *SIZE), action=SPEC)
    encoder = CNN(patch=(1, *SIZE), width=WIDTH, channels=(16, 32, 32))
    return WorldModel(Config(encoder, dynamics), signal).eval().requires_grad_(False)


def clipped(actions: Tensor) -> Tensor:
    parts = actions.unflatten(-1, (SPEC.parts, -1))
    return (parts * (SPEC.max_norm / parts.norm(dim=-1, keepdim=True)).clamp(max=1)).flatten(-2)


def plain_cem(cost: Callable[[Tensor], Tensor], batch: int, budget: tuple[int, int, int]) -> Tensor:
    """CEM as one writes it: actions (B, H, A) from a cost of actions (B, S, H, A)."""
    samples, iterations, horizon = budget
    mean = torch.zeros(batch, horizon, SPEC.size)
    std = torch.full_like(mean, 0.5 * SPEC.max_norm)
    rows = torch.arange(batch)[:, None]
    for _ in range(iterations):
        actions = clipped(mean[:, None] + std[:, None] * torch.randn(batch, samples, horizon, SPEC.size))
        elites = actions[rows, cost(actions).topk(ELITES, 1, largest=False).indices]
        mean, std = elites.mean(1), elites.std(1, correction=0).clamp(min=FLOOR * SPEC.max_norm)
    return mean


@torch.no_grad()
def growing(model: WorldModel, budget: tuple[int, int, int], frames: Tensor, goals: Tensor) -> Tensor:
    """Every step of a roll-out starts from all latents and actions so far; the frame is encoded for each sample."""
    found = []
    for frame, goal in zip(frames, model.start(goals).tokens, strict=True):

        def cost(actions: Tensor, frame: Tensor = frame, goal: Tensor = goal) -> Tensor:
            actions = actions[0]
            path = model.start(frame.expand(len(actions), *frame.shape)).tokens[:, None]
            for h in range(actions.shape[1]):
                past = path.flatten(0, 1)
                hidden = model.predictor.start(past)
                pred, _ = model.advance(past, model.normalize_action(actions[:, : h + 1].flatten(0, 1)), hidden)
                path = torch.cat([path, pred.reshape(len(actions), h + 1, *pred.shape[1:])[:, -1:]], 1)
            return (path[:, 1:] - goal).square().mean((2, 3)).sum(1)[None]

        found.append(plain_cem(cost, 1, budget))
    return torch.cat(found)


@torch.no_grad()
def batched(model: WorldModel, budget: tuple[int, int, int], frames: Tensor, goals: Tensor) -> Tensor:
    """One encoding per plan, and one batch of all episodes and samples per step."""
    state, goal = model.start(frames), model.start(goals).tokens
    samples = budget[0]
    tokens = state.tokens.repeat_interleave(samples, 0)
    hidden = tuple(part.repeat_interleave(samples, 0) for part in state.hidden)

    def cost(actions: Tensor) -> Tensor:
        now = type(state)(tokens, hidden)
        path = []
        for h in range(actions.shape[2]):
            now = model.step(now, actions[:, :, h].flatten(0, 1))
            path.append(now.tokens)
        steps = torch.stack(path, 1).unflatten(0, actions.shape[:2])
        return (steps - goal[:, None, None]).square().mean((3, 4)).sum(2)

    return plain_cem(cost, len(frames), budget)


def ours(model: WorldModel, budget: tuple[int, int, int], frames: Tensor, goals: Tensor) -> Tensor:
    samples, iterations, horizon = budget
    with torch.no_grad():
        state, goal = model.start(frames), model.start(goals).tokens
    knobs = CEM(samples, iterations, ELITES, floor=FLOOR)
    start = start_plan(len(frames), horizon, SPEC)
    return knobs(rollout_cost(model.step, goal_distance(goal), state), start, SPEC, Rng(0)).mean


def measure(
    searches: dict[str, Callable[[], Tensor]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """The seconds of every search in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            start = clock()
            search()
            seconds[name].append(clock() - start)
    return seconds


def ratio(plain: list[float], ours: list[float]) -> float:
    return round(statistics.median(p / o for p, o in zip(plain, ours, strict=True)), 2)


def result(dynamics: str, budget: str, episodes: int, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    model, draw = world_model(MODELS[dynamics]), Rng(1).generator()
    frames, goals = (torch.rand(episodes, 2, *SIZE, generator=draw) for _ in range(2))
    shapes = {"growing": growing, "batched": batched, "ours": ours}
    if episodes > 1:  # it plans one after the other
        del shapes["growing"]
    torch.manual_seed(0)
    for search in shapes.values():  # to warm up
        search(model, (64, 1, 3), frames[:1], goals[:1])
    seconds = measure(
        {name: lambda s=s: s(model, BUDGETS[budget], frames, goals) for name, s in shapes.items()}, rounds, clock
    )
    return {
        "dynamics": dynamics,
        "samples x iterations x horizon": budget,
        "episodes": episodes,
        "rounds": rounds,
        "milliseconds per plan and episode": {
            name: round(1e3 * statistics.median(values) / episodes, 2) for name, values in seconds.items()
        },
        "times faster": {name: ratio(values, seconds["ours"]) for name, values in seconds.items() if name != "ours"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="with one episode")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--rounds-of-many", type=int, default=3, help="with that many episodes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine, with --threads 1")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    found = []
    for dynamics in MODELS:
        for budget in BUDGETS:
            for episodes, rounds in ((1, args.rounds), (args.episodes, args.rounds_of_many)):
                found.append(result(dynamics, budget, episodes, rounds, clock))
                print(found[-1], flush=True)
    save("planners", threads=args.threads, clock="CPU time" if args.cpu_time else "wall", results=found)


if __name__ == "__main__":
    main()
