"""The contract holds for every method of the house, and each of its clauses catches the fault it names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit import methods, testing
from jepakit.core import distributed
from jepakit.methods.base import NEED_ADVICE, Method, Weights
from jepakit.methods.head import Head
from jepakit.methods.masked import Masked
from jepakit.testing import clauses
from jepakit.testing.case import SIGNALS
from jepakit.types import Batch, Grid, Masks, Rng, Signal, Terms, take

IMAGE = SIGNALS[0]


@dataclass(frozen=True)
class RandomHalf:
    """A random half of the tokens predicts the other."""

    def check(self, grid: Grid) -> None:
        if prod(grid) < 2:
            raise ValueError(f"grid {grid} has one token; two are needed")

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        total, part = rng.global_batch(batch)
        order = torch.rand(total, prod(grid), generator=rng.generator()).argsort(1)[part]
        half = prod(grid) // 2
        return Masks(order[:, :half].sort().values, order[:, half:].sort().values[:, None])


class Patches(nn.Module):
    """Each patch on its own: a linear layer, a position, a non-linear layer."""

    def __init__(self, patch: tuple[int, ...], signal: Signal, dim: int) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.grid = tuple(n // p for n, p in zip(signal.size, patch, strict=True))
        self.embed = nn.Linear(signal.channels * prod(patch), dim)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(dim, dim))
        self.register_buffer("position", torch.randn(prod(self.grid), dim))

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b n d"]:
        for axis, cells in enumerate(self.grid):
            x = x.unflatten(2 + 2 * axis, (cells, -1))
        rank = len(self.grid)
        order = [0, *[2 + 2 * a for a in range(rank)], 1, *[3 + 2 * a for a in range(rank)]]
        tokens = x.permute(order).flatten(1 + rank).flatten(1, rank)
        return self.mix(self.embed(tokens) + self.position)


@dataclass(frozen=True)
class ToyConfig:
    """Four or two pixels a side per patch, so that every built-in signal has 16 tokens."""

    patch: tuple[int, ...]
    masks: tuple[Any, ...] = (RandomHalf(), RandomHalf())
    ema: tuple[float, float] = (0.99, 1.0)
    dim: int = 16

    @classmethod
    def tiny(cls, signal: Signal) -> "ToyConfig":
        return cls({1: (2,), 2: (4, 4), 3: (2, 4, 4)}[len(signal.size)])


class Toy(Masked):
    """The smallest masked JEPA that keeps the contract: the mean of the context predicts each hidden token."""

    Config = ToyConfig

    def __init__(self, cfg: ToyConfig, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = Patches(cfg.patch, signal, cfg.dim)
        self.target_encoder = Patches(cfg.patch, signal, cfg.dim).requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.predictor = nn.Sequential(nn.Linear(2 * cfg.dim, 32), nn.GELU(), nn.Linear(32, cfg.dim))

    def context(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b k d"]:
        return take(self.encoder(self.normalize(x)), masks.context)

    def predict(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m k d"]:
        seen = self.context(x, masks).mean(1)[:, None, None].expand(*masks.targets.shape, -1)
        return self.predictor(torch.cat([seen, self.encoder.position[masks.targets]], -1))

    def expected(self, x: Float[Tensor, "b c ..."], masks: Masks) -> Float[Tensor, "b m k d"]:
        return take(self.encode(x), masks.targets)

    def distances(self, x: Tensor, y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        maskers = enumerate(self.cfg.masks)
        drawn = [masker(self.encoder.grid, len(x), rng.fork(i)) for i, masker in maskers]
        pred = torch.cat([self.predict(x, masks) for masks in drawn], 1)
        with torch.no_grad():
            tokens = self.target_encoder(self.normalize(y))
        target = torch.cat([take(tokens, masks.targets) for masks in drawn], 1)
        return (pred - target).square().flatten(1).mean(1), pred, target

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        distance, pred, target = self.distances(batch.x, batch.x, rng)
        return Terms(loss={"prediction": distance.mean()}, compared=(pred.detach(), target))

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        return (self.target_encoder if weights == "target" else self.encoder)(self.normalize(batch.x))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        decay = self.cfg.ema[0] + (self.cfg.ema[1] - self.cfg.ema[0]) * progress
        for t, p in zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True):
            t.lerp_(p, 1 - decay)

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        return self.distances(batch.x, other.x, Rng(0).fork("energy"))[0]


class LeaksIntoContext(Toy):
    def context(self, x: Tensor, masks: Masks) -> Tensor:
        return super().context(x, masks) + 1e-3 * x.flatten(1).mean(1)[:, None, None]


class LeaksIntoPrediction(Toy):
    def predict(self, x: Tensor, masks: Masks) -> Tensor:
        return super().predict(x, masks) + 1e-3 * self.encoder(self.normalize(x)).mean()


class MasksWithoutSayingSo(Method):
    Config = ToyConfig
    encode = Toy.encode

    def __init__(self, cfg: ToyConfig, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.encoder = self.target_encoder = Patches(cfg.patch, signal, cfg.dim)


class ExpectsAnotherShape(Toy):
    def expected(self, x: Tensor, masks: Masks) -> Tensor:
        return super().expected(x, masks)[:, :, 1:]


class ContextOfNothing(Toy):
    def context(self, x: Tensor, masks: Masks) -> Tensor:
        return 0 * super().context(x, masks) + self.encoder.position[masks.context]


class DrawsGlobally(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        noise = 0.01 * torch.randn_like(batch.x)
        return super().loss(replace(batch, x=batch.x + noise), rng)


class DrawsFromASeedOfItsOwn(Toy):
    drawn = 0

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        self.drawn += 1
        return super().loss(batch, Rng(0, step=self.drawn, offset=rng.offset, total=rng.total))


class IgnoresRng(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        return super().loss(batch, Rng(0, offset=rng.offset, total=rng.total))


class BuildsWhatItNeverUses(Toy):
    def __init__(self, cfg: ToyConfig, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.spare = nn.Linear(2, 2)


class MovesTheTargetTooFast(Toy):
    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        super().after_step(progress)


class IgnoresTheEndOfTheSchedule(Toy):
    def after_step(self, progress: float) -> None:
        super().after_step(0.0)


class NormalisesTwice(Toy):
    def encode(self, batch: Batch, weights: Weights = "target") -> Tensor:
        return super().encode(replace(batch, x=self.normalize(batch.x)), weights)


class KeepsStateOutsideItsBuffers(Toy):
    scale = 1.0

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.scale = 0.5

    def encode(self, batch: Batch, weights: Weights = "target") -> Tensor:
        return self.scale * super().encode(batch, weights)


class OverflowsInBfloat16(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        wide = torch.finfo(torch.bfloat16).max * (terms.total + 3.0)
        return terms if not torch.is_autocast_enabled("cpu") else replace(terms, loss={"prediction": wide * 10})


class MixesSamplesInSecret(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        spread = self.encode(batch, "context").var(0).mean()
        return replace(terms, loss={**terms.loss, "spread": (1 - spread).square()})


class MixesSamplesAndSaysSo(MixesSamplesInSecret):
    batch_statistics = True


class MixesTheSamplesOfAllRanks(Toy):
    batch_statistics = True

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        _, var, _ = distributed.global_moments(self.encode(batch, "context").mean(1))
        return replace(terms, loss={**terms.loss, "spread": (1 - var.mean()).square()})


class ForgetsOtherRanksInTheGradient(Toy):
    batch_statistics = True

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        means = self.encode(batch, "context").mean(1)
        own = means.var(0, correction=0)
        spread = own - own.detach() + distributed.global_moments(means.detach())[1]
        return replace(terms, loss={**terms.loss, "spread": (1 - spread.mean()).square()})


class NormalisesEachRankByItself(Toy):
    batch_statistics = True

    def __init__(self, cfg: ToyConfig, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.norm = nn.BatchNorm1d(self.encoder.dim)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        spread = self.norm(self.encode(batch, "context").mean(1)).square().square().mean()
        return replace(terms, loss={**terms.loss, "spread": spread})


class DrawsForTheLocalBatchOnly(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        return super().loss(batch, replace(rng, offset=0, total=0))


class CollapsesToAPoint(Toy):
    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.target_encoder.embed.weight.mul_(0.9)


class CollapsesToALine(Toy):
    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        last = self.target_encoder.mix[1]
        last.weight.lerp_(last.weight.mean(0, keepdim=True).expand_as(last.weight), 0.2)


class LearnsNothing(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        return replace(terms, loss={"prediction": terms.total * 1e-3 + 1.0})


class EnergyIgnoresX(Toy):
    def energy(self, batch: Batch, other: Batch) -> Tensor:
        x = batch.x.mean(0, keepdim=True).expand_as(batch.x)
        return super().energy(replace(batch, x=x), other)


class CarriesGradientsInTerms(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        distance, pred, target = self.distances(batch.x, batch.x, rng)
        return Terms(loss={"prediction": distance.mean()}, compared=(pred, target))


class ComparesWhatTheLossDoesNot(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        assert terms.compared is not None
        pred, target = terms.compared
        return replace(terms, compared=(pred, 0.01 * target))


class ComparesRowsWithoutATarget(Toy):
    def loss(self, batch: Batch, rng: Rng) -> Terms:
        terms = super().loss(batch, rng)
        assert terms.compared is not None
        pred, target = terms.compared
        return replace(terms, compared=(pred, target[:, 1:]))


class NeedsTimeButDoesNotSay(Toy):
    needs = frozenset({"time"})

    @classmethod
    def requires(cls, cfg: ToyConfig) -> frozenset[str]:
        return frozenset()


def test_a_correct_method_keeps_the_contract_on_every_signal() -> None:
    testing.contract(Toy)


def test_a_method_that_says_its_loss_mixes_samples_need_not_accumulate() -> None:
    clauses.accumulates_in_halves(_case(MixesSamplesAndSaysSo))


def test_a_method_that_mixes_the_samples_of_all_ranks_keeps_the_clause() -> None:
    clauses.sees_the_samples_of_all_ranks(_case(MixesTheSamplesOfAllRanks))


@pytest.mark.parametrize(
    ("broken", "clause", "sentence"),
    [
        (MixesSamplesAndSaysSo, clauses.sees_the_samples_of_all_ranks, "two processes .* loss .* over all processes"),
        (NormalisesEachRankByItself, clauses.sees_the_samples_of_all_ranks, r"BatchNorm in place of torch's"),
        (ForgetsOtherRanksInTheGradient, clauses.sees_the_samples_of_all_ranks, "another gradient for .* than one"),
        (CarriesGradientsInTerms, clauses.encodes_every_token, "detach them"),
        (ComparesWhatTheLossDoesNot, clauses.learns_one_batch, "the normalised loss of .* as the loss compares them"),
        (ComparesRowsWithoutATarget, clauses.encodes_every_token, "give a target for every prediction"),
        (NormalisesTwice, clauses.normalises_first, "normalize"),
        (BuildsWhatItNeverUses, clauses.uses_every_parameter, "no gradient reaches spare.weight, spare.bias"),
        (DrawsGlobally, clauses.draws_from_rng_alone, "draws from the global random state"),
        (DrawsFromASeedOfItsOwn, clauses.draws_from_rng_alone, "the same rng gave two losses"),
        (IgnoresRng, clauses.follows_rng, "four rngs gave one loss"),
        (LeaksIntoContext, clauses.hides_what_is_masked, "hidden patches change context"),
        (LeaksIntoPrediction, clauses.hides_what_is_masked, "hidden patches change the prediction"),
        (MasksWithoutSayingSo, clauses.hides_what_is_masked, "make the method a Masked"),
        (ExpectsAnotherShape, clauses.hides_what_is_masked, "predict gives shape .* but expected"),
        (ContextOfNothing, clauses.hides_what_is_masked, "context.* ignores x"),
        (MovesTheTargetTooFast, clauses.moves_the_target_by_the_stated_fraction, "at progress 0.0 .* 1 - 0.99"),
        (IgnoresTheEndOfTheSchedule, clauses.moves_the_target_by_the_stated_fraction, "at progress 0.5 .* 1 - 0.995"),
        (KeepsStateOutsideItsBuffers, clauses.saves_everything, "encode changes when saved and loaded"),
        (OverflowsInBfloat16, clauses.is_finite_in_bf16, "not finite in bfloat16"),
        (MixesSamplesInSecret, clauses.accumulates_in_halves, "two halves give"),
        (DrawsForTheLocalBatchOnly, clauses.accumulates_in_halves, "two halves give"),
        (LearnsNothing, clauses.learns_one_batch, "took the loss from"),
        (CollapsesToAPoint, clauses.learns_one_batch, "took the std"),
        (CollapsesToALine, clauses.learns_one_batch, "took the rank"),
        (EnergyIgnoresX, clauses.learns_one_batch, "with y shuffled; it must be lower"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(broken: type[Method], clause: Any, sentence: str) -> None:
    assert clause in testing.CLAUSES
    with pytest.raises(AssertionError, match=sentence):
        clause(_case(broken))
    clause(_case(Toy))


def test_the_sentence_names_the_method_the_signal_and_the_clause() -> None:
    with pytest.raises(AssertionError, match=r"LeaksIntoContext on \(16, 16\) with x only: .* hides what is masked"):
        testing.contract(LeaksIntoContext, [IMAGE])


def test_a_method_that_takes_what_it_says_it_cannot_is_told_so() -> None:
    with pytest.raises(AssertionError, match="needs time but takes a signal without"):
        testing.contract(NeedsTimeButDoesNotSay, [IMAGE, SIGNALS[2]])


def test_a_method_no_signal_fits_is_told_to_bring_one() -> None:
    class Labelled(Toy):
        needs = frozenset({"label"})

    with pytest.raises(AssertionError, match="no signal carries"):
        testing.contract(Labelled, [IMAGE])


def test_hidden_pixels_are_exactly_those_of_the_patches_left_out() -> None:
    seen = clauses._visible_pixels(torch.tensor([[0, 5]]), (2, 3), (4, 6))
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[:2, :2] = expected[2:, 4:] = True
    assert torch.equal(seen[0, 0], expected)


def _every_method() -> Iterator[Any]:
    """Each method on each signal it takes; beside I-JEPA, extras only where they are needed, and images quickly."""
    for name in methods.METHODS.names():
        needs = methods.load(name).Method.needs
        for signal in testing.variants():
            if needs <= signal.has and (name == "ijepa" or needs or not signal.views):
                marks = [] if name == "ijepa" or len(signal.size) == 2 else [pytest.mark.slow]
                yield pytest.param(name, signal, marks=marks, id=f"{name}-{len(signal.size)}d-{len(signal.has)}")


@pytest.mark.parametrize(("name", "signal"), list(_every_method()))
def test_every_method_keeps_the_contract(name: str, signal: Signal) -> None:
    testing.contract(methods.load(name).Method, [signal])


@pytest.mark.parametrize("name", methods.METHODS.names())
def test_a_signal_without_what_a_method_needs_is_refused(name: str) -> None:
    method = methods.load(name).Method
    advice = [NEED_ADVICE[need] for need in method.needs]
    for signal in testing.variants():
        if method.needs <= signal.has:
            testing.Case(method, signal, testing.example(signal)).build()
        else:
            own = rf"^{name} needs .*which the data lack.*; ({'|'.join(map(re.escape, advice))})"
            parents = rf"^{name} is trained on top of a finished run, but none is given"  # what a head says first
            with pytest.raises(ValueError, match=parents if issubclass(method, Head) else own):
                method(method.Config.tiny(signal), signal)


def _case(method: type[Method]) -> testing.Case:
    return testing.Case(method, IMAGE, testing.example(IMAGE))
