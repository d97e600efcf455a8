"""The probe of dynamics: closed forms on linear systems, what it refuses, and what it may score."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from jaxtyping import Float
from torch import Tensor

from jepakit import api, methods
from jepakit.cli import __main__ as cli
from jepakit.cli import text
from jepakit.core.actions import project
from jepakit.data import DataConfig, Place, loader
from jepakit.data.base import Dataset
from jepakit.data.images import synthetic
from jepakit.data.scanpaths import settings as scanpaths
from jepakit.data.trajectories import settings as trajectories
from jepakit.evals import load_kind
from jepakit.evals.finding import run_finding
from jepakit.evals.kinds import dynamics
from jepakit.evals.metrics import actions, episodes, ranks
from jepakit.evals.metrics.linear_dynamics import LinearDynamics, fit_linear_dynamics
from jepakit.evals.probing import probe_results
from jepakit.evals.runs import probe_run
from jepakit.evals.transitions import Transitions, choose_windows, read_transitions
from jepakit.methods import rjepa, worldmodel
from jepakit.methods.predictive import Predictive
from jepakit.nn import CNN
from jepakit.nn.dynamics import GRU, CausalTransformer
from jepakit.recurrent.circuit import Circuit
from jepakit.reporting.probes import probe_row
from jepakit.types import ActionSpec, Rng, Sample, Signal, Size, State

WINDOW, EPISODE = 5, 9
TURN = torch.tensor([[0.9, 0.2], [-0.2, 0.9]])
PUSH = torch.tensor([[0.5, 0.0], [0.1, 0.4]])


@dataclass(frozen=True, eq=False)
class Rollouts(Dataset):
    """Windows of episodes (E, F, 2) and their actions (E, F - 1, A); the first number of the state is a factor."""

    x: np.ndarray
    action: np.ndarray
    spec: ActionSpec
    factor_names: tuple[str, ...] = ("place", "never")
    cfg: Any = field(default_factory=DataConfig)
    channels: int = 2
    native: Size = (WINDOW,)

    @property
    def each(self) -> int:
        return (self.x.shape[1] - 1) // (WINDOW - 1)

    def __len__(self) -> int:
        return len(self.x) * self.each

    def name(self, i: int) -> str:
        return f"{self.place(i).episode}[{self.place(i).first}]"

    def fingerprint(self) -> str:
        return str(float(self.x.sum()))

    def place(self, i: int) -> Place:
        return Place(f"e{i // self.each}", i % self.each * (WINDOW - 1))

    def sample(self, i: int, size: Size) -> Sample:
        first = self.place(i).first
        rows = slice(first, first + WINDOW)
        x, action = self.x[i // self.each, rows], self.action[i // self.each, first : first + WINDOW - 1]
        return Sample(torch.from_numpy(x.T.copy()).float(), action=torch.from_numpy(action).float())

    def factors(self, i: int) -> np.ndarray:
        x = self.sample(i, self.native).x
        assert x is not None
        return np.stack([x[0].numpy(), np.full(WINDOW, 3.0)], 1)

    def action_spec(self) -> ActionSpec:
        return self.spec


def linear_rollouts(count: int = 40, seed: int = 0, spec: ActionSpec | None = None, length: int = EPISODE) -> Rollouts:
    """Episodes of s′ = s TURN + a PUSH from random starts by random actions."""
    draw = np.random.default_rng(seed)
    spec = spec or ActionSpec(2, (-2.0, -2.0), (2.0, 2.0))
    x = [draw.normal(size=(count, 2))]
    if spec.discrete:
        action = np.eye(spec.size)[draw.integers(spec.size, size=(count, length - 1))]
    else:
        action = draw.uniform(-2, 2, (count, length - 1, 2))
    for t in range(length - 1):
        x.append(x[-1] @ TURN.double().numpy() + action[:, t, :2] @ PUSH.double().numpy())
    return Rollouts(np.stack(x, 1), action, spec)


class Known(Predictive):
    """A model whose latent is the frame, and which knows the linear system, but for the action where it is `blind`."""

    needs = frozenset({"time", "action"})
    Config = DataConfig  # any frozen dataclass

    def __init__(self, signal: Signal, blind: bool = False, wrong: float = 0.0) -> None:
        super().__init__(DataConfig(), signal)
        self.blind, self.wrong = blind, wrong

    def start(self, obs: Float[Tensor, "b c 1"]) -> State:
        return State(obs.transpose(1, 2))

    def observe(self, state: State, obs: Tensor, action: Tensor | None = None) -> State:
        return self.start(obs)

    def step(self, state: State, action: Tensor | None = None, z: Tensor | None = None) -> State:
        assert action is not None
        drive = 0 if self.blind else (action[:, :2] @ PUSH)[:, None]
        return State(state.tokens @ TURN + drive + self.wrong)


def parts_of(data: Rollouts, **settings: Any) -> dict[str, Transitions]:
    """The windows of the data by a model that knows the system, and as raw frames."""
    signal = Signal(2, (WINDOW,), action=data.spec)
    method = Known(signal, **settings).eval()
    batches = loader.read_stream(data, signal, batch=32)
    return read_transitions({"value": method, "raw": None}, method, data, batches)


def results_of(train: Rollouts, test: Rollouts, cfg: dynamics.Config | None = None, **settings: Any) -> dict[str, Any]:
    """The results of the probe, by name."""
    fit, scored = parts_of(train, **settings), parts_of(test, **settings)
    found = probe_results("dynamics", cfg or dynamics.Config(), fit, scored, classes=(), data="lines", step=1)
    return {result["name"]: result for result in found}


@pytest.fixture(scope="module")
def exact() -> dict[str, Any]:
    return results_of(linear_rollouts(), linear_rollouts(20, seed=1))


# --- closed forms


def test_a_model_that_is_exact_has_no_error_and_knows_everything(exact: dict[str, Any]) -> None:
    assert list(exact) == ["error", "factor-place", "imagined", "rank", "planned", "to-go"]
    assert exact["error"]["value"] == pytest.approx(0, abs=1e-9)
    assert exact["factor-place"]["value"] == pytest.approx(1, abs=1e-6)
    assert exact["factor-place"]["notes"]["imagined"] == pytest.approx([1] * (WINDOW - 1), abs=1e-5)
    assert exact["imagined"]["value"] == pytest.approx(1, abs=1e-5)
    assert exact["imagined"]["notes"]["each"].keys() == {"place"}
    assert exact["imagined"]["notes"]["least"] == 0.5
    assert exact["imagined"]["notes"]["constant"] == "never"
    assert exact["rank"]["value"] == 1
    assert exact["rank"]["notes"]["top1"] == 1
    assert exact["planned"]["value"] > 0.999


def test_the_linear_model_of_raw_frames_is_exact_on_a_linear_system(exact: dict[str, Any]) -> None:
    assert exact["error"]["raw"] == pytest.approx(0, abs=1e-9)
    assert exact["error"]["notes"]["linear"] == pytest.approx(0, abs=1e-9)
    assert exact["planned"]["raw"] > 0.999


def test_errors_by_horizon_are_those_of_their_definitions() -> None:
    train, test = linear_rollouts(), linear_rollouts(20, seed=1)
    fit, scored = parts_of(train), parts_of(test, blind=True)["value"]
    found = dict(dynamics.error_results(fit["value"], scored, scored.pred, np.zeros_like(scored.pred)))
    mean = fit["value"].s.reshape(-1, 2).mean(0)
    spread = np.square(scored.s[:, 1:] - mean).mean()
    wanted = {
        "model": np.square(scored.pred - scored.s[:, 1:]).mean((0, 2)) / spread,
        "last_state": np.square(scored.s[:, :1] - scored.s[:, 1:]).mean((0, 2)) / spread,
        "linear": np.square(scored.s[:, 1:]).mean((0, 2)) / spread,
    }
    assert found["value"] == pytest.approx(float(wanted["model"].mean()))
    for name, curve in wanted.items():
        assert found["curves"][name] == pytest.approx(curve.tolist(), rel=1e-5)
    assert np.mean(found["curves"]["mean"]) == pytest.approx(1)
    assert found["low"] <= found["value"] <= found["high"]


def test_a_model_that_ignores_actions_ranks_them_by_chance_and_finds_none() -> None:
    blind = results_of(linear_rollouts(), linear_rollouts(20, seed=1), blind=True)
    assert blind["rank"]["value"] == pytest.approx(ranks.chance_ranks(32)[1])
    assert blind["rank"]["notes"]["top1"] == pytest.approx(1 / 32)
    assert abs(blind["planned"]["value"]) < 0.05
    assert blind["error"]["value"] > 0.05
    assert blind["factor-place"]["value"] == pytest.approx(1, abs=1e-6)
    assert blind["imagined"]["value"] < 0.9


def test_discrete_actions_are_ranked_among_all_choices() -> None:
    spec = ActionSpec(3, discrete=True)
    data = [linear_rollouts(30, seed, spec) for seed in (0, 1)]
    seen, blind = (results_of(*data, blind=blind) for blind in (False, True))
    assert seen["rank"]["notes"]["candidates"] == 3
    assert (seen["rank"]["value"], seen["planned"]["value"]) == (1, 1)
    assert blind["planned"]["value"] == pytest.approx(1 / 3)
    assert "plain" not in seen["planned"]


def test_the_energy_on_a_line_falls_with_every_step_to_go() -> None:
    x = np.linspace(0, 1, EPISODE)[None, :, None] * np.random.default_rng(0).normal(size=(12, 1, 2))
    line = Rollouts(x, np.random.default_rng(1).normal(size=(12, EPISODE - 1, 2)), ActionSpec(2))
    part = parts_of(line)["value"]
    found = dict(dynamics.to_go_results(part))
    assert found["value"] == pytest.approx(1)
    assert found["episodes"] == 12
    back = Rollouts(np.concatenate([x[:, ::-1][:, :-1], x[:, -1:]], 1), line.action, line.spec)
    assert dict(dynamics.to_go_results(parts_of(back)["value"]))["value"] < 0


def test_frames_of_an_episode_come_from_all_its_windows_and_count_once() -> None:
    data = linear_rollouts(3)
    to_go, energy = dynamics.episode_energies(parts_of(data)["value"])[1]
    assert to_go.tolist() == list(range(EPISODE - 1, 0, -1))
    assert energy == pytest.approx(np.square(data.x[1, :-1] - data.x[1, -1]).mean(1), rel=1e-4)


def test_without_factors_nothing_is_said_of_them() -> None:
    data = [linear_rollouts(30, seed) for seed in (0, 1)]
    for one in data:
        object.__setattr__(one, "factor_names", ())
    assert list(results_of(*data)) == ["error", "rank", "planned", "to-go"]


def test_equal_actions_leave_their_ranks_out() -> None:
    data = [linear_rollouts(30, seed) for seed in (0, 1)]
    still = [Rollouts(one.x, np.zeros_like(one.action), one.spec) for one in data]
    assert list(results_of(*still)) == ["error", "factor-place", "imagined", "to-go"]


# --- parts of the measures


def test_a_linear_model_in_many_dimensions_keeps_the_directions_that_vary() -> None:
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.normal(size=(300, 2)))[0]
    data = linear_rollouts(60)
    s = (data.x @ axes.T).astype(np.float32)
    model = fit_linear_dynamics(s, data.action.astype(np.float32), np.arange(60) >= 48)
    assert isinstance(model, LinearDynamics)
    path = model.roll_out(s[:, 0], data.action.astype(np.float32))
    assert np.square(path - s[:, 1:]).mean() < 1e-6 * s.var()


def test_candidates_hold_the_own_action_first_and_no_other_time() -> None:
    pool = torch.eye(4)[torch.tensor([0, 1, 1, 2])]
    drawn = actions.draw_candidates(pool, pool, 32, Rng(0))
    assert drawn.shape == (4, 3, 4)
    assert torch.equal(drawn[:, 0], pool)
    assert not (drawn[:, 1:] == pool[:, None]).all(2).any()
    many = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    drawn = actions.draw_candidates(many, many, 8, Rng(0))
    assert drawn.shape == (50, 8, 2)
    assert not (drawn[:, 1:] == many[:, None]).all(2).any()


def test_actions_found_stay_within_bounds_and_lengths() -> None:
    spec = ActionSpec(4, (-1.0,) * 4, (1.0,) * 4, max_norm=0.5, parts=2)
    clipped = project(torch.tensor([[3.0, 4.0, 0.1, 0.2], [-9.0, 0.0, 0.0, 0.4]]), spec)
    assert torch.allclose(clipped, torch.tensor([[0.3, 0.4, 0.1, 0.2], [-0.5, 0.0, 0.0, 0.4]]))
    found = actions.find_actions(
        lambda states, a: states[0] + a,
        (torch.zeros(1, 4),),
        torch.tensor([[0.1, 0.9, -0.2, 0.1]]),
        torch.zeros(1, 1, 4),
        spec,
        torch.ones(4),
    )
    assert found[0, :2].norm() == pytest.approx(0.5)
    assert found[0, 2:].tolist() == pytest.approx([-0.2, 0.1], abs=0.03)


def test_the_rank_of_equal_energies_is_the_mean_over_their_orders() -> None:
    energy = np.array([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [5.0, 1.0, 2.0, 3.0]])
    first, mean = ranks.first_candidate_ranks(energy)
    assert first.tolist() == [0, 1, 0]
    assert mean == pytest.approx([(1 / 2 + 1 / 3) / 2, 1, 1 / 4])
    assert ranks.first_candidate_ranks(np.zeros((1, 4)))[1][0] == pytest.approx(ranks.chance_ranks(4)[1])


def test_intervals_draw_whole_episodes() -> None:
    draw = np.random.default_rng(0)
    by_episode = draw.normal(size=30)
    value, (low, high) = episodes.mean_with_interval(by_episode.repeat(50), np.arange(30).repeat(50))
    assert value == pytest.approx(by_episode.mean())
    assert high - low == pytest.approx(4 * by_episode.std() / np.sqrt(30), rel=0.2)


def test_windows_are_chosen_from_many_episodes_and_in_order() -> None:
    data = linear_rollouts(30, length=41)
    rows = choose_windows(data, 60)
    assert len(rows) == 60
    assert (np.diff(rows) > 0).all()
    assert len({data.place(int(i)).episode for i in rows}) == 30
    assert choose_windows(data, 10_000).tolist() == list(range(len(data)))


# --- what is refused, and how results are read


def test_a_collapsed_representation_is_refused() -> None:
    data = linear_rollouts(20)
    flat = Rollouts(np.ones_like(data.x), data.action, data.spec)
    with pytest.raises(ValueError, match="the representation has collapsed"):
        results_of(flat, flat)


def test_one_held_out_episode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is 1 held-out episode, and an interval needs 2 or more; give"):
        results_of(linear_rollouts(20), linear_rollouts(1, seed=1))


def test_a_roll_out_that_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match="roll-outs diverge"):
        results_of(linear_rollouts(20), linear_rollouts(5, seed=1), wrong=float("inf"))


def test_a_split_holds_out_whole_episodes() -> None:
    found = probe_results("dynamics", dynamics.Config(), parts_of(linear_rollouts(40)), classes=(), data="x", step=1)
    assert {(result["n_train"], result["n_test"]) for result in found} == {(64, 16)}


@pytest.mark.parametrize("wrong", [{"windows": 3}, {"candidates": 1}, {"transitions": 0}, {"l2": ()}])
def test_settings_without_a_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dynamics.Config(**wrong)


def test_the_open_loop_error_decides_and_each_result_is_read_in_its_own_way(exact: dict[str, Any]) -> None:
    assert load_kind("dynamics").labels is False
    assert [name for name, result in exact.items() if result.get("lower_is_better")] == ["error"]
    assert [name for name, result in exact.items() if result["leading"]] == ["error"]
    assert all(result.get("plain") for name, result in exact.items() if name != "error")
    worse = {**exact["rank"], "value": 0.1, "low": 0.1, "high": 0.1, "raw": 0.9, "random_init": 0.9}
    better = {**exact["error"], "raw": 0.9, "random_init": 0.9, "baselines": {}}
    found = run_finding([worse, better])
    assert found is not None
    assert (found.outcome, found.also_worse) == ("better", ())


# --- from a run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of an untrained world model on episodes of which training left some out."""
    source = support.write_rollouts(tmp_path / "episodes")
    return support.world_run(tmp_path / "run", trajectories.Config(str(source), split="train", window=5, held_out=0.3))


