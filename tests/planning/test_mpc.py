import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from costs import planner, rng
from torch import Tensor
from torch.testing import assert_close
from worlds import Counter, Plane, plane_step, plane_tokens

from jepakit.envs import EnvState
from jepakit.planning import Plan, goal_distance, rollout_cost
from jepakit.planning.mpc import (
    Act,
    Seen,
    exploring_agent,
    model_perception,
    mpc,
    planning_agent,
    random_agent,
    true_state,
)
from jepakit.planning.oracle import true_cost, true_distance, true_return
from jepakit.planning.plan import Cost
from jepakit.types import ActionSpec, Rng, State


def agent_to(goal: EnvState, env: Plane, horizon: int = 3, replan_every: int = 1, block: int = 1) -> Act:
    energy = goal_distance(plane_tokens(env.observe(goal)))
    perceive = model_perception(lambda x: State(plane_tokens(x)), lambda state, x, action: State(plane_tokens(x)))
    spec = env.action.repeat(block)
    search = planner("cem", samples=64, iterations=10)
    return planning_agent(perceive, lambda s: rollout_cost(plane_step, energy, s), search, spec, horizon, replan_every)


def plane_tasks(batch: int, env: Plane) -> tuple[EnvState, EnvState]:
    return env.tasks(np.arange(batch), rng())


