"""Any environment of Gymnasium as one of ours."""

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from jepakit.envs import Environment, SimulationError, build_environment
from jepakit.types import ActionSpec, Rng

IDS = np.arange(5)
# Importing the packages of simulators warns of their own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Moody(gymnasium.Env):
    """An environment that can be made to misbehave."""

    def __init__(self, mood: str = "", shape: str = "vector", actions: str = "box") -> None:
        self.mood = mood
        picture = spaces.Box(0, 255, (12, 16, 3), np.uint8)
        vector = spaces.Box(-1.0, 1.0, (3,), np.float64)
        self.observation_space = {
            "vector": vector,
            "picture": picture,
            "dict": spaces.Dict({"camera": picture, "state": vector}),
            "several": spaces.Dict({"left": vector, "right": vector}),
            "discrete": spaces.Discrete(7),
            "volume": spaces.Box(0, 1, (9, 9, 9)),
        }[shape]
        self.action_space = {
            "box": spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64),
            "free": spaces.Box(-np.inf, np.inf, (2,)),
            "choice": spaces.Discrete(3, start=5),
            "many": spaces.MultiDiscrete([2, 3]),
        }[actions]
        self.clock, self.taken = 0, []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.clock = 0
        if self.mood == "new actions" and seed != 0:
            self.action_space = spaces.Discrete(2)
        return self.observation_space.sample() if self.mood == "" else self.look(), {"clock": 0}

    def look(self) -> np.ndarray:
        wide = 4 if self.mood == "new shape" and self.clock > 2 else 3
        return self.np_random.uniform(-1, 1, wide)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.clock += 1
        self.taken.append(action)
        if self.mood == "raises" and self.clock == 3:
            raise ZeroDivisionError("a bug")
        seen = self.observation_space.sample() if self.mood == "" else self.look()
        ends = self.mood == "ends" and self.clock == 2
        return seen, float(self.clock), ends, self.mood == "cut" and self.clock == 2, {"clock": self.clock}


@pytest.fixture(autouse=True)
def moody() -> Iterator[None]:
    gymnasium.register("Moody-v0", Moody, max_episode_steps=40)
    yield
    del gymnasium.registry["Moody-v0"]


def make(mood: str = "", shape: str = "vector", actions: str = "box", **settings: object) -> Environment:
    return build_environment("gym:Moody-v0", options={"mood": mood, "shape": shape, "actions": actions}, **settings)


@pytest.mark.parametrize(("ours", "theirs"), [("pendulum", "gym:Pendulum-v1"), ("cartpole", "gym:CartPole-v1")])
def test_the_adapter_and_our_own_dynamics_agree(ours: str, theirs: str) -> None:
    env, adapter = build_environment(ours), build_environment(theirs, normalise_actions=False)
    assert (env.channels, env.size, env.time_limit) == (adapter.channels, adapter.size, adapter.time_limit)
    assert env.action.size == adapter.action.size
    assert env.action.discrete == adapter.action.discrete
    found = adapter.behave(IDS, Rng(0), 30)
    x = found.x[..., 0].double()
    state = {"motion": x} if ours == "cartpole" else {"angle": torch.atan2(x[:, 1], x[:, 0]), "velocity": x[:, 2]}
    for step in range(30):
        after = env.step(state, found.action[:, step])
        state = after.state
        going = found.length > step
        assert_close(env.observe(state)[going], found.x[going, :, step + 1], atol=2e-5, rtol=2e-5)
        assert_close(after.reward[going], found.reward[going, step], atol=1e-4, rtol=1e-4)
        assert torch.equal(after.terminated[going], found.done[going, step])


def test_an_episode_depends_on_its_id_alone() -> None:
    whole = build_environment("gym:Pendulum-v1").behave(IDS, Rng(0), 10, hold=2)
    env = build_environment("gym:Pendulum-v1")
    parts = [env.behave(part, Rng(0), 10, hold=2) for part in (IDS[3:], IDS[:3])]
    assert torch.equal(torch.cat([parts[1].x, parts[0].x]), whole.x)
    assert torch.equal(torch.cat([parts[1].reward, parts[0].reward]), whole.reward)
    assert not torch.equal(env.behave(IDS, Rng(1), 10).x, whole.x)


def test_bounded_actions_are_scaled_and_choices_counted_from_their_start() -> None:
    env = make("calm")
    assert env.action == ActionSpec(2, (-1.0, -1.0), (1.0, 1.0))
    env.step(env.reset(IDS[:1], Rng(0)), torch.tensor([[-0.5, 3.0]]))
    assert_close(env._simulators[0].env.unwrapped.taken[-1], np.array([-1.0, 10.0]))
    raw = make("calm", normalise_actions=False)
    assert raw.action == ActionSpec(2, (-2.0, 0.0), (2.0, 10.0))
    assert make("calm", actions="free").action == ActionSpec(2)
    choice = make("calm", actions="choice")
    assert choice.action == ActionSpec(3, discrete=True)
    choice.step(choice.reset(IDS[:1], Rng(0)), torch.tensor([[0.1, 0.0, 0.9]]))
    assert choice._simulators[0].env.unwrapped.taken[-1] == 7


def test_frames_are_stacked_with_the_newest_last() -> None:
    one, three = make("calm"), make("calm", stack=3)
    x, stacked = (env.behave(IDS, Rng(0), 4).x for env in (one, three))
    assert stacked.shape == (5, 9, 5)
    assert_close(stacked[:, 6:], x)
    assert_close(stacked[:, :3, 2:], x[:, :, :-2])
    assert_close(stacked[:, :, 0], x[:, :, 0].repeat(1, 3))