def test_a_run_is_probed_on_the_episodes_that_training_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", str(run), "--kind", "dynamics", "--dynamics.transitions", "40"]) == 0
    table = capsys.readouterr().out.splitlines()
    names = ["error", "factor-place-0", "factor-place-1", "imagined", "rank", "planned", "to-go"]
    assert [line.split()[0] for line in table[1 : 1 + len(names)]] == [f"dynamics-{name}" for name in names]
    found = {name: support.read_json(run / "evals" / f"dynamics-{name}.json") for name in names}
    about = {(result["seen"], result["weights"], result.get("n_shared", 0)) for result in found.values()}
    assert about == {(False, "target", 0)}
    # Frames are places, so a linear model of them knows everything but the border.
    assert found["error"]["raw"] < 0.1
    assert found["factor-place-0"]["raw"] > 0.99
    assert found["planned"]["raw"] > 0.5
    # An untrained predictor adds nothing to the latent.
    assert found["error"]["random_init"] == pytest.approx(found["error"]["notes"]["last_state"], rel=1e-3)
    assert found["rank"]["random_init"] == pytest.approx(found["rank"]["notes"]["chance"])


def test_other_episodes_are_scored_as_a_test_set_and_shared_ones_are_counted(run: Path, tmp_path: Path) -> None:
    other = support.write_rollouts(tmp_path / "other", episodes=3)
    paths = probe_run(run, ["dynamics"], test=str(other), settings={"dynamics.transitions": 8}, baselines=False)
    result = support.read_json(paths[0])
    assert result["n_shared"] > 0
    assert "are also training samples" in result["notes"]["warning"]


