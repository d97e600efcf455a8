"""Pendulum and CartPole, and the environments as Gymnasium sees them."""

import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor
from torch.testing import assert_close

from jepakit.envs import ENVS, Environment, build_environment, register
from jepakit.types import Rng

IDS = np.arange(64)
PENDULUM = build_environment("pendulum")
CARTPOLE = build_environment("cartpole")


def test_a_pendulum_moves_as_gymnasiums_own_does() -> None:
    state = PENDULUM.reset(IDS[:8], Rng(0))
    torques = np.random.default_rng(0).uniform(-2.5, 2.5, (200, 8)).astype(np.float32)  # some are out of bounds
    theirs = [gymnasium.make("Pendulum-v1").unwrapped for _ in range(8)]
    for b, env in enumerate(theirs):
        env.reset(seed=0)
        env.state = np.array([float(state["angle"][b]), float(state["velocity"][b])])
    for torque in torques:
        after = PENDULUM.step(state, torch.from_numpy(torque)[:, None])
        state, x = after.state, PENDULUM.observe(after.state)
        for b, env in enumerate(theirs):
            observation, reward, *_ = env.step(torque[b : b + 1].astype(np.float64))
            assert_close(x[b], torch.from_numpy(observation), atol=1e-6, rtol=0)
            assert abs(float(after.reward[b]) - float(reward)) < 1e-5  # float32 of up to 16
            assert abs(float(state["angle"][b]) - env.state[0]) < 1e-6


def test_a_cart_moves_and_an_episode_ends_as_gymnasiums_own_does() -> None:
    pushes = np.random.default_rng(0).integers(0, 2, (300, 16))
    for b in range(16):
        env = gymnasium.make("CartPole-v1").unwrapped
        env.reset(seed=b)
        state = {"motion": torch.from_numpy(env.state)[None] * (1 + 10 * (b % 2))}
        env.state = state["motion"][0].numpy().copy()
        for step in range(300):
            after = CARTPOLE.step(state, torch.eye(2)[pushes[step, b]][None])
            observation, reward, terminated, _, _ = env.step(int(pushes[step, b]))
            state = after.state
            assert_close(CARTPOLE.observe(state)[0], torch.from_numpy(observation), atol=1e-6, rtol=0)
            assert_close(state["motion"][0], torch.from_numpy(env.state), atol=1e-6, rtol=0)
            assert (float(after.reward[0]), bool(after.terminated[0])) == (reward, terminated)
            if terminated:
                break
        assert terminated


def test_starts_are_distributed_as_gymnasiums_are() -> None:
    start = PENDULUM.reset(np.arange(4000), Rng(0))
    assert abs(float(start["angle"].std()) - 2 * math.pi / math.sqrt(12)) < 0.05
    assert float(start["angle"].abs().amax()) <= math.pi
    assert abs(float(start["velocity"].std()) - 2 / math.sqrt(12)) < 0.02
    motion = CARTPOLE.reset(np.arange(4000), Rng(0))["motion"]
    assert motion.abs().amax() <= 0.05
    assert_close(motion.std(0), torch.full((4,), 0.1 / math.sqrt(12), dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["pendulum", "pendulum-pixels", "cartpole"])
@pytest.mark.parametrize("policy", ["random", "scripted"])
def test_an_episode_depends_on_its_id_alone(name: str, policy: str) -> None:
    env = build_environment(name)
    whole = env.behave(IDS, Rng(0), 40, policy, hold=4)
    parts = [env.behave(part, Rng(0), 40, policy, hold=4) for part in np.array_split(IDS, 5)]
    for field in ("x", "action", "reward", "done", "length"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field)), field


@pytest.mark.parametrize("policy", ["random", "scripted"])
def test_actions_are_held_by_every_policy(policy: str) -> None:
    action = PENDULUM.behave(IDS, Rng(0), 40, policy, hold=4).action.unflatten(1, (10, 4))
    assert torch.equal(action, action[:, :, :1].expand_as(action))
    assert (action[:, 1:, 0] != action[:, :-1, 0]).float().mean() > 0.3


def test_an_episode_that_ends_keeps_its_last_frame_and_earns_nothing_more() -> None:
    found = CARTPOLE.behave(IDS, Rng(0), 100)
    assert found.x.shape == (64, 4, 101)
    assert 9 < found.length.float().mean() < 40  # a random policy's, known from Gymnasium
    assert torch.equal(found.reward.sum(1), found.length.float())
    assert torch.equal(found.done.sum(1), torch.ones(64, dtype=torch.int64))
    for b in range(64):
        end = int(found.length[b])
        assert found.done[b, end - 1]
        assert torch.equal(found.x[b, :, end:], found.x[b, :, end:][:, :1].expand(-1, 101 - end))


