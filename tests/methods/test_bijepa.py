"""BiJEPA: both directions as the equations say, norms held in each of the three ways, and what is watched."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from jepakit import data, losses, methods, testing
from jepakit.masks.halves import Halves
from jepakit.masks.random import Random
from jepakit.methods import bijepa
from jepakit.nn import CNN, MLP, Perceptron, Predictor
from jepakit.run import optim
from jepakit.run.parse import apply_changes, from_dict
from jepakit.run.settings import Run
from jepakit.run.write import to_yaml
from jepakit.testing import clauses
from jepakit.types import Batch, Masks, Rng, Signal

SINE = Signal(1, (20,), mean=(0.25,), std=(2.0,))
CFG = bijepa.Config(MLP((10,), width=16, hidden=64), Perceptron(hidden=64))
IMAGE = Signal(1, (28, 28))
PAPER_CNN = CNN((28, 14), 64, (32, 64), hidden=(128,), norm="batch", activation="relu")


def sines(count: int, seed: int = 0, step: int = 0) -> Tensor:
    """The paper's series: 20 samples of sin(wt + phase) on [0, 4π], w from U(.8, 1.2), noise of std .05."""
    gen = Rng(seed, step).fork("sines").generator()
    w, phase = 0.8 + 0.4 * torch.rand(count, 1, 1, generator=gen), 2 * math.pi * torch.rand(count, 1, 1, generator=gen)
    clean = torch.sin(w * torch.linspace(0, 4 * math.pi, 20) + phase)
    return clean + 0.05 * torch.randn(count, 1, 20, generator=gen)


def build(signal: Signal = SINE, base: bijepa.Config = CFG, **changes: Any) -> bijepa.BiJEPA:
    """In float64, and the target away from the encoder, so that the two cannot be taken for one another."""
    built = methods.build(replace(base, **changes), signal).double()
    assert isinstance(built, bijepa.BiJEPA)
    with torch.no_grad():
        for p in built.target_encoder.parameters():
            p.mul_(1.5)
    return built


X = sines(40).double()


def parts(method: bijepa.BiJEPA, x: Tensor = X) -> tuple[Tensor, ...]:
    """f and g of the past and of the future, (B, 16) each, by hand: x cut in two and sent through the layers."""
    past, future = ((x - 0.25) / 2).flatten(1).chunk(2, 1)
    f, g = (encoder.layers for encoder in (method.encoder, method.target_encoder))  # type: ignore[union-attr]
    return f(past), f(future), g(past).detach(), g(future).detach()  # type: ignore[operator]


def ends(method: bijepa.BiJEPA) -> tuple[nn.Module, nn.Module]:
    """The layers of P_fwd and P_bwd."""
    there, back = (p.layers for p in method.predictors)
    return there, back  # type: ignore[return-value]


def test_the_loss_is_the_weighted_sum_of_both_mean_squared_errors() -> None:
    method = build(alpha=0.3)
    (s_x, s_y, t_x, t_y), (there, back) = parts(method), ends(method)
    forward, backward = (there(s_x) - t_y).square().mean(), (back(s_y) - t_x).square().mean()
    terms = method.loss(Batch(X), Rng(0))
    assert list(terms.loss) == ["forward", "backward"]
    assert_close(terms.total, 0.3 * forward + 0.7 * backward, rtol=1e-12, atol=0)
    assert_close(terms.log["error_forward"], forward.detach(), rtol=1e-12, atol=0)
    assert_close(terms.log["error_backward"], backward.detach(), rtol=1e-12, atol=0)
    assert terms.compared is not None
    assert_close(terms.compared, (there(s_x).detach(), t_y), rtol=1e-12, atol=0)


def test_at_alpha_a_half_it_is_half_of_what_the_papers_code_sums_and_one_in_2_d_of_its_equation() -> None:
    method = build()
    (s_x, s_y, t_x, t_y), (there, back) = parts(method), ends(method)
    total = method.loss(Batch(X), Rng(0)).total
    assert_close(2 * total, F.mse_loss(there(s_x), t_y) + F.mse_loss(back(s_y), t_x), rtol=1e-12, atol=0)
    squared = 0.5 * (there(s_x) - t_y).square().sum(1) + 0.5 * (back(s_y) - t_x).square().sum(1)
    assert_close(16 * total, squared.mean(), rtol=1e-12, atol=0)