@pytest.mark.parametrize(("block", "replan_every"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_an_agent_that_plans_arrives_and_stays(block: int, replan_every: int) -> None:
    env = Plane()
    start, goal = plane_tasks(6, env)
    episode = mpc(env, start, agent_to(goal, env, 3, replan_every, block), 20, block=block, rng=rng())
    assert episode.states["position"].shape == (6, 21, 2)
    assert episode.action.shape == (6, 20, 2)
    assert episode.decisions == math.ceil(20 / (block * replan_every))
    assert env.is_solved({"position": episode.states["position"][:, -1]}, goal).all()
    assert_close(episode.length, torch.full((6,), 20))
    assert not episode.failed


def test_every_state_follows_from_the_one_before_and_the_action() -> None:
    env = Plane()
    start, goal = plane_tasks(3, env)
    episode = mpc(env, start, agent_to(goal, env), 8, rng=rng())
    for t in range(8):
        after = env.step({"position": episode.states["position"][:, t]}, episode.action[:, t])
        assert_close(after.state["position"], episode.states["position"][:, t + 1])
        assert_close(after.reward, episode.reward[:, t])


def test_an_episode_is_the_same_alone_and_among_others() -> None:
    env = Plane()
    start, goal = plane_tasks(4, env)
    together = mpc(env, start, agent_to(goal, env), 6, rng=rng())
    one = ({name: value[2:3] for name, value in side.items()} for side in (start, goal))
    start, goal = one
    alone = mpc(env, start, agent_to(goal, env), 6, rng=rng().of([2], 4))
    assert torch.equal(alone.action[0], together.action[2])


@pytest.mark.parametrize(("block", "share"), [(1, 0.3), (2, 0.3), (1, 0.0), (1, 1.0)])
def test_a_share_of_single_actions_is_random_and_every_episode_has_its_own(block: int, share: float) -> None:
    env = Plane()
    spec = env.action.repeat(block)
    still = lambda seen, memory, rng: (torch.zeros(len(seen.x), 2, spec.size), memory)  # noqa: E731
    agent = exploring_agent(still, spec, share)
    start, _ = plane_tasks(20, env)
    action = mpc(env, start, agent, 40, block=block, rng=rng()).action.reshape(20, -1, spec.size)
    moved = (action != 0).any(2)
    assert_close(moved.float().mean(), torch.tensor(share), atol=0.08, rtol=0)
    assert (action.reshape(-1, 2).norm(dim=1) <= 0.2 + 1e-6).all()
    alone = mpc(env, {"position": start["position"][7:8]}, agent, 40, block=block, rng=rng().of([7], 20)).action
    assert torch.equal(alone.reshape(action[7].shape), action[7])
    assert share == 0 or not torch.equal(action[7], action[8])


def test_an_end_is_told_from_the_last_step() -> None:
    env = Counter()
    count = lambda seen, memory, rng: (torch.tensor([[[0.0, 1.0]]] * len(seen.x)), memory)  # noqa: E731
    for steps, ended in ((3, [False, False, True]), (4, [False, True, True]), (9, [True, True, True])):
        assert mpc(env, env.reset(np.arange(3), rng()), count, steps, rng=rng()).terminated.tolist() == ended


def test_an_agent_sees_every_frame_since_it_decided_and_what_led_to_each() -> None:
    env, log = Plane(), []

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        log.append(seen)
        return torch.full((2, 2, 4), 0.01 * len(log)), None

    start, _ = plane_tasks(2, env)
    mpc(env, start, act, 8, block=2, rng=rng())
    assert [tuple(seen.x.shape) for seen in log] == [(2, 1, 2), (2, 2, 2)]
    assert [tuple(seen.action.shape) for seen in log] == [(2, 0, 4), (2, 2, 4)]
    assert_close(log[1].x[:, 0], start["position"] + 0.02)
    assert_close(log[1].x[:, 1], log[1].state["position"])


def test_the_observation_is_encoded_once_a_plan() -> None:
    encoded: list[int] = []

    def start_state(x: Tensor) -> State:
        encoded.append(len(x))
        return State(plane_tokens(x))

    env = Plane()
    start, goal = plane_tasks(5, env)
    energy = goal_distance(plane_tokens(env.observe(goal)))
    perceive = model_perception(start_state, lambda state, x, action: start_state(x))
    search = planner("cem", samples=16, iterations=3)
    act = planning_agent(perceive, lambda s: rollout_cost(plane_step, energy, s), search, env.action, 4, 2)
    mpc(env, start, act, 8, rng=rng())
    # Two actions a plan, and both of their frames are observed.
    assert encoded == [5] * 7


def test_a_plan_starts_at_what_is_left_of_the_last_one() -> None:
    starts: list[Plan] = []

    def search(cost: Cost, start: Plan, spec: ActionSpec, rng: Rng) -> Plan:
        starts.append(start)
        return replace(start, mean=torch.arange(4.0)[None, :, None].expand(2, 4, 2) * 0.01 + 0.01)

    env = Plane()
    act = planning_agent(true_state, lambda s: lambda a: a.sum((2, 3)), search, env.action, 4, 3)
    mpc(env, plane_tasks(2, env)[0], act, 6, rng=rng())
    assert not starts[0].mean.any()
    assert_close(starts[1].mean[0, :, 0], torch.tensor([0.04, 0.0, 0.0, 0.0]))


def test_what_an_agent_draws_differs_from_one_decision_to_the_next() -> None:
    env = Plane()
    episode = mpc(env, plane_tasks(3, env)[0], random_agent(env.action.repeat(2)), 20, block=2, rng=rng())
    flat = episode.action.reshape(-1, 2)
    assert len(torch.unique(flat, dim=0)) == 60
    assert (flat.norm(dim=1) <= 0.2 + 1e-6).all()


def test_an_episode_ends_where_the_environment_says() -> None:
    env = Counter()
    count = torch.tensor([[0.0, 1.0]])

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        return count.expand(3, 1, 2), None

    episode = mpc(env, env.reset(np.arange(3), rng()), act, 10, rng=rng())
    assert episode.length.tolist() == [5, 4, 3]
    assert episode.reward.sum(1).tolist() == [15.0, 14.0, 12.0]
    assert episode.states["count"][:, -1].tolist() == [5.0, 5.0, 5.0]
    assert episode.action.shape[1] == 5  # nobody is left to act


@pytest.mark.parametrize("name", ["discrete", "beam"])
def test_an_oracle_counts_as_fast_as_its_end_allows(name: str) -> None:
    env = Counter()
    act = planning_agent(true_state, lambda s: true_cost(env, s, true_return()), planner(name), env.action, 6)
    episode = mpc(env, env.reset(np.arange(1), rng()), act, 12, rng=rng())
    # It waits at 4, where every step is worth 4 and the end is worth 5 once.
    assert episode.states["count"][0].max() == 4
    assert episode.length.tolist() == [12]


def test_an_oracle_finds_the_way_with_the_true_distance_and_blocks() -> None:
    env = Plane()
    start, goal = plane_tasks(4, env)
    energy = true_distance(env, goal, "straight")
    spec = env.action.repeat(2)
    act = planning_agent(true_state, lambda s: true_cost(env, s, energy), planner("cem"), spec, 3)
    episode = mpc(env, start, act, 20, block=2, rng=rng())
    assert env.is_solved({"position": episode.states["position"][:, -1]}, goal).all()


def test_the_true_cost_of_blocks_is_that_of_their_actions_one_by_one_in_chunks_or_not() -> None:
    env = Plane()
    start = plane_tasks(2, env)[0]
    actions = 0.3 * torch.randn(2, 7, 2, 6, generator=torch.Generator().manual_seed(0))
    cost = true_cost(env, start, true_return(0.9))(actions)
    assert_close(true_cost(env, start, true_return(0.9), memory_limit=1)(actions), cost)
    state, rewards = {"position": start["position"]}, []
    for t in range(6):
        after = env.step(state, actions[:, 3].reshape(2, 6, 2)[:, t])
        state, _ = after.state, rewards.append(after.reward)
    wanted = -(sum(rewards[:3]) + 0.9 * sum(rewards[3:]))
    assert_close(cost[:, 3], wanted)
    with pytest.raises(ValueError, match="can be copied"):
        true_cost(Plane(copyable=False), start, true_return())


def to_the_right(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
    """Rows 0 and 2 go right, the others stay."""
    action = torch.zeros(len(seen.x), 1, 2)
    action[::2, :, 0] = 0.2
    return action, None


def test_the_others_go_on_if_one_environment_raises_an_error() -> None:
    env = Plane(breaks_at=0.5)
    start = {"position": torch.tensor([[0.0, 0.0], [0.1, 0.3], [-0.9, 0.0], [0.4, 0.0]])}
    episode = mpc(env, start, to_the_right, 6, rng=rng())
    assert episode.failed == {0: "RuntimeError at step 3: the simulator broke"}
    assert episode.length.tolist() == [2, 6, 6, 6]
    assert_close(episode.states["position"][2, -1, 0], torch.tensor(0.3))
    assert_close(episode.states["position"][1], start["position"][1].expand(7, 2))


def test_all_that_run_have_failed_if_a_simulator_that_cannot_be_copied_raises_an_error() -> None:
    env = Plane(breaks_at=0.5, copyable=False)
    start = {"position": torch.tensor([[0.0, 0.0], [0.1, 0.3]])}
    episode = mpc(env, start, to_the_right, 6, rng=rng())
    assert sorted(episode.failed) == [0, 1]
    assert episode.length.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (torch.zeros(2, 1, 3), r"shape \(2, 1, 3\)"),
        (torch.zeros(2, 0, 2), r"\(2, K, 2\)"),
        (torch.tensor([[[0.0, 0.0]], [[math.nan, 0.0]]]), "environment 1 are not finite"),
    ],
)
def test_actions_that_do_not_fit_are_the_agents_mistake_not_the_environments(actions: Tensor, words: str) -> None:
    env = Plane()
    with pytest.raises(ValueError, match=words):
        mpc(env, plane_tasks(2, env)[0], lambda seen, memory, rng: (actions, None), 4, rng=rng())


def test_a_plan_shorter_than_what_is_done_of_it_is_refused() -> None:
    with pytest.raises(ValueError, match="replan_every is 4 and the horizon 3"):
        planning_agent(true_state, lambda s: lambda a: a, planner("cem"), Plane.action, 3, 4)