def test_windows_of_many_episodes_are_read_in_part(run: Path) -> None:
    settings = {"dynamics.windows": 12, "dynamics.transitions": 8}
    paths = probe_run(run, ["dynamics"], settings=settings, baselines=False)
    assert support.read_json(paths[0])["n_train"] == 12


def test_a_run_that_is_no_world_model_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    data = synthetic.Config("shapes", count=60, size=(16, 16))
    run = support.untrained_run(tmp_path / "run", data, Signal(3, (16, 16)))
    with pytest.raises(ValueError, match=r"^ijepa predicts nothing from actions, so it has no dynamics to probe; give"):
        probe_run(run, ["dynamics"])
    assert not (run / "evals").exists()


def test_a_training_that_asks_for_dynamics_of_no_world_model_is_refused_before_step_1(tmp_path: Path) -> None:
    source = support.write_pictures(tmp_path / "photos", [f"{k}.png" for k in range(20)])
    file = support.write_settings(tmp_path, source, evals={"kinds": ["dynamics"]})
    request = api.Request(str(file), out=tmp_path / "run", flags={"evals.kinds": "[dynamics]"})
    with pytest.raises(ValueError, match=r"^evals\.kinds asks for dynamics, but ijepa predicts nothing from actions"):
        api.dry_run(request)
    assert not (tmp_path / "run").exists()