def test_alpha_1_is_the_loss_of_one_direction_and_builds_no_way_back() -> None:
    method, both = build(alpha=1.0), build()
    assert len(method.predictors) == 1
    state = {k: v for k, v in both.state_dict().items() if not k.startswith("predictors.1")}
    method.load_state_dict(state)
    terms = method.loss(Batch(X), Rng(0))
    assert list(terms.loss) == ["forward"]
    assert_close(terms.total, 2 * both.loss(Batch(X), Rng(0)).loss["forward"], rtol=1e-12, atol=0)
    assert list(terms.log) == ["norm_online", "norm_target", "error_forward"]
    assert_close(method.energy(X, X).mean(), terms.total, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="alpha is 1, so there is no backward predictor"):
        method.predict(X, back=True)


def test_no_gradient_reaches_the_target_encoder_and_both_directions_reach_the_encoder() -> None:
    method = build()
    for name in ("forward", "backward"):
        method.zero_grad()
        method.loss(Batch(X), Rng(0)).loss[name].backward()
        reached = {
            k.rsplit(".layers", 1)[0] for k, p in method.named_parameters() if p.grad is not None and p.grad.any()
        }
        assert reached == {"encoder", f"predictors.{int(name == 'backward')}"}


def test_no_encoder_sees_both_halves() -> None:
    image = Signal(2, (8, 8))
    cfg = bijepa.Config.tiny(image)
    method = build(image, cfg, masks=(Halves(axis=0),))
    x = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    other = torch.cat([x[:, :, :4], torch.rand(3, 2, 4, 8, dtype=torch.float64)], 2)
    there, back = method.pairs(x, x, Rng(0))[0]
    there_too, back_too = method.pairs(other, other, Rng(0))[0]
    assert torch.equal(there.s, there_too.s)
    assert torch.equal(there.pred, there_too.pred)
    assert torch.equal(back.target, back_too.target)
    assert not torch.equal(back.s, back_too.s)
    assert not torch.equal(there.target, there_too.target)


def test_on_the_sphere_what_encoders_say_has_length_1_and_what_is_predicted_has_not() -> None:
    method = build(sphere=True)
    (s_x, s_y, t_x, t_y), (there, back) = parts(method), ends(method)
    s_x, s_y, t_x, t_y = (F.normalize(s, dim=1) for s in (s_x, s_y, t_x, t_y))
    terms = method.loss(Batch(X), Rng(0))
    assert_close(2 * terms.total, F.mse_loss(there(s_x), t_y) + F.mse_loss(back(s_y), t_x), rtol=1e-12, atol=0)
    for weights in ("target", "context"):
        lengths = method.encode(X, weights).norm(dim=-1)
        assert_close(lengths, torch.ones_like(lengths))
    assert (method.predict(X).norm(dim=-1) - 1).abs().min() > 1e-3
    assert_close(terms.log["norm_online"].item(), 1.0)
    assert_close(terms.log["norm_target"].item(), 1.0)


def test_the_penalty_is_the_mean_squared_distance_of_the_norm_from_the_radius() -> None:
    s = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    found = losses.norm_penalty(s, 2.0)
    assert_close(found, torch.tensor((9.0 + 1.0 + 4.0) / 3))
    found.backward()
    assert s.grad is not None
    assert_close(s.grad, torch.tensor([[2 / 3 * 3 * 0.6, 2 / 3 * 3 * 0.8], [0.0, -2 / 3], [0.0, 0.0]]))


@pytest.mark.parametrize(("radius", "wanted"), [(None, 4.0), (1.5, 1.5)])
def test_the_penalty_is_a_term_over_the_tokens_of_both_halves_and_auto_is_the_root_of_the_width(
    radius: float | None, wanted: float
) -> None:
    method = build(norm_weight=0.2, radius=radius)
    s = torch.cat(parts(method)[:2])
    terms = method.loss(Batch(X), Rng(0))
    assert_close(terms.loss["norm"], 0.2 * (s.norm(dim=1) - wanted).square().mean(), rtol=1e-12, atol=0)
    assert_close(terms.log["norm_online"], s.norm(dim=1).mean().detach(), rtol=1e-12, atol=0)
    plain = build().loss(Batch(X), Rng(0))
    assert_close(terms.total - terms.loss["norm"], plain.total, rtol=1e-12, atol=0)
    assert_close(terms.log["norm_target"], torch.cat(parts(method)[2:]).norm(dim=1).mean(), rtol=1e-12, atol=0)


