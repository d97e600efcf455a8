"""C-JEPA: I-JEPA's loss and, beside it, the terms of what `pairs` compares."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepakit import methods, testing
from jepakit.masks.random import Random
from jepakit.methods import cjepa, ijepa
from jepakit.nn.heads import Projector
from jepakit.types import Batch, Rng, Signal

SIGNAL = Signal(3, (16, 16), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2), views=2)
TINY = replace(cjepa.Config.tiny(SIGNAL), masks=(Random(num_targets=2), Random(num_targets=3)))
BATCH = testing.example(SIGNAL)


def build(**changes: Any) -> cjepa.CJEPA:
    built = methods.build(replace(TINY, **changes), SIGNAL)
    assert isinstance(built, cjepa.CJEPA)
    return built


def vicreg(a: Tensor, b: Tensor) -> list[Tensor]:
    """The published loss of two views, term by term, unweighted."""
    stds = [F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (a, b)]
    covs = [z.T.cov() for z in (a, b)]
    off = [(c - c.diag().diag()).square().sum() / len(c) for c in covs]
    return [F.mse_loss(a, b), sum(stds) / 2, sum(off)]


def test_blocks_are_algorithm_1_of_the_paper() -> None:
    method, rng = build(b_vic=0.1, sim=2.0, std=3.0, cov=5.0), Rng(3)
    drawn = method.draw(len(BATCH), rng)
    means = torch.cat([method.predictor(method.context(BATCH.x, m), m).mean(2) for m in drawn], 1)
    z = method.projector(means)
    expected = torch.zeros(3)
    for i in range(5):
        for j in range(5):
            if i != j:
                expected += torch.stack(vicreg(z[:, i], z[:, j])) / 20
    found = method.loss(BATCH, rng).loss
    assert list(found) == ["prediction", "invariance", "variance", "covariance"]
    torch.testing.assert_close(torch.stack(list(found.values())[1:]), 0.1 * torch.tensor([2.0, 3.0, 5.0]) * expected)


def test_context_and_target_agree_and_the_context_alone_is_held_apart() -> None:
    method, rng = build(pairs="context-target", b_vic=1.0, projector=Projector(layers=0), masks=TINY.masks[:1]), Rng(3)
    drawn = method.draw(len(BATCH), rng)
    context = method.context(BATCH.x, drawn[0]).mean(1)
    target = method.targets(BATCH.x, drawn)[0].mean((1, 2))
    found = method.loss(BATCH, rng).loss
    torch.testing.assert_close(found["invariance"], 25 * F.mse_loss(context, target))
    _, std, cov = vicreg(context, context)
    torch.testing.assert_close(found["variance"], 25 * std)
    torch.testing.assert_close(found["covariance"], cov / 2)


def test_views_are_vicreg_on_the_means_of_the_context_encoder() -> None:
    method = build(pairs="views", b_vic=1.0, sim=1.0, std=1.0)
    z = method.projector(torch.stack([method.encode(BATCH.views[0][:, v], "context").mean(1) for v in (0, 1)]))
    found = list(method.loss(BATCH, Rng(3)).loss.values())[1:]
    torch.testing.assert_close(torch.stack(found), torch.stack(vicreg(z[0], z[1])))


@pytest.mark.parametrize(("pairs", "parts"), [("blocks", 3), ("context-target", 2), ("views", 2)])
def test_the_terms_reach_encoder_and_projector_and_only_blocks_the_predictor(pairs: Any, parts: int) -> None:
    method = build(pairs=pairs)
    terms = method.loss(BATCH, Rng(0)).loss
    sum(v for k, v in terms.items() if k != "prediction").backward()
    reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "projector", "predictor"} - ({"predictor"} if parts == 2 else set())


def test_without_its_weight_it_is_ijepa_to_the_bit() -> None:
    method = build(b_vic=0.0)
    fields = ("encoder", "predictor", "masks", "distance", "target_blocks", "ema")
    plain = methods.build(ijepa.Config(**{name: getattr(TINY, name) for name in fields}), SIGNAL)
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("projector")})
    assert torch.equal(method.loss(BATCH, Rng(3)).total, plain.loss(BATCH, Rng(3)).total)


def test_a_batch_too_small_or_a_single_block_is_refused_before_a_step() -> None:
    build().check(8)
    with pytest.raises(ValueError, match="need 2 samples at a time"):
        build().check(1)
    with pytest.raises(ValueError, match="have one target block; give num_targets 2"):
        build(masks=(Random(),)).check(8)
    build(masks=(Random(),), pairs="views").check(8)
    with pytest.raises(ValueError, match=r"9000 projected features are too many"):
        build(projector=Projector(out=9000)).check(8)
    build(projector=Projector(out=9000), b_vic=0.0).check(8)


def test_where_the_context_alone_is_held_twice_as_many_features_are() -> None:
    both, one = (build(pairs=pairs, projector=Projector(out=96)) for pairs in ("blocks", "context-target"))
    with pytest.raises(ValueError, match=r"96 projected features are too many"):
        both.check(2)
    one.check(2)
    # The least of std (1 - s) + cov s^4 (d / (n - 1) - 1), found on a grid.
    s = torch.linspace(0, 1, 100001, dtype=torch.float64)
    best = s[(one.cfg.std * (1 - s) + one.cfg.cov * s**4 * (96 / 1 - 1)).argmin()]
    assert f"comes to {best:.2f} at best" in one.caution(2)


def test_views_are_needed_only_where_they_are_paired() -> None:
    without = replace(SIGNAL, views=0)
    methods.build(TINY, without).loss(Batch(BATCH.x), Rng(0))
    with pytest.raises(ValueError, match=r"cjepa needs views, .*set data\.augment\.views"):
        methods.build(replace(TINY, pairs="views"), without)


@pytest.mark.parametrize("name", ["b_vic", "sim", "std", "cov"])
def test_a_weight_that_is_no_weight_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is -1; give a finite weight of 0 or more"):
        replace(TINY, **{name: -1.0})
