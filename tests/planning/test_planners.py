import math
from dataclasses import replace

import pytest
import torch
from costs import (
    BLOCK,
    BOX,
    CHOICES,
    CONTINUOUS,
    DISCRETE,
    SHORT,
    Point,
    allowed,
    bowl,
    goals,
    planner,
    rng,
    rosenbrock,
    watched,
)
from torch import Tensor
from torch.testing import assert_close

from jepakit.core.actions import project
from jepakit.planning import PLANNERS, Plan, rollout_cost, shift, start_plan
from jepakit.planning.mppi import path_weights
from jepakit.types import ActionSpec, State

SAMPLING = ("random", "cem", "icem", "mppi", "cem-gradient")
GAUSSIAN = ("cem", "icem", "mppi", "cem-gradient")
# Budgets that find minima to the digits that the tests below ask for.
THOROUGH: dict[str, dict[str, object]] = {
    "cem": {"samples": 256, "iterations": 40, "elites": 32, "floor": 0.003},
    "icem": {"samples": 256, "iterations": 40, "elites": 32, "floor": 0.003, "beta": 0.5, "shrink": 1.02},
    "mppi": {"samples": 256, "iterations": 40, "elites": 32, "floor": 0.003, "temperature": 1.0},
    "gradient": {"starts": 2, "iterations": 200, "lr": 0.05},
    "cem-gradient": {"samples": 64, "iterations": 20, "elites": 8, "floor": 0.01, "lr": 0.02},
}


def test_the_registry_finds_every_planner_and_no_other_file() -> None:
    assert set(PLANNERS.names()) == {*CONTINUOUS, *DISCRETE}
    assert all(PLANNERS.load(name) for name in PLANNERS.names())


@pytest.mark.parametrize("name", THOROUGH)
@pytest.mark.parametrize("spec", [BOX, BLOCK], ids=["box", "block"])
def test_a_planner_finds_the_minimum_of_a_bowl(name: str, spec: ActionSpec) -> None:
    goal = project(goals(3, 4, spec.size, 0.4), spec)
    plan = planner(name, **THOROUGH[name])(bowl(goal), start_plan(3, 4, spec), spec, rng())
    assert_close(plan.mean, goal, atol=1e-2, rtol=0)
    assert_close(plan.best, goal, atol=1e-2, rtol=0)
    assert_close(plan.cost, bowl(goal)(plan.best[:, None])[:, 0])


