"""Plans of a trained run: within bounds, under a protocol, beside a floor and an oracle."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import Recorder
from torch.testing import assert_close

import jepakit as jk
from jepakit.cli import text
from jepakit.envs import build_environment
from jepakit.inference import decoder, plan
from jepakit.inference.energies import Form
from jepakit.inference.landscapes import energy_of_places
from jepakit.inference.world import open_world
from jepakit.methods.decoder import Decoder
from jepakit.planning.energy import goal_distance
from jepakit.planning.mpc import Seen
from jepakit.planning.plan import shift
from jepakit.run import checkpoint
from jepakit.run.folder import write_settings
from jepakit.studies.worldmodel.plans import stored_plan
from jepakit.types import Rng

SMALL: dict[str, Any] = {
    "data.size": [9, 9],
    "data.count": 60,
    "data.action_repeat": 2,
    "length.batch": 16,
    "loop.workers": 0,
    "evals.kinds": [],
    "evals.report": False,
}
QUICK: dict[str, Any] = {"cem.samples": 8, "cem.iterations": 2, "cem.elites": 2}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world model of small Two Rooms after a few steps; it need not be good."""
    out = tmp_path_factory.mktemp("plan") / "rooms"
    jk.train("two-rooms-fixed", out, recipe="worldmodel", steps=5, settings=SMALL, quiet=True)
    return out


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world model of cart-pole with heads for reward and end, after a few steps."""
    out = tmp_path_factory.mktemp("plan") / "pole"
    own = {"data.count": 40, "length.batch": 16, "loop.workers": 0, "evals.kinds": [], "evals.report": False}
    own |= {"heads": "none"}
    jk.train(None, out, recipe="cartpole", steps=5, settings=own, quiet=True)
    return out


def frames(count: int) -> torch.Tensor:
    env = build_environment("two-rooms-fixed", size=9)
    return env.observe(env.reset(np.arange(count), Rng(1)))


# --- a loop of one's own


def test_a_plan_holds_the_actions_of_every_episode_within_their_bounds(rooms: Path) -> None:
    found = jk.plan(rooms, frames(3), frames(6)[3:], horizon=4, settings=QUICK)
    assert found.mean.shape == (3, 4, 2)
    assert (found.mean.norm(dim=2) <= 2.45 + 1e-5).all()
    assert (found.energy[1:] <= found.energy[:-1]).all()


def test_a_single_frame_is_a_batch_of_one_and_a_loaded_model_plans_alike(rooms: Path) -> None:
    obs, goal = frames(2)
    one = jk.plan(rooms, obs, goal, horizon=3, settings=QUICK)
    assert_close(jk.plan(jk.load(rooms), obs[None], goal[None], horizon=3, settings=QUICK).mean, one.mean)


def test_a_model_that_learned_the_way_to_go_plans_by_it(tmp_path: Path) -> None:
    own = SMALL | {"data.group": 4, "method.encoder.kernel": 5}
    jk.train(None, tmp_path / "run", recipe="two-rooms-random", steps=3, settings=own, quiet=True)
    world = open_world(checkpoint.load_run(tmp_path / "run"), tmp_path / "run")
    assert world.energies.describe(True) == "learned distance to go, sum over the path"
    path, goal = torch.randn(2, 3, 5, 1, 16), torch.randn(2, 1, 16)
    found = world.energies.of_goal(goal)(path, torch.zeros(2, 3, 4, 2))
    steps = world.energies.method.steps_to_go(path[1, 2, 1:], goal[1])
    assert_close(found[1, 2], steps.sum())


def test_a_search_starts_from_the_plan_that_it_is_given(rooms: Path) -> None:
    obs, goal = frames(2)
    first = jk.plan(rooms, obs, goal, horizon=3, settings=QUICK)
    begin = shift(first)
    again = jk.plan(rooms, obs, goal, start=begin, settings={**QUICK, "cem.samples": 1, "cem.elites": 1})
    assert_close(again.mean, begin.mean)


def test_without_a_goal_predicted_rewards_count(pole: Path) -> None:
    env = build_environment("cartpole")
    obs = env.observe(env.reset(np.arange(2), Rng(0)))
    found = jk.plan(pole, obs, planner="discrete", horizon=3)
    assert (found.mean.sum(2) == 1).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"goal": torch.zeros(2, 2, 9, 9)}, "1 observations and 2 goals"),
        ({"goal": torch.zeros(1, 3, 9, 9)}, r"the frame is \(1, 3, 9, 9\)"),
        ({"planner": "cemm"}, "Did you mean 'cem'"),
        ({"settings": {"mppi.samples": 3}}, "mppi is not the planner cem"),
        ({"settings": {"cem.sample": 3}}, "samples"),
        ({"goal": None}, "this model predicts no rewards"),
        ({"source": "metric"}, "jepa train --resume --out RUN --heads metric"),
        ({"planner": "beam"}, "takes choices"),
    ],
)
def test_a_mistake_in_a_plan_is_one_sentence(rooms: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        jk.plan(rooms, frames(1), **{"goal": frames(1), **options})


# --- episodes under a protocol


def test_a_run_acts_beside_a_random_policy_and_an_oracle_and_says_what_it_knows(rooms: Path) -> None:
    done = plan.plan_run(rooms, episodes=4, steps=6, horizon=2, film=False, settings=QUICK)
    result = json.loads(done.path.read_text())
    assert done.path.parent == rooms / "evals"
    assert done.path.stem.startswith("plan-cem")
    assert set(result["agents"]) == {plan.PLANNER, plan.RANDOM, plan.ORACLE, plan.GREEDY_MODEL, plan.GREEDY_TRUE}
    needed = {
        "success_end",
        "success_ever",
        "return",
        "low",
        "high",
        "floor",
        "oracle",
        "seconds_per_action",
        "protocol",
    }
    assert needed <= set(result)
    assert (result["protocol"]["block"], result["protocol"]["steps"], result["protocol"]["episodes"]) == (2, 6, 4)
    assert set(result["model"]["factors"]) == {"position", "wall", "door"}
    assert len(result["model"]["factors"]["position"]["imagined"]) == 2
    assert result["model"]["ghosting"]["pushes"][-1] > 0
    assert "over the floor, latent distance (l2): rank correlation" in text.describe_plans(done)
    check_landscapes(result["landscapes"], done.path.with_suffix(".npz"))


def check_landscapes(facts: dict[str, Any], file: Path) -> None:
    """The pictures of the energy beside a result: as many as it says, and true where truth is known."""
    assert set(facts["floor"]["correlation"]) == {"latent distance (l2)", "straight line"}
    assert facts["floor"]["arrives"]["true way to go"] == 1
    assert facts["actions"]["maps"] == ["on the model", "on the true dynamics"]
    with np.load(file) as stored:
        episodes, maps, *sides = stored["floor_energy"].shape
        assert (episodes, maps) == (len(facts["episodes"]), len(facts["floor"]["maps"]))
        assert stored["floor_arrives"].shape == (episodes, maps, *sides)
        start, goal = stored["floor_ends"][0]
        way = stored["floor_energy"][0, 0].ravel()
        assert way[goal] == np.nanmin(way) < way[start]
        assert stored["action_energy"].shape[:2] == (episodes, 2)
        assert np.abs(stored["action_choice"]).max() <= 2.45


def test_episodes_are_the_same_again(rooms: Path) -> None:
    options: dict[str, Any] = {"episodes": 3, "steps": 4, "horizon": 2, "film": False, "diagnose": False}
    one, two = (plan.plan_run(rooms, settings=QUICK, **options).result for _ in range(2))
    timed = {"seconds_per_action", "seconds_per_decision", "agents"}
    assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in two.items() if k not in timed}


def test_another_protocol_or_energy_replaces_no_result(rooms: Path) -> None:
    options: dict[str, Any] = {"steps": 2, "horizon": 1, "film": False, "diagnose": False, "settings": QUICK}
    paths = [
        plan.plan_run(rooms, episodes=n, reduce=how, **options).path for n, how in ((2, "sum"), (3, "sum"), (2, "last"))
    ]
    assert len(set(paths)) == 3
    assert plan.plan_run(rooms, episodes=2, **options).path == paths[0]
    # A study takes what is stored for its own protocol and energy, and nothing else.
    stored = [
        stored_plan(rooms, "cem", {"episodes": n, "reduce": how, **options}) for n, how in ((2, "last"), (2, "sum"))
    ]
    assert stored == [json.loads(paths[2].read_text()), json.loads(paths[0].read_text())]
    assert stored_plan(rooms, "cem", {"episodes": 3, "reduce": "last", **options}) is None


def test_the_oracle_may_search_more_than_the_model_and_the_protocol_says_so(pole: Path) -> None:
    options: dict[str, Any] = {"episodes": 2, "steps": 6, "horizon": 2, "film": False, "diagnose": False}
    more = {"oracle.planner": "beam", "oracle.horizon": "3"}
    one, two = (plan.plan_run(pole, planner="discrete", settings=settings, **options).result for settings in ({}, more))
    assert one["protocol"]["oracle"] is None
    assert two["protocol"]["oracle"] == "beam (width 32), horizon 3 actions"
    assert two["return"] == one["return"]


def test_returns_are_compared_where_there_is_no_goal(pole: Path) -> None:
    done = plan.plan_run(pole, planner="discrete", episodes=3, steps=8, horizon=2, film=False, diagnose=False)
    assert done.result["success_end"] is None
    assert 1 <= done.result["return"] <= 8
    assert "predicted rewards" in done.result["energy"]


def test_the_energy_of_a_place_is_that_of_staying_there() -> None:
    tokens, goal = torch.randn(700, 2, 3), torch.randn(1, 2, 3)
    found = energy_of_places(goal_distance(goal, reduce="last"), tokens, action_size=2)
    assert_close(found, (tokens - goal).square().mean((1, 2)))


def test_a_result_without_pictures_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    plan.save_arrays(file := tmp_path / "plan.npz", {"floor_x": np.arange(3.0)})
    with np.load(file) as stored:
        assert stored["floor_x"].tolist() == [0, 1, 2]
    plan.save_arrays(file, {})
    assert not list(tmp_path.iterdir())


def test_a_film_shows_present_plan_and_goal(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "HEAD_STEPS", 3)
    monkeypatch.setattr("jepakit.training.request.HEAD_STEPS", 3)
    done = plan.plan_run(rooms, episodes=2, steps=8, horizon=2, diagnose=False, settings=QUICK)
    assert done.film == done.path.with_suffix(".gif")
    with Image.open(done.film) as film:
        assert getattr(film, "n_frames", 1) == 4
        assert film.size[0] > 3 * 150
    page = jk.report(rooms).read_text()
    assert "Planning" in page
    assert "data:image/gif;base64," in page


def test_an_earlier_checkpoint_leaves_the_decoder_of_the_newest_alone(rooms: Path) -> None:
    first, *_, newest = checkpoint.saved_steps(rooms)
    loaded, shown = checkpoint.load_run(rooms, first), Recorder()
    assert first < newest
    assert plan.frame_decoder(rooms, loaded, open_world(loaded, rooms), shown) is None
    assert shown.said("the decoder belongs to the newest checkpoint")


def test_a_decoder_of_another_kind_is_refused_before_the_first_episode(rooms: Path, tmp_path: Path) -> None:
    run = shutil.copytree(rooms, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("heads", "evals"))
    stored = checkpoint.load_run(run)
    cfg = Decoder.Config(parents=(str(run),), parent_hashes=(checkpoint.module_hash(stored.method),), reads="context")
    write_settings(run / "heads" / "decoder", dataclasses.replace(stored.run, method=cfg))
    with pytest.raises(ValueError, match=r"reads context, and a film needs target; give --no-film"):
        plan.plan_run(run, episodes=1, steps=2, settings=QUICK, diagnose=False)
    assert not (run / "evals").exists()


def test_a_head_whose_training_was_interrupted_is_named(rooms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "heads" / "metric"
    write_settings(folder, checkpoint.load_run(rooms).run)
    for step, notes in ((3, 1), (5, 0)):
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
        found = plan.describe_unfinished_heads(tmp_path)
        assert len(found) == notes
        assert all("is at step 3 of 5; finish it with jepa train --resume" in note for note in found)


def test_a_search_for_an_oracle_that_cannot_exist_is_refused(pole: Path) -> None:
    loaded = checkpoint.load_run(pole)
    world = dataclasses.replace(open_world(loaded, pole), env=build_environment("gym:CartPole-v1"))
    assert not world.env.copyable
    with pytest.raises(ValueError, match=r"gym:CartPole-v1 cannot be copied.*leave out oracle\.horizon"):
        plan.refuse_unfit(pole, loaded, world, {"horizon": 3}, film=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"environment": "cartpole"},
            "cartpole shows frames of 4 channels, but the model was trained on 2 channels of 9 x 9",
        ),
        ({"environment": "two-roms"}, "no environment"),
        ({"settings": {"env.size": 17}}, "of 17 x 17 px, but the model was trained on 2 channels of 9 x 9 px"),
        ({"planner": "discrete"}, "takes choices"),
        ({"source": "reward"}, "predicts no rewards"),
        ({"episodes": 0}, "episodes of the protocol is 0"),
        ({"horizon": 2, "replan_every": 3}, "replan_every is 3 and the horizon 2"),
        ({"settings": {"oracle.sample": 17}}, "No setting oracle.sample. Did you mean oracle.samples"),
        ({"settings": {"oracle.horizon": 0}}, "oracle.horizon is 0; give 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    rooms: Path, options: dict[str, Any], sentence: str
) -> None:
    for file in (rooms / "evals").glob("plan-*.json"):
        file.unlink()
    with pytest.raises(ValueError, match=sentence):
        plan.plan_run(rooms, **{"steps": 4, "film": False, "diagnose": False, **options})
    assert not list((rooms / "evals").glob("plan-*.json"))


def test_a_run_without_actions_cannot_plan(tmp_path: Path) -> None:
    run = tmp_path / "a"
    jk.train("sines", run, recipe="rjepa", steps=1, settings={"evals.report": False}, quiet=True)
    with pytest.raises(ValueError, match="without actions, so it cannot plan"):
        plan.plan_run(run)


# --- from the model's steps to the environment's


def test_blocks_unfold_into_held_actions_and_fold_back() -> None:
    form = Form(repeat=3, block=2)
    actions = torch.arange(8.0).reshape(1, 2, 4)
    unfolded = form.unfold(actions)
    assert unfolded.shape == (1, 2, 12)
    assert unfolded[0, 0].reshape(6, 2).tolist() == [[0, 1]] * 3 + [[2, 3]] * 3
    assert torch.equal(form.fold(unfolded), actions)


def test_frames_stack_oldest_first_and_the_first_one_stands_for_those_before() -> None:
    seen = torch.arange(3.0).reshape(1, 3, 1)
    form = Form(stack=2)
    assert form.stack_frames(seen[:, :1]).tolist() == [[0, 0]]
    assert form.stack_frames(seen).tolist() == [[1, 2]]


def test_what_is_perceived_is_what_was_encoded(rooms: Path) -> None:
    loaded = checkpoint.load_run(rooms)
    world = open_world(loaded, rooms)
    env, form = world.env, world.energies.form
    state = env.reset(np.arange(3), Rng(2))
    seen = Seen(env.observe(state)[:, None], torch.zeros(3, 0, form.every * env.action.size), state)
    memory = world.perceive(seen, None)
    action = torch.full((3, 2), 0.5)
    for _ in range(form.every):
        state = env.step(state, action).state
    unfolded = form.unfold(action)[:, None]
    memory = world.perceive(Seen(env.observe(state)[:, None], unfolded, state), memory)
    assert_close(memory[0].tokens, world.encode(env.observe(state)))