def linear(alpha: float = 0.5, **changes: Any) -> tuple[bijepa.BiJEPA, Tensor, Tensor, Tensor, Tensor]:
    """All networks linear, no bias: f(x) = F x, g(x) = G x, P_fwd(s) = A s, P_bwd(s) = C s; the method and the four."""
    cfg = bijepa.Config(MLP((10,), 16, depth=0), Perceptron(depth=0), alpha=alpha, **changes)
    method = build(base=cfg)
    found = []
    for part in (method.encoder, method.target_encoder, *method.predictors):
        (layer,) = [m for m in part.modules() if isinstance(m, nn.Linear)]
        nn.init.zeros_(layer.bias)
        found.append(layer.weight)
    return method, *found  # type: ignore[return-value]


def test_the_cycle_error_of_linear_maps_is_that_of_their_product() -> None:
    method, f, g, a, c = linear(cycle_weight=0.7)
    past = ((X - 0.25) / 2).flatten(1)[:, :10]
    expected = (past @ (c @ a @ f - g).T).square()
    terms = method.loss(Batch(X), Rng(0))
    assert list(terms.loss) == ["forward", "backward", "cycle"]
    assert_close(terms.loss["cycle"], 0.7 * expected.mean(), rtol=1e-12, atol=0)
    assert_close(terms.log["error_cycle"], expected[:16].mean().detach(), rtol=1e-12, atol=0)
    with torch.no_grad():
        c.copy_(torch.linalg.inv(a))
        g.copy_(f)
    assert method.loss(Batch(X), Rng(0)).log["error_cycle"] < 1e-20


def test_the_cycle_is_watched_and_no_term_without_its_weight() -> None:
    method, *_ = linear()
    terms = method.loss(Batch(X), Rng(0))
    assert "cycle" not in terms.loss
    assert terms.log["error_cycle"] > 0


def test_balance_is_the_forward_share_in_the_gradients_by_the_representations() -> None:
    method, f, g, a, c = linear(alpha=0.3)
    past, future = ((X[:16] - 0.25) / 2).flatten(1).chunk(2, 1)
    pull_x = 0.3 * 2 / (16 * 16) * (past @ (a @ f).T - future @ g.T) @ a
    pull_y = 0.7 * 2 / (16 * 16) * (future @ (c @ f).T - past @ g.T) @ c
    terms = method.loss(Batch(X), Rng(0))
    assert_close(terms.log["balance"], (pull_x.norm() / (pull_x.norm() + pull_y.norm())).detach(), rtol=1e-12, atol=0)
    with torch.no_grad():
        assert_close(method.loss(Batch(X), Rng(0)).log["balance"], terms.log["balance"], rtol=1e-12, atol=0)
    assert all(p.grad is None for p in method.parameters())


def test_what_is_watched_is_in_the_way_neither_of_flop_counters_nor_of_recomputed_activations() -> None:
    image = testing.SIGNALS[0]
    method, batch = methods.build(bijepa.Config.tiny(image), image), testing.example(image)
    plain = method.loss(batch, Rng(0))
    for module in method.modules():
        if hasattr(module, "checkpoint_activations"):
            module.checkpoint_activations = True  # type: ignore[assignment]
    with FlopCounterMode(display=False) as counter:
        again = method.loss(batch, Rng(0))
        again.total.backward()
    assert counter.get_total_flops() > 0
    assert torch.equal(again.log["balance"], plain.log["balance"])


def test_predict_is_the_prediction_of_the_half_that_is_hidden_whatever_lies_there() -> None:
    method = build()
    (s_x, s_y, _, _), (there, back) = parts(method), ends(method)
    assert_close(method.predict(X)[:, 0], there(s_x)[:, None], rtol=1e-12, atol=0)
    assert_close(method.predict(X, back=True)[:, 0], back(s_y)[:, None], rtol=1e-12, atol=0)
    blind = X.clone()
    blind[..., 10:] = math.nan
    assert torch.equal(method.predict(blind), method.predict(X))


def test_energy_is_the_loss_of_each_sample_between_the_context_of_x_and_the_target_of_y() -> None:
    method = build(alpha=0.3)
    y = X.roll(1, 0)
    (s_x, _, t_x, _), (_, s_y, _, t_y), (there, back) = parts(method), parts(method, y), ends(method)
    expected = 0.3 * (there(s_x) - t_y).square().mean(1) + 0.7 * (back(s_y) - t_x).square().mean(1)
    assert_close(method.energy(X, y), expected, rtol=1e-12, atol=0)