@pytest.mark.parametrize("name", THOROUGH)
def test_a_minimum_beyond_the_bounds_is_approached_up_to_them(name: str) -> None:
    goal = torch.full((2, 3, 2), 5.0)
    plan = planner(name, **THOROUGH[name])(bowl(goal), start_plan(2, 3, SHORT), SHORT, rng())
    assert_close(plan.mean, project(goal, SHORT), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", THOROUGH)
def test_a_planner_follows_rosenbrocks_valley(name: str) -> None:
    spec = ActionSpec(2, (-2.0, -2.0), (2.0, 2.0))
    # Searches that sample keep some deviation, or they stop on the slope of the valley.
    knobs = {"iterations": 400} if name == "gradient" else {"floor": 0.03}
    plan = planner(name, **{**THOROUGH[name], **knobs})(rosenbrock, start_plan(2, 1, spec), spec, rng())
    assert (plan.cost < 0.05).all()
    assert (plan.best > 0.6).all()


@pytest.mark.parametrize("name", THOROUGH)
def test_a_planner_controls_a_point_as_well_as_riccati(name: str) -> None:
    x0 = torch.tensor([[1.0, -0.5], [0.3, 2.0], [-2.0, 0.0]]) / 2
    cost = rollout_cost(Point.step, Point.energy, State(x0[:, None]))
    knobs = {**THOROUGH[name], "std": 2.0}
    plan = planner(name, **knobs)(cost, start_plan(3, 8, Point.SPEC), Point.SPEC, rng())
    for b, x in enumerate(x0):
        actions, optimum = Point.best(x, 8)
        assert optimum * (1 - 1e-4) <= plan.cost[b] < optimum * 1.02
        assert_close(plan.best[b, 0], actions[0], atol=0.2, rtol=0)


def test_random_shooting_comes_nearer_with_more_samples() -> None:
    goal = goals(8, 1, 2)
    few, many = (planner("random", samples=n)(bowl(goal), start_plan(8, 1, BOX), BOX, rng()).cost for n in (8, 2048))
    assert many.mean() < 0.01 < few.mean()


CASES = [(name, spec) for name in CONTINUOUS for spec in (BOX, SHORT, BLOCK)] + [(name, CHOICES) for name in DISCRETE]


@pytest.mark.parametrize(("name", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else f"size{v.size}")
def test_every_action_that_a_planner_tries_or_returns_is_allowed(name: str, spec: ActionSpec) -> None:
    seen: list[Tensor] = []
    cost = watched(bowl(torch.full((2, 3, spec.size), 4.0)), seen)
    if name in ("beam", "greedy"):
        cost = watched(lambda a: -a[..., 0].sum(2), seen)
    start = start_plan(2, 3, spec, std=None if spec.discrete else 3.0)
    plan = PLANNERS.load(name)(cost, replace(start, mean=start.mean + 9, best=start.best + 9), spec, rng())
    assert all(allowed(actions, spec) for actions in (*seen, plan.mean, plan.best))


def any_cost(actions: Tensor) -> Tensor:
    """A cost that every planner can search, which is another one for every episode."""
    weights = torch.arange(1, len(actions) + 1, dtype=actions.dtype)
    return ((actions - 0.2 * weights[:, None, None, None]) ** 2).sum((2, 3))


@pytest.mark.parametrize(("name", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else f"size{v.size}")
def test_an_episode_is_planned_to_the_bit_as_if_it_were_alone(name: str, spec: ActionSpec) -> None:
    batch, knobs = 5, {"beta": 1.5} if name in GAUSSIAN else {}
    search = planner(name, **knobs)
    together = search(any_cost, start_plan(batch, 4, spec), spec, rng())
    for b in (0, 3):
        alone = search(
            lambda a, b=b: any_cost(a.expand(batch, -1, -1, -1))[b : b + 1],
            start_plan(1, 4, spec),
            spec,
            rng().of([b], batch),
        )
        for part in ("mean", "best", "std", "probabilities"):
            found, wanted = getattr(alone, part), getattr(together, part)
            assert (found is None and wanted is None) or torch.equal(found[0], wanted[b]), part
        assert torch.equal(alone.energy[:, 0], together.energy[:, b])


@pytest.mark.parametrize(("name", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else f"size{v.size}")
def test_the_lowest_energy_never_rises_and_ends_at_the_cost_of_the_best(name: str, spec: ActionSpec) -> None:
    plan = PLANNERS.load(name)(any_cost, start_plan(3, 2, spec), spec, rng())
    assert (plan.energy.diff(dim=0) <= 0).all()
    assert torch.equal(plan.energy[-1], plan.cost)
    assert_close(plan.cost, any_cost(plan.best[:, None])[:, 0])


@pytest.mark.parametrize(("name", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else f"size{v.size}")
def test_a_cost_that_is_not_a_number_never_wins(name: str, spec: ActionSpec) -> None:
    def broken(actions: Tensor) -> Tensor:
        cost = any_cost(actions)
        # The second episode has no finite cost at all, and the first one only where its first number is positive.
        cost = cost.where(actions[:, :, 0, 0] > 0, math.nan)
        return torch.cat([cost[:1], cost[1:] * math.nan])

    plan = PLANNERS.load(name)(broken, start_plan(2, 1, spec), spec, rng())
    assert allowed(plan.mean, spec)
    assert plan.cost[0].isfinite()
    assert plan.best[0, 0, 0] > 0
    assert plan.cost[1].isinf()
    if name not in DISCRETE:
        assert_close(plan.mean[1], start_plan(2, 1, spec).mean[1])


@pytest.mark.parametrize("name", GAUSSIAN)
def test_one_elite_leaves_the_least_deviation_and_no_nan(name: str) -> None:
    plan = planner(name, elites=1, floor=0.1)(bowl(goals(2, 3, 2)), start_plan(2, 3, BOX), BOX, rng())
    assert plan.std is not None
    assert plan.mean.isfinite().all()
    if name != "icem":  # its momentum keeps some of the older deviation
        assert_close(plan.std, torch.full((2, 3, 2), 0.1))


@pytest.mark.parametrize("name", GAUSSIAN)
def test_without_any_deviation_the_start_is_the_plan(name: str) -> None:
    start = start_plan(2, 3, BOX, std=0.0, mean=goals(2, 3, 2))
    knobs = {"lr": 0.0} if name == "cem-gradient" else {}
    plan = planner(name, floor=0.0, **knobs)(bowl(torch.zeros(2, 3, 2)), start, BOX, rng())
    assert_close(plan.mean, start.mean)
    assert_close(plan.best, start.mean)


@pytest.mark.parametrize("name", [*SAMPLING, "discrete"])
def test_one_sample_is_the_start(name: str) -> None:
    spec = CHOICES if name == "discrete" else BOX
    start = start_plan(2, 1, spec, mean=project(goals(2, 1, spec.size), spec))
    knobs = {} if name == "random" else {"elites": 1}
    knobs |= {"lr": 0.0} if name == "cem-gradient" else {}
    plan = planner(name, samples=1, **knobs)(any_cost, start, spec, rng())
    assert_close(plan.mean, start.mean)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_bounds_that_almost_meet_leave_one_action(name: str) -> None:
    spec = ActionSpec(1, (0.5,), (math.nextafter(0.5, 1.0) + 1e-7,))
    plan = PLANNERS.load(name)(bowl(torch.zeros(2, 2, 1)), start_plan(2, 2, spec), spec, rng())
    assert_close(plan.mean, torch.full_like(plan.mean, 0.5))


@pytest.mark.parametrize("name", [*GAUSSIAN, "gradient"])
def test_a_warm_start_is_a_better_start(name: str) -> None:
    goal = goals(4, 6, 2)
    knobs = {"iterations": 2, "lr": 0.02} if name == "gradient" else {"iterations": 1}
    cold = start_plan(4, 6, BOX)
    good = PLANNERS.load(name)(bowl(goal), cold, BOX, rng())
    later = bowl(torch.cat([goal[:, 1:], torch.zeros(4, 1, 2)], 1))
    warm_cost, cold_cost = (planner(name, **knobs)(later, s, BOX, rng(1)).cost for s in (shift(good), cold))
    assert (warm_cost <= later(shift(good).mean[:, None])[:, 0]).all()
    assert warm_cost.mean() < cold_cost.mean()


def test_the_deviation_of_the_first_samples_is_the_planners_share_of_the_reach_or_that_of_the_start() -> None:
    seen: list[Tensor] = []
    cost = watched(lambda a: a[..., 0].sum(2) * 0, seen)
    spec = ActionSpec(1, (-8.0,), (8.0,))
    planner("cem", samples=4000, iterations=1, std=0.1)(cost, start_plan(1, 1, spec), spec, rng())
    planner("cem", samples=4000, iterations=1, std=0.1)(cost, start_plan(1, 1, spec, std=2.0), spec, rng())
    assert [float(actions.std()) for actions in seen] == pytest.approx([0.8, 2.0], rel=0.05)


def test_coloured_noise_has_the_asked_spectrum_and_variance() -> None:
    seen: list[Tensor] = []
    cost = watched(lambda a: a[..., 0].sum(2) * 0, seen)
    spec = ActionSpec(1)
    for beta in (0.0, 2.0):
        knobs = {"samples": 8000, "iterations": 1, "beta": beta, "std": 1.0}
        planner("cem", **knobs)(cost, start_plan(1, 16, spec), spec, rng())
    white, red = (torch.fft.rfft(actions[0, :, :, 0]).abs().square().mean(0) for actions in seen)
    assert_close(white, torch.full((9,), 16.0), rtol=0.1, atol=0)
    assert_close(red[1] / red[2:5], torch.tensor([4.0, 9.0, 16.0]), rtol=0.1, atol=0)
    assert_close(red[0], red[1], rtol=0.1, atol=0)
    assert_close(seen[1].std(1).mean(), torch.tensor(1.0), rtol=0.05, atol=0)


def test_the_noise_of_blocks_is_coloured_over_their_parts() -> None:
    seen: list[Tensor] = []
    cost = watched(lambda a: a[..., 0].sum(2) * 0, seen)
    for spec, horizon in ((ActionSpec(1), 6), (ActionSpec(1).repeat(3), 2)):
        planner("cem", iterations=1, beta=2.0)(cost, start_plan(1, horizon, spec), spec, rng())
    assert_close(seen[0].flatten(2), seen[1].flatten(2))


def test_icem_draws_fewer_samples_in_later_iterations_and_never_fewer_than_twice_the_elites() -> None:
    seen: list[Tensor] = []
    knobs = {"samples": 40, "elites": 8, "iterations": 6, "shrink": 1.5}
    planner("icem", **knobs)(watched(bowl(goals(1, 2, 2)), seen), start_plan(1, 2, BOX), BOX, rng())
    assert [actions.shape[1] for actions in seen] == [40, 26, 17, 16, 16, 16]


def test_the_weights_of_mppi_do_not_depend_on_the_scale_of_the_energy() -> None:
    goal = goals(2, 3, 2)
    plain, scaled = (
        planner("mppi")(lambda a, f=f: f * bowl(goal)(a) + f, start_plan(2, 3, BOX), BOX, rng()) for f in (1.0, 1000.0)
    )
    assert_close(plain.mean, scaled.mean, atol=1e-3, rtol=0)


def test_the_weights_of_mppi_are_those_of_path_integrals_with_the_temperature_times_the_spread() -> None:
    costs = torch.tensor([[3.0, 1.0, 2.0, math.inf], [5.0, 5.0, 5.0, 5.0], [math.inf] * 4])
    spread = math.sqrt(2 / 3)  # of the finite costs
    first = torch.tensor([math.exp(-2 / (0.7 * spread)), 1.0, math.exp(-1 / (0.7 * spread)), 0.0])
    wanted = torch.stack([first / first.sum(), torch.full((4,), 0.25), torch.zeros(4)])
    assert_close(path_weights(costs, 0.7), wanted)


def test_a_cold_mppi_takes_the_best_sample_and_a_hot_one_averages_all() -> None:
    goal, seen = goals(2, 3, 2), []
    knobs = {"samples": 32, "iterations": 1, "elites": 0}
    cold = planner("mppi", temperature=1e-4, **knobs)(watched(bowl(goal), seen), start_plan(2, 3, BOX), BOX, rng())
    assert_close(cold.mean, cold.best)
    hot = planner("mppi", temperature=1e4, **knobs)(bowl(goal), start_plan(2, 3, BOX), BOX, rng())
    assert_close(hot.mean, seen[0].mean(1), atol=1e-3, rtol=0)


def test_gradients_begin_at_a_given_proposal() -> None:
    seen: list[Tensor] = []
    proposal = goals(2, 3, 2)
    start = start_plan(2, 3, BOX, mean=proposal)
    planner("gradient", starts=3)(watched(bowl(proposal), seen), start, BOX, rng())
    assert_close(seen[0][:, 0], proposal)
    assert (seen[0][:, 1:] != proposal[:, None]).any()


def test_several_starts_find_the_deeper_of_two_valleys() -> None:
    def valleys(actions: Tensor) -> Tensor:
        x = actions[:, :, 0, 0]
        return torch.minimum((x - 0.2).square() + 0.1, (x + 0.7).square())

    spec = ActionSpec(1, (-1.0,), (1.0,))
    one, many = (planner("gradient", starts=n, std=1.0)(valleys, start_plan(1, 1, spec), spec, rng()) for n in (1, 16))
    assert one.cost > 0.09
    assert many.cost < 0.01


@pytest.mark.parametrize("name", ["gradient", "cem-gradient"])
def test_a_cost_without_a_gradient_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no gradient with respect to actions"):
        PLANNERS.load(name)(lambda a: bowl(goals(1, 1, 2))(a.detach()), start_plan(1, 1, BOX), BOX, rng())


def mdp(batch: int) -> tuple[Tensor, Tensor]:
    """Random transitions (B, states, choices) and costs of a small decision process."""
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randint(0, 6, (batch, 6, 3), generator=generator),
        torch.rand(batch, 6, 3, generator=generator),
    )


def mdp_cost(batch: int, actions: Tensor) -> Tensor:
    """What sequences of choices (B, S, H, 3) cost from state 0."""
    follow, price = mdp(batch)
    rows = torch.arange(batch)[:, None]
    state, total = torch.zeros(actions.shape[:2], dtype=torch.int64), torch.zeros(actions.shape[:2])
    for choice in actions.argmax(3).unbind(2):
        total = total + price[rows, state, choice]
        state = follow[rows, state, choice]
    return total


def all_sequences(horizon: int) -> Tensor:
    choices = torch.cartesian_prod(*[torch.arange(3)] * horizon)
    return torch.nn.functional.one_hot(choices, 3).float()


@pytest.mark.parametrize(
    ("name", "knobs"),
    [("beam", {"width": 81}), ("discrete", {"samples": 128, "iterations": 12, "elites": 12})],
)
def test_a_discrete_planner_finds_the_best_of_all_sequences(name: str, knobs: dict[str, object]) -> None:
    batch, horizon = 6, 5
    every = all_sequences(horizon)[None].expand(batch, -1, -1, -1)
    lowest = mdp_cost(batch, every).amin(1)
    start = start_plan(batch, horizon, CHOICES)
    plan = planner(name, **knobs)(lambda a: mdp_cost(batch, a), start, CHOICES, rng())
    assert_close(plan.cost, lowest)
    assert_close(mdp_cost(batch, plan.best[:, None])[:, 0], lowest)


def test_a_wider_beam_is_never_worse_and_one_beam_is_greedy() -> None:
    start = start_plan(6, 5, CHOICES)
    costs = [planner("beam", width=w)(lambda a: mdp_cost(6, a), start, CHOICES, rng()).cost for w in (1, 81)]
    assert (costs[1] <= costs[0]).all()
    first = planner("beam", width=1)(lambda a: mdp_cost(6, a), start, CHOICES, rng()).best[:, 0]
    assert_close(first, planner("greedy")(lambda a: mdp_cost(6, a), start, CHOICES, rng()).best[:, 0])


def test_greedy_looks_one_step_ahead_in_every_direction() -> None:
    goal = torch.tensor([[[0.5, 0.0]], [[0.0, -0.5]], [[-0.3, 0.3]], [[0.0, 0.0]]])
    plan = planner("greedy", directions=64)(bowl(goal), start_plan(4, 5, SHORT), SHORT, rng())
    assert plan.horizon == 1
    assert_close(plan.mean, goal, atol=0.1, rtol=0)
    block = planner("greedy")(bowl(goals(1, 1, 6)), start_plan(1, 1, BLOCK), BLOCK, rng()).mean
    assert_close(block[0, 0, :2], block[0, 0, 4:])


@pytest.mark.parametrize("name", sorted({*CONTINUOUS, *DISCRETE} - {"greedy"}))
def test_actions_of_the_other_kind_are_refused_by_name(name: str) -> None:
    spec = CHOICES if name in CONTINUOUS else BOX
    fits = "use discrete or beam" if name in CONTINUOUS else "use cem or mppi"
    with pytest.raises(ValueError, match=f"planner {name} .*{fits}"):
        PLANNERS.load(name)(any_cost, start_plan(1, 2, spec), spec, rng())


def test_a_cost_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cost of actions .* has shape \(1, 64, 2\)"):
        planner("cem")(lambda a: a.sum(3), start_plan(1, 2, BOX), BOX, rng())


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("cem", {"samples": 4, "elites": 8}, "8 elites of 4 samples"),
        ("mppi", {"temperature": 0.0}, "temperature is 0.0"),
        ("icem", {"shrink": 0.5}, "shrink is 0.5"),
        ("gradient", {"starts": 0}, "starts of the planner gradient is 0"),
        ("discrete", {"doubt": 2.0}, "doubt is 2.0"),
        ("beam", {"width": 0}, "width of the planner beam is 0"),
    ],
)
def test_knobs_that_make_no_search_are_refused(name: str, knobs: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        planner(name, **knobs)


def test_planning_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    plans = [PLANNERS.load(n)(any_cost, start_plan(1, 2, s), s, rng()) for n, s in CASES]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(plan, Plan) for plan in plans)