def test_pictures_become_channels_first_in_the_unit_range_and_are_resized() -> None:
    whole, small = make(shape="picture"), make(shape="picture", size=8, stack=2)
    assert (whole.channels, whole.size) == (3, (12, 16))
    assert (small.channels, small.size) == (6, (8, 8))
    state = whole.reset(IDS, Rng(0))
    assert 0.9 < whole.observe(state).amax() <= 1
    assert abs(float(small.observe(small.reset(IDS, Rng(0))).mean()) - 0.5) < 0.05
    assert whole.draw(state, 10).shape == (5, 3, 10, 10)


def test_an_entry_of_several_is_chosen_and_the_others_are_facts() -> None:
    env = make(shape="dict")
    assert env.size == (12, 16)
    assert set(env.factors_names) == {"state", "clock"}
    assert make(shape="dict", key="state").channels == 3
    with pytest.raises(ValueError, match="choose one by key: left, right"):
        make(shape="several")
    with pytest.raises(ValueError, match="observes 'camrea'; choose one by key: camera, state"):
        make(shape="dict", key="camrea")
    with pytest.raises(ValueError, match="leave key out"):
        make(key="state")


def test_a_state_can_be_stepped_once() -> None:
    env = make("calm")
    start = env.reset(IDS, Rng(0))
    assert not env.copyable
    after = env.step(start, torch.zeros(5, 2)).state
    with pytest.raises(ValueError, match="has left the state in row 0"):
        env.step(start, torch.zeros(5, 2))
    env.step({name: value[[3, 1]] for name, value in after.items()}, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="has left the state in row 1"):
        env.step(after, torch.zeros(5, 2))


@pytest.mark.parametrize("mood", ["ends", "cut"])
def test_an_episode_that_ends_is_not_stepped_again(mood: str) -> None:
    env = make(mood)
    found = env.behave(IDS, Rng(0), 6)
    assert torch.equal(found.reward[0], torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 0.0]))
    assert env._simulators[0].env.unwrapped.clock == 2
    assert bool(found.done.any()) == (mood == "ends")


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        ({"mood": "new shape"}, r"from \(3,\) to \(4,\); use an environment whose spaces stay the same"),
        ({"mood": "new actions"}, r"changed its actions from Box.* to Discrete\(2\)"),
        ({"shape": "discrete"}, "set pixels to read its rendered picture"),
        ({"shape": "volume"}, "which is no picture; choose another key"),
        ({"actions": "many"}, "wrap it so that they are a Box of one axis or Discrete"),
        ({"goal": "clocks"}, "has no fact 'clocks' for a goal; it has: observation, clock"),
        ({"stack": 0}, "stack is 0; give 1 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(made: dict[str, Any], fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        make(**made).behave(IDS, Rng(0), 5)


def test_a_simulator_that_raises_is_named_by_its_row() -> None:
    with pytest.raises(SimulationError, match="row 0 of the batch: ZeroDivisionError: a bug") as error:
        make("raises").behave(IDS, Rng(0), 5)
    assert error.value.row == 0


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("gym:Pendulums-v1", "no environment 'Pendulums-v1'"),
        ("gym:Pendulum-v77", "no environment 'Pendulum-v77'"),
        ("gym:", "lacks the id of an environment"),
        ("gym", "lacks the id of an environment"),
        ("gym:nowhere.at_all:Some-v0", "not installed .*nowhere"),
    ],
)
def test_an_environment_that_is_not_there_is_refused(name: str, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        build_environment(name)


@pytest.mark.parametrize(("env_id", "package"), [("gym_pusht/PushT-v0", "gym_pusht"), ("Reacher-v5", "mujoco")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    env_id: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for loaded in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(ValueError, match=rf"(?is){package}.*pip install 'jepakit\[control\]'"):
        build_environment(f"gym:{env_id}")


def test_options_that_an_environment_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot be made with these options: .*gravitas"):
        build_environment("gym:CartPole-v1", options={"gravitas": 3})


SIMULATORS = [
    ("gym:gym_pusht/PushT-v0", "gym_pusht", {"options": {"obs_type": "pixels_agent_pos"}, "size": 32,
     "goal": "block_pose", "success_radius": 1.0, "goal_steps": 60}, (3, (32, 32), 300)),
    ("gym:PointMaze_UMaze-v3", "gymnasium_robotics", {}, (4, (), 300)),
    ("gym:PointMaze_UMaze-v3", "gymnasium_robotics", {"pixels": True, "size": 48}, (3, (48, 48), 300)),
    ("gym:Reacher-v5", "mujoco", {"stack": 2}, (20, (), 50)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "package", "settings", "form"), SIMULATORS)
def test_simulators_run_without_a_screen(name: str, package: str, settings: dict[str, Any], form: tuple) -> None:
    pytest.importorskip(package)
    env = build_environment(name, **settings)
    assert (env.channels, env.size, env.time_limit) == form
    found = env.behave(IDS[:3], Rng(0), 12, hold=2)
    assert found.x.shape == (3, form[0], 13, *form[1])
    assert found.x.std() > 0.01
    assert (found.x[:, :, -1] - found.x[:, :, 0]).abs().amax() > 1e-3
    assert_close(env.behave(IDS[1:3], Rng(0), 12, hold=2).x, found.x[1:], atol=1e-6, rtol=0)
    if env.has_goal:
        start, goal = env.tasks(IDS[:3], Rng(0))
        assert not env.is_solved(start, goal).any()
        assert_close(start["x"], found.x[:, :, 0], atol=1e-6, rtol=0)
        assert env.step(start, torch.zeros(3, env.action.size)).state["x"].shape == start["x"].shape
        with pytest.raises(ValueError, match="has left the state"):
            env.step(goal, torch.zeros(3, env.action.size))
    env.close()
