"""World models: their equations, roll-outs against a loop, one state for batch and stream, and their diagnostics."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from jepakit import losses, methods, testing
from jepakit.methods import quasimetric, worldmodel
from jepakit.methods.worldmodel import WorldModel
from jepakit.nn import CNN, GRU, MLP, CausalTransformer, Frames, GridConv, Keypoints, ResidualMLP, ViT
from jepakit.types import ActionSpec, Batch, Rng, Signal, State

VECTORS = Signal(3, (7,), action=ActionSpec(2))
FILM = Signal(2, (7, 8, 8), mean=(0.4, 0.5), std=(0.3, 0.25), action=ActionSpec(2))
GRID = Frames(CNN((4, 4), width=6, channels=(4,)), pool=False)
PREDICTORS: dict[str, Any] = {
    "mlp": ResidualMLP(16, 1),
    "mlp of differences": ResidualMLP(16, 1, differences=True),
    "gru": GRU(),
    "gru with memory": GRU(memory=4),
    "conv": GridConv(8, 2),
    "transformer": CausalTransformer(width=8, depth=2, heads=2, history=3),
    "transformer without history": CausalTransformer(width=8, depth=1, heads=2, history=1),
}
TERMS = {
    "forcing": 0.5, "rollout": 1.0, "std": 2.0, "cov": 0.1, "temporal": 0.3, "inverse": 0.7, "sigreg": 0.05,
    "reward": 0.4, "done": 0.2, "metric": 0.6,
}  # fmt: skip


def build(signal: Signal = VECTORS, **changes: Any) -> WorldModel:
    encoder: Any = MLP((1,), width=6, hidden=8, depth=1) if len(signal.size) == 1 else CNN((1, 8, 8), 6, (4,))
    cfg = replace(worldmodel.Config(encoder, ResidualMLP(16, 1), hidden=8, directions=16), **changes)
    made = methods.build(cfg, signal)
    assert isinstance(made, WorldModel)
    with torch.no_grad():  # predictors begin as the identity, which would hide what a test looks for
        for p in made.predictor.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return made.double()


def batch_of(signal: Signal = VECTORS, count: int = 5, seed: int = 0, proprio: int = 0) -> Batch:
    gen = Rng(seed).fork("batch").generator()

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=gen, dtype=torch.float64)

    steps = signal.size[0] - 1
    return Batch(
        draw(signal.channels, *signal.size),
        action=draw(steps, signal.action_size),
        proprio=draw(steps + 1, proprio) if proprio else None,
        reward=draw(steps),
        done=draw(steps) > 1,
    )


def only(**weights: float) -> dict[str, float]:
    """All weights 0 but these."""
    return {**dict.fromkeys(TERMS, 0.0), **weights}


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("steps", [1, 3, 6, 8])
def test_roll_outs_equal_an_explicit_loop_over_steps(name: str, steps: int) -> None:
    method, batch = build(predictor=PREDICTORS[name], steps=steps, **only(rollout=1.0)), batch_of()
    assert batch.action is not None
    frames = batch.x.unbind(2)
    errors = []
    for first in range(0, 6, steps):
        state = method.start(frames[0])
        for t in range(first):  # what came before is observed
            state = method.observe(state, frames[t + 1], batch.action[:, t])
        for t in range(first, min(first + steps, 6)):
            state = method.step(state, batch.action[:, t])
            errors.append((state.tokens - method.start(frames[t + 1]).tokens).square().mean())
    assert_close(method(batch, Rng(0)).total, torch.stack(errors).mean())


@pytest.mark.parametrize("name", PREDICTORS)
def test_teacher_forcing_predicts_each_frame_from_the_observed_ones(name: str) -> None:
    method, batch = build(predictor=PREDICTORS[name], **only(forcing=1.0)), batch_of()
    assert batch.action is not None
    state, errors = method.start(batch.x[:, :, 0]), []
    for t, action in enumerate(batch.action.unbind(1)):
        pred = method.step(state, action)
        state = method.observe(state, batch.x[:, :, t + 1], action)
        errors.append((pred.tokens - state.tokens).square().mean())
    assert_close(method(batch, Rng(0)).total, torch.stack(errors).mean())


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_grid_of_tokens_has_the_same_state_in_a_stream_and_in_a_batch(name: str) -> None:
    method, batch = build(FILM, encoder=GRID, predictor=PREDICTORS[name], steps=6), batch_of(FILM)
    assert batch.action is not None
    s = method.latents(batch)
    assert s.shape == (5, 7, 4, 6)
    state = method.start(batch.x[:, :, 0])
    for t, action in enumerate(batch.action.unbind(1)):
        assert_close(state.tokens, s[:, t])
        state = method.observe(state, batch.x[:, :, t + 1], action)
    imagined = method.start(batch.x[:, :, 0])
    for action in batch.action.unbind(1):
        imagined = method.step(imagined, action)
    assert_close(imagined.tokens, method.roll_out(s, batch.action)[:, -1])


@pytest.mark.parametrize("name", PREDICTORS)
def test_gradients_reach_every_action_of_a_plan(name: str) -> None:
    method, batch = build(predictor=PREDICTORS[name]), batch_of()
    actions = torch.zeros(5, 4, 2, dtype=torch.float64, requires_grad=True)
    state = method.start(batch.x[:, :, 0])
    for action in actions.unbind(1):
        state = method.step(state, action)
    state.tokens[..., 0].sum().backward()
    assert actions.grad is not None
    assert bool((actions.grad.abs().sum((0, 2)) > 0).all())


def test_states_can_be_repeated_for_many_samples_of_actions() -> None:
    for predictor in PREDICTORS.values():
        method, batch = build(predictor=predictor), batch_of()
        assert batch.action is not None
        state = method.observe(method.start(batch.x[:, :, 0]), batch.x[:, :, 1], batch.action[:, 0])
        many = State(
            *(part.repeat_interleave(3, 0) for part in state[:1]),
            tuple(h.repeat_interleave(3, 0) for h in state.hidden),
        )
        after = method.step(many, batch.action[:, 1].repeat_interleave(3, 0))
        assert_close(after.tokens[::3], method.step(state, batch.action[:, 1]).tokens)


def test_a_transformer_keeps_past_tokens_and_past_actions_up_to_its_history() -> None:
    method, batch = build(predictor=PREDICTORS["transformer"]), batch_of()
    assert batch.action is not None
    state = method.start(batch.x[:, :, 0])
    lengths = []
    for t in range(4):
        lengths.append(state.hidden[0].shape[1])
        state = method.observe(state, batch.x[:, :, t + 1], batch.action[:, t])
    assert lengths == [0, 1, 2, 2]
    assert_close(state.hidden[1], batch.action[:, 2:4])
    assert_close(state.hidden[0][:, 0], method.start(batch.x[:, :, 2]).tokens)


def test_each_term_is_that_of_the_equations() -> None:
    method, batch = build(**TERMS), batch_of()
    assert batch.action is not None
    assert batch.reward is not None
    assert batch.done is not None
    assert method.inverse_head is not None
    s = method.latents(batch)
    terms, rng = method(batch, Rng(3)).loss, Rng(3)
    flat = s[:, :, 0]
    std = torch.stack([(1 - (flat[:, t].var(0) + 1e-4).sqrt()).relu().mean() for t in range(7)]).mean()
    cov = torch.stack(
        [(torch.cov(flat[:, t].T).square().sum() - flat[:, t].var(0).square().sum()) / 6 for t in range(7)]
    )
    guess = method.inverse_head(torch.cat([flat[:, :-1], flat[:, 1:]], -1))
    directions = losses.unit_directions(6, 16, rng.fork("directions"))
    sigreg = torch.stack([losses.sigreg(flat[:, t], directions) for t in range(7)]).mean()
    after = torch.stack([method.roll_out(s, batch.action), s[:, 1:]])
    done = nn.functional.binary_cross_entropy_with_logits(
        method.done_logit(after), batch.done.double().expand(2, -1, -1)
    )
    expected = {
        "std": std,
        "cov": cov.mean(),
        "temporal": (flat[:, 1:] - flat[:, :-1]).square().mean(),
        "inverse": (guess - batch.action).square().mean(),
        "sigreg": sigreg,
        "reward": (method.predict_reward(after) - batch.reward).square().mean(),
        "done": done,
    }
    for name, value in expected.items():
        assert_close(terms[name], TERMS[name] * value)
    rows = quasimetric.goal_rows(batch, 7, "batch", rng.fork("goals"))
    goals = s.flatten(0, 1)[rows]
    push = nn.functional.softplus(25 - method.steps_to_go(s, goals), beta=0.1).mean()
    excess = (method.steps_to_go(s[:, :-1], s[:, 1:]) - 1).relu().square().mean() - 0.1**2
    assert_close(terms["push"], TERMS["metric"] * push)
    assert_close(terms["constraint"], TERMS["metric"] * quasimetric.START_MULTIPLIER * excess)


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_leaves_out_its_term_and_no_other(name: str) -> None:
    batch, own = batch_of(), {"rollout": {"prediction"}, "metric": {"push", "constraint"}}.get(name, {name})
    whole, part = build(**TERMS), build(**{**TERMS, name: 0.0})
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
    full, rest = whole(batch, Rng(0)).loss, part(batch, Rng(0)).loss
    assert set(full) - set(rest) == own
    for key in set(rest) - {"reward", "done"}:  # these read the predictions, of which there are two kinds
        assert_close(rest[key], full[key])


def test_prediction_and_sigreg_alone_are_leworldmodel() -> None:
    method = build(predictor=PREDICTORS["transformer"], norm=False, **only(forcing=1.0, sigreg=0.09))
    batch, rng = batch_of(), Rng(7)
    assert batch.action is not None
    s = method.latents(batch)
    pred = method.predictor.predict_each(s[:, :-1], batch.action)
    directions = losses.unit_directions(6, 16, rng.fork("directions"))
    expected = (pred - s[:, 1:]).square().mean() + 0.09 * losses.sigreg(s[:, :, 0].transpose(0, 1), directions)
    assert_close(method(batch, rng).total, expected)
    assert set(method(batch, rng).loss) == {"forcing", "sigreg"}


def test_targets_have_a_gradient_unless_it_is_stopped() -> None:
    batch = batch_of()
    for stop in (False, True):
        method = build(stop_gradient=stop, **only(rollout=1.0))
        s = method.latents(batch)
        target = method._targets(s, batch)
        assert target.requires_grad == (not stop)


def test_a_target_encoder_moves_by_its_decay_and_gives_the_targets() -> None:
    method, batch = build(ema=(0.9, 1.0), **only(rollout=1.0)), batch_of()
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.mul_(2.0)
    before = [p.clone() for p in method.target_encoder.parameters()]  # type: ignore[union-attr]
    terms = method(batch, Rng(0))
    assert terms.compared is not None
    assert_close(terms.compared[1], method.latents(batch, "target")[:, 1:].flatten(0, 2).float())
    method.after_step(0.0)
    moved = method.target_encoder.parameters()  # type: ignore[union-attr]
    for old, new, online in zip(before, moved, method.encoder.parameters(), strict=True):
        assert_close(new, 0.9 * old + 0.1 * online)


def test_a_frozen_encoder_keeps_its_weights_while_the_predictor_learns() -> None:
    method, batch = build(frozen=True), batch_of()
    method(batch, Rng(0)).total.backward()
    assert all(p.grad is None for p in method.encoder.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_proprioception_enters_the_state_and_is_asked_for() -> None:
    method, batch = build(proprio=3), batch_of(proprio=3)
    assert batch.proprio is not None
    s = method.latents(batch)
    assert_close(method.start(batch.x[:, :, 0], batch.proprio[:, 0]).tokens, s[:, 0])
    other = replace(batch, proprio=batch.proprio + 1)
    assert not torch.allclose(method.latents(other), s)
    with pytest.raises(ValueError, match=r"reads proprio, which the samples lack; name it with data\.proprio"):
        method(replace(batch, proprio=None), Rng(0))
    with pytest.raises(
        ValueError, match=r"reads 3 proprioceptive values of each of 7 frames, but the batch has \(7, 2\)"
    ):
        method(replace(batch, proprio=batch.proprio[..., :2]), Rng(0))


def test_all_proprioception_of_the_data_is_read_unless_the_settings_say_otherwise() -> None:
    signal = replace(VECTORS, proprio=3)
    cfg, notes = WorldModel.fit_config(worldmodel.Config(), signal)
    assert cfg.proprio == 3
    assert "method.proprio = 3 (the values beside each frame; 0 leaves them out)" in map(str, notes)
    assert WorldModel(cfg, signal).encode(signal.zeros(2)).shape[0] == 2
    assert WorldModel(replace(cfg, proprio=None), signal).proprio == 3
    assert WorldModel.fit_config(worldmodel.Config(proprio=0), signal)[0].proprio == 0
    assert WorldModel.fit_config(worldmodel.Config(), VECTORS)[0].proprio == 0
    with pytest.raises(ValueError, match=r"method\.proprio is 2, but the data have 3"):
        WorldModel.fit_config(worldmodel.Config(proprio=2), signal)


def test_actions_rewards_and_proprioception_are_standardised_by_the_training_data() -> None:
    method, batch = build(proprio=3, reward=1.0), batch_of(count=64, proprio=3)
    assert batch.action is not None
    scaled = replace(batch, action=5 * batch.action + 2, reward=batch.reward * 30, proprio=batch.proprio - 7)  # type: ignore[operator]
    method.calibrate(scaled)
    assert scaled.action is not None
    action = method.normalize_action(scaled.action).flatten(0, 1)
    assert_close(action.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(action.std(0), torch.ones(2, dtype=torch.float64))
    assert 20 < float(method.reward_std) < 40
    assert_close(method.proprio_mean, scaled.proprio.mean((0, 1)))  # type: ignore[union-attr]


def test_discrete_actions_and_constant_ones_stay_as_they_are() -> None:
    signal = replace(VECTORS, action=ActionSpec(3, discrete=True))
    method = build(signal)
    batch = replace(batch_of(signal), action=torch.eye(3, dtype=torch.float64)[torch.arange(30).reshape(5, 6) % 3])
    method.calibrate(batch)
    assert batch.action is not None
    assert torch.equal(method.normalize_action(batch.action), batch.action)
    still = build()
    still.calibrate(replace(batch_of(), action=torch.full((5, 6, 2), 0.5, dtype=torch.float64)))
    assert torch.equal(still.action_std, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "signal",
    [
        Signal(4, (6,), action=ActionSpec(1, (-2.0,), (2.0,))),
        Signal(4, (6,), action=ActionSpec(3, discrete=True)),
        Signal(2, (5, 8, 8), action=ActionSpec(4, max_norm=1.0, parts=2)),
    ],
    ids=["vectors", "discrete", "blocks"],
)
def test_the_contract_holds_for_other_actions(signal: Signal) -> None:
    testing.contract(WorldModel, [signal])


def test_diagnostics_tell_whether_actions_matter_and_whether_latents_move() -> None:
    gen = torch.Generator().manual_seed(0)
    action = torch.randn(16, 6, 2, generator=gen, dtype=torch.float64)
    place = torch.cat([torch.zeros(16, 1, 2, dtype=torch.float64), action.cumsum(1)], 1)
    wall = torch.randn(16, 1, 1, generator=gen, dtype=torch.float64).expand(-1, 7, 1)
    method = build(norm=False, encoder=MLP((1,), width=3, hidden=3, depth=0), inverse=0.0)

    class Identity(nn.Module):
        dim, patch, grid, mixes = 3, (1,), (7,), False

        def __init__(self, keep: float) -> None:
            super().__init__()
            self.keep = keep

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.keep * x[:, :2], x[:, 2:]], 1).transpose(1, 2)

    class Adding(nn.Module):
        remembers = False

        def start(self, tokens: Tensor) -> tuple[Tensor, ...]:
            return ()

        def forward(self, tokens: Tensor, action: Tensor, hidden: Any) -> Any:
            return tokens + method.encoder.keep * nn.functional.pad(action, (0, 1))[:, None], hidden

    method.predictor = Adding()
    batch = Batch(torch.cat([place, wall], 2).transpose(1, 2), action=action)
    found = {}
    for keep in (1.0, 0.0):
        method.encoder = Identity(keep)
        found[keep] = {k: float(v) for k, v in method.diagnostics(batch).items()}
    assert found[1.0]["actions/energy_ratio"] < 1e-12
    assert found[1.0]["spread/within"] > 0.3
    assert found[0.0]["actions/energy_ratio"] == 0.0 or found[0.0]["actions/energy_ratio"] > 0.9
    assert found[0.0]["spread/within"] < 1e-12


def test_bad_settings_are_one_sentence_each() -> None:
    with pytest.raises(ValueError, match="rollout and forcing are both 0, so nothing is predicted"):
        worldmodel.Config(rollout=0.0)
    with pytest.raises(ValueError, match="cov is -1; give a finite weight of 0 or more"):
        worldmodel.Config(cov=-1.0)
    with pytest.raises(ValueError, match=r"the encoder sees all frames at once; give encoder\.name frames"):
        build(FILM, encoder=ViT((1, 4, 4), width=16, depth=1, heads=2))
    with pytest.raises(ValueError, match=r"spans 7 frames, but an action leads from each to the next"):
        build(encoder=MLP((7,)))
    with pytest.raises(ValueError, match=r"has no reward head; train it with method\.reward above 0"):
        build().predict_reward(torch.zeros(1, 1, 6).double())
    with pytest.raises(ValueError, match="give the action"):
        build().step(State(torch.zeros(1, 1, 6).double()))
    with pytest.raises(ValueError, match="reads action, which the samples lack; give trajectories"):
        build()(replace(batch_of(), action=None), Rng(0))


def test_an_open_patch_becomes_a_frame() -> None:
    for encoder, size, patch in (
        (MLP(None), (9,), (1,)),
        (MLP(None), (9, 8, 8), (1, 8, 8)),
        (CNN(None), (9, 8, 8), (1, 8, 8)),
        (Keypoints(None), (9, 8, 8), (1, 8, 8)),
    ):
        signal = Signal(2, size, action=ActionSpec(1))
        cfg, notes = WorldModel.fit_config(worldmodel.Config(encoder), signal)
        assert cfg.encoder.patch == patch
        assert len(notes) == 1
    cfg, notes = WorldModel.fit_config(worldmodel.Config(), Signal(4, (9,), action=ActionSpec(1)))
    assert isinstance(cfg.encoder, MLP)
    assert [note.value for note in notes] == ["mlp", [1]]