def test_the_table_gives_errors_and_shares_of_variance_as_plain_numbers(run: Path) -> None:
    paths = probe_run(run, ["dynamics"], settings={"dynamics.transitions": 8})
    rows = [probe_row(support.read_json(path), "run") for path in paths]
    assert str(rows[0]["picture"]) == "an error: lower is better"
    assert str(rows[1]["picture"]) == "1 is perfect, 0 knows only the mean"
    assert "%" not in "".join(row["value"] for row in rows)
    assert "%" not in text.describe_probes(paths[:1]).replace("95 %", "")


@pytest.mark.parametrize("predictor", ["gru", "transformer"])
def test_models_that_remember_are_probed_with_what_they_have_seen(tmp_path: Path, predictor: str) -> None:
    source = support.write_rollouts(tmp_path / "episodes")
    data = trajectories.Config(str(source), split="train", window=5, held_out=0.3).open()
    signal = data.signal()
    kinds = {"gru": GRU(memory=3), "transformer": CausalTransformer(width=12, depth=1, heads=3, history=3)}
    cfg = replace(worldmodel.Config.tiny(signal), predictor=kinds[predictor])
    method = methods.build(cfg, signal, 0).eval()
    for p in method.predictor.parameters():  # gates and last layers start at zero, which would hide the past
        torch.nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(0))
    part = read_transitions({"value": method}, method, data, loader.read_stream(data, signal, batch=8))["value"]
    whole = next(iter(loader.read_stream(data, signal, batch=len(data))))
    with torch.no_grad():
        s = method.latents(whole)
        each = method.predict_each(s[:, :-1], method.normalize_action(whole.action)).flatten(2)
    assert part.step is not None
    for t, states in zip(part.turns, part.states, strict=True):
        with torch.no_grad():
            pred = part.step(states, torch.from_numpy(part.action[:, t]))
        assert torch.allclose(pred, each[:, t], atol=1e-4)
    assert part.s == pytest.approx(s.flatten(2).numpy(), abs=1e-5)


def test_a_circuit_that_reads_saccades_is_probed(tmp_path: Path) -> None:
    np.savez(tmp_path / "pictures.npz", x=support.noise_pictures(20, 24))
    data = scanpaths.Config(
        str(tmp_path / "pictures.npz"), size=(4, 4), count=4, synthetic="uniform", split="train", held_out=0.3
    )
    cfg = rjepa.Config(CNN((1, 4, 4), width=6, channels=(4,)), Circuit(width=5), saccade=True)
    run = support.save_untrained(tmp_path / "run", cfg, data.open().signal(), data)
    paths = probe_run(run, ["dynamics"], settings={"dynamics.transitions": 8})
    assert [path.stem for path in paths] == [f"dynamics-{name}" for name in ("error", "rank", "planned", "to-go")]