def test_several_maskers_are_averaged() -> None:
    image = Signal(1, (8, 8))
    tiny = bijepa.Config.tiny(image)
    masks = (Halves(axis=0), Halves(axis=1, context="last"), Random(ratio=0.5))
    method = build(image, tiny, masks=masks)
    batch = Batch(torch.rand(3, 1, 8, 8, dtype=torch.float64))
    pairs = method.pairs(batch.x, batch.x, Rng(4))
    found = method.loss(batch, Rng(4)).loss
    for i, name in enumerate(("forward", "backward")):
        each = torch.stack([F.mse_loss(pair[i].pred, pair[i].target) for pair in pairs])
        assert each.std() > 0
        assert_close(found[name], 0.5 * each.mean(), rtol=1e-12, atol=0)


def layers(module: Any) -> list[tuple[Any, ...]]:
    """The layers without parts, in order: the kind of each and the shape of its weight."""
    leaves = [m for m in module.modules() if not list(m.children())]
    return [(type(m).__name__, *getattr(m, "weight", torch.empty(0)).shape) for m in leaves]


def test_the_papers_perceptrons_can_be_built_with_and_without_their_layer_norms() -> None:
    method: Any = methods.build(CFG, SINE)
    hidden = [("LayerNorm", 64), ("ReLU", 0)]
    first, second, last = ("Linear", 64, 10), ("Linear", 64, 64), ("Linear", 16, 64)
    assert layers(method.encoder) == [first, *hidden, second, *hidden, last]
    assert len(method.predictors) == 2
    for predictor in method.predictors:
        assert layers(predictor) == [("Linear", 64, 16), *hidden, last]
    bare: Any = methods.build(bijepa.Config(MLP((10,), 16, 64, norm="none"), Perceptron(64, norm="none")), SINE)
    assert layers(bare.encoder) == [first, ("ReLU", 0), second, ("ReLU", 0), last]
    assert layers(bare.predictors[1]) == [("Linear", 64, 16), ("ReLU", 0), last]


def test_the_papers_convolutional_encoder_can_be_built() -> None:
    built = PAPER_CNN.build(IMAGE)
    assert built.grid == (1, 2)
    relu = ("ReLU", 0)
    convolutions = [("Conv2d", 32, 1, 3, 3), ("BatchNorm", 32), relu, ("Conv2d", 64, 32, 3, 3), ("BatchNorm", 64), relu]
    linears = [("Linear", 128, 1792), ("LayerNorm", 128), relu, ("Linear", 64, 128)]
    assert layers(built) == [*convolutions, ("Flatten", 0), *linears]
    assert {m.stride for m in built.modules() if isinstance(m, nn.Conv2d)} == {(2, 2)}
    plain = replace(PAPER_CNN, norm="none").build(IMAGE)
    assert {name for name, *_ in layers(plain)} == {"Conv2d", "ReLU", "Flatten", "Linear"}