def test_scripted_policies_solve_their_tasks() -> None:
    assert CARTPOLE.behave(IDS, Rng(0), 500, "scripted").reward.sum(1).mean() >= 475
    assert PENDULUM.behave(IDS, Rng(0), 200, "scripted").reward.sum(1).mean() > -250
    assert PENDULUM.behave(IDS, Rng(0), 200, "random").reward.sum(1).mean() < -900


def test_a_hidden_velocity_is_in_no_observation() -> None:
    for name, seen in (("pendulum", 2), ("cartpole", 2)):
        env = build_environment(name, hide_velocity=True)
        assert env.observe(env.reset(IDS, Rng(0))).shape == (64, seen)
    env = build_environment("pendulum-pixels")
    state = env.reset(IDS, Rng(0))
    assert torch.equal(env.observe(state), env.observe({**state, "velocity": state["velocity"] + 1}))


def test_a_picture_of_a_pendulum_tells_its_angle() -> None:
    env = build_environment("pendulum", observation="pixels", size=48)
    state = env.reset(IDS, Rng(0))
    x = env.observe(state)
    assert x.shape == (64, 1, 48, 48)
    assert ((x >= 0) & (x <= 1)).all()
    grid = torch.linspace(-1, 1, 48)
    weight = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    right, up = (weight.sum(1) * grid).sum(1), -(weight.sum(2) * grid).sum(1)
    # A positive angle is to the left, as in Gymnasium's picture.
    turn = torch.atan2(-right, up) - state["angle"].float()
    assert (torch.remainder(turn + math.pi, 2 * math.pi) - math.pi).abs().amax() < 0.02


@pytest.mark.parametrize("name", ["two-rooms", "pendulum", "cartpole"])
def test_every_environment_can_be_drawn(name: str) -> None:
    env = build_environment(name)
    picture = env.draw(env.reset(IDS, Rng(0)), 40)
    assert picture.shape == (64, 3, 40, 40)
    assert ((picture >= 0) & (picture <= 1)).all()
    assert picture.std(0).amax() > 0.05


def own_environments() -> list[str]:
    return [name for name in ENVS.names() if name != "gym"]


@pytest.mark.parametrize("name", own_environments())
def test_every_environment_keeps_the_interface(name: str) -> None:
    env = build_environment(name)
    state = env.reset(IDS, Rng(0))
    before = {key: value.clone() for key, value in state.items()}
    after = env.step(state, torch.zeros(64, env.action.size))
    assert all(torch.equal(state[key], before[key]) for key in before), "step changes its argument"
    assert after.state.keys() == state.keys()
    assert after.reward.shape == after.terminated.shape == (64,)
    assert env.observe(state).shape == (64, env.channels, *env.size)
    assert env.observe(state).dtype == after.reward.dtype == torch.float32
    assert tuple(env.factors(state)) == env.factors_names
    assert all(value.ndim == 2 and value.dtype == torch.float32 for value in env.factors(state).values())
    if not env.has_goal:
        with pytest.raises(ValueError, match="has no goals"):
            env.tasks(IDS, Rng(0))
    for policy in env.policies:
        found = env.behave(IDS, Rng(0), 4, policy)
        assert_close(replayed(env, found.states, found.action), found.x)


def replayed(env: Environment, states: dict[str, Tensor], action: Tensor) -> Tensor:
    """The observations of the same actions from the same start, one step after the other."""
    state = {key: value[:, 0] for key, value in states.items()}
    frames = [env.observe(state)]
    for a in action.unbind(1):
        state = env.step(state, a).state
        frames.append(env.observe(state))
    return torch.stack(frames, 2)


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [*((env_id, {}) for env_id in register.IDS), ("jepakit/TwoRooms-v0", {"wall": "random"}),
     ("jepakit/Pendulum-v0", {"observation": "pixels"})],
)  # fmt: skip
def test_gymnasiums_checker_passes(env_id: str, settings: dict[str, str]) -> None:
    with warnings.catch_warnings():
        # Of bounds other than ±1, as Gymnasium's own Pendulum and CartPole have them.
        warnings.filterwarnings("ignore", message=".*(normalized space|probably too (low|high)).*")
        check_env(gymnasium.make(env_id, render_mode="rgb_array", **settings).unwrapped)


def test_a_world_of_gymnasium_is_one_of_ours() -> None:
    env = gymnasium.make("jepakit/TwoRooms-v0", wall="random", disable_env_checker=True)
    observation, info = env.reset(seed=3)
    assert info["distance"] > 7
    assert info["goal"].shape == observation.shape == (2, 33, 33)
    first = observation
    for _ in range(200):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert terminated == (info["distance"] < 4.5) == (reward == 1)
        if terminated or truncated:
            break
    assert truncated or terminated
    assert np.array_equal(env.reset(seed=3)[0], first)
    assert not np.array_equal(env.reset(seed=4)[0], first)