def test_batch_norm_in_a_token_wise_encoder_is_torchs_over_all_patches_and_places() -> None:
    torch.manual_seed(0)
    encoder, x = PAPER_CNN.build(IMAGE), torch.rand(6, 1, 28, 28)
    layers = [nn.BatchNorm2d(m.norm.weight.numel()) if type(m).__name__ == "MapNorm" else m for m in encoder.layers]
    halves = torch.cat(x.chunk(2, 3)).reshape(2, 6, 1, 28, 14).transpose(0, 1).flatten(0, 1)
    assert_close(encoder(x).flatten(0, 1), nn.Sequential(*layers)(halves), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("buffers", ["copy", "batch"])
def test_the_targets_batch_norm_follows_its_own_batches_or_copies_the_encoders(buffers: Any) -> None:
    cfg = bijepa.Config(PAPER_CNN, Perceptron(128), buffers=buffers)
    method: Any = methods.build(cfg, IMAGE)
    x = torch.rand(8, 1, 28, 28, generator=Rng(0).generator())
    mean = [e.layers[1].norm.running_mean for e in (method.encoder, method.target_encoder)]
    before = mean[1].clone()
    with torch.no_grad():
        method.encoder.layers[0].bias.add_(1.0)
    method.loss(Batch(x), Rng(0))
    own = not torch.equal(mean[1], before)
    method.after_step(0.0)
    assert own == (buffers == "batch")
    assert torch.equal(mean[0], mean[1]) == (buffers == "copy")


class Paper(bijepa.BiJEPA):
    """On half the signal at a time, as in the paper."""

    class Config(bijepa.Config):
        @classmethod
        def tiny(cls, signal: Signal) -> Any:
            patch = (*signal.size[:-1], signal.size[-1] // 2)
            return cls(MLP(patch, 16, 32), Perceptron(32), ema=(0.99, 1.0), norm_weight=0.1, cycle_weight=0.1)


@pytest.mark.parametrize(
    "signal",
    [*(pytest.param(s, marks=pytest.mark.slow) for s in testing.SIGNALS[:2]), testing.SIGNALS[2]],
    ids=lambda s: f"{len(s.size)}d",
)
def test_the_papers_networks_keep_the_contract(signal: Signal) -> None:
    testing.contract(Paper, [signal])


@pytest.mark.parametrize("changes", [{"alpha": 1.0}, {"sphere": True}], ids=str)
def test_every_parameter_is_used_in_each_form(changes: dict[str, Any]) -> None:
    for signal in testing.SIGNALS:
        case = testing.Case(Paper, signal, testing.example(signal))
        cfg = replace(Paper.Config.tiny(signal), norm_weight=0.0, cycle_weight=0.0, **changes)
        method = case.build(cfg=cfg)
        method.loss(case.batch, Rng(0)).total.backward()
        idle = [k for k, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not idle
    assert clauses.uses_every_parameter in testing.CLAUSES


def grown(base: bijepa.Config, decay: float) -> float:
    """How much longer representations are after 500 steps on sines than after 100, at the paper's constant rate."""
    method, rate = methods.build(base, SINE), 1e-3
    still = optim.Optim(rate, rate, rate, warmup=0.0, weight_decay=decay, final_weight_decay=decay)
    optimizer, norms = optim.build_optimizer(still, method), []
    for step in range(500):
        terms = method(Batch(sines(64, step=step)), Rng(0, step))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        method.after_step(0.0)
        norms.append(float(terms.log["norm_online"]))
    return norms[499] / norms[99]


@pytest.mark.slow
def test_without_layer_norm_and_weight_decay_norms_grow_and_with_them_they_stay() -> None:
    assert grown(bijepa.Config(MLP((10,), 16, 64, norm="none"), Perceptron(64, norm="none")), 0.0) > 1.8
    assert grown(bijepa.Config(MLP((10,), 16, 64), Perceptron(64)), 1e-4) < 1.4


def test_settings_name_a_predictor_and_go_to_yaml_and_back() -> None:
    run = Run(bijepa.Config(), data.load("images")())
    words = {"name": "mlp", "hidden": 64, "norm": "none"}
    changed = apply_changes(
        run, {"method": {"predictor": words, "masks": [{"name": "halves", "axis": 0}], "radius": 3.0}}
    )
    again = from_dict(yaml.safe_load(to_yaml(changed)), "config.yaml")
    assert (
        again.method
        == changed.method
        == bijepa.Config(predictor=Perceptron(64, norm="none"), masks=(Halves(axis=0),), radius=3.0)
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"alpha": 0.0}, "alpha is 0; give a number above 0 and up to 1"),
        (
            {"alpha": 1.0, "cycle_weight": 1.0},
            "alpha 1 has no backward direction; give alpha below 1 or cycle_weight 0",
        ),
        ({"sphere": True, "norm_weight": 1.0}, "sphere fixes all norms; give norm_weight 0 or sphere false"),
        ({"radius": -1.0}, r"radius is -1\.0; give a length above 0"),
        ({"norm_weight": -1.0}, "norm_weight is -1; give a finite weight"),
        ({"ema": (0.9, 1.1)}, r"ema is \(0\.9, 1\.1\); give two decays"),
        ({"masks": ()}, "masks is empty; give one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(CFG, **changes)


def test_masks_or_grids_that_do_not_fit_are_refused_before_a_step() -> None:
    with pytest.raises(ValueError, match=r"masks have 2 target blocks, .*give num_targets 1"):
        build(base=bijepa.Config.tiny(IMAGE), signal=IMAGE, masks=(Random(num_targets=2),))
    with pytest.raises(ValueError, match=r"the grid \(4,\) has 4; give an encoder\.patch of half the signal"):
        build(encoder=MLP((5,)))
    with pytest.raises(ValueError, match=r"hidden is 0 and depth 1; give 1 feature"):
        Perceptron(hidden=0)


def test_a_transformer_predicts_between_halves_of_many_tokens() -> None:
    method = build(encoder=MLP((2,), 16), predictor=Predictor(width=16, depth=1, heads=2))
    there, back = method.pairs(X, X, Rng(0))[0]
    assert there.pred.shape == back.pred.shape == (40, 1, 5, 16)
    assert torch.equal(there.masks.targets[:, 0], back.masks.context)
    assert isinstance(there.masks, Masks)
