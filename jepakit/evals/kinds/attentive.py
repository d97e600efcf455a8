r"""An attentive probe on frozen tokens: a learnable query gathers information, and a small network reads it.

    x'_n = (x_n - mean) / std                                  over the tokens of the training part
    y    = concat_h sum_n softmax_n(q_h . K_h x'_n / sqrt e) V_h x'_n,      (q_h) = W_q query
    s    = query + y,      s <- s + MLP(LayerNorm(s)),      scores = W s + b

trained by cross-entropy with AdamW; the learning rate follows a cosine from `lr` to 0. Source: V-JEPA, Bardes et al.
2024, arXiv:2404.08471. Deliberate differences: tokens are standardised per feature, whereas the reference normalises
each token, which would remove brightness and contrast from raw patches; weights start within sqrt(6 / (in + out)),
because narrow tokens learn slowly from a normal of std .02; and there is no augmentation, because tokens are frozen.

With one query, neither keys nor values are computed per token: q_h K_h is one vector, and V_h is applied to the
mixture. So several probes share a pass over the tokens at little more than the cost of one.

`lr` and `weight_decay` are chosen on a fifth of the training samples (by the hash of their id, stratified), fitting on
the rest; then one probe per seed is fitted on all of them. Test samples are never used for this. Seeds differ in the
initial weights; `value` is the mean over them.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import schedules
from ...nn.transformer import FeedForward, init_linears
from ...run import optim
from ...run.optim import Optim
from ...types import Rng
from ..features import count_classes
from ..heldout import held_for_choice
from ..metrics.result import Value, mean_results
from ..tokens import Tokens, token_moments

READS = "tokens"

Pairs = Iterator[tuple[str, Value]]


@dataclass(frozen=True)
class Config:
    """`lr` and `weight_decay` list the candidates; a single value is used without a search.

    `heads` None is one head per 64 features. If a number does not divide the token's features (baselines may have
    another number of them), the next smaller divisor is used. `disk_gib` limits the temporary float16 files of tokens,
    for the trained encoder and both baselines together.
    """

    lr: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    weight_decay: tuple[float, ...] = (0.01,)
    epochs: int = 20
    batch: int = 256
    heads: int | None = None
    mlp_ratio: float = 4.0
    seeds: tuple[int, ...] = (0, 1, 2)
    disk_gib: float = 16.0

    def __post_init__(self) -> None:
        if not self.lr or min(self.lr) <= 0 or not self.weight_decay or min(self.weight_decay) < 0 or not self.seeds:
            raise ValueError(
                f"lr={self.lr}, weight_decay={self.weight_decay} and seeds={self.seeds} need at least one value each, "
                "e.g. lr=(1e-3,), weight_decay=(0.01,), seeds=(0,)"
            )
        if min(self.epochs, self.batch, 1 if self.heads is None else self.heads) < 1 or self.mlp_ratio <= 0:
            raise ValueError(
                f"epochs={self.epochs}, batch={self.batch}, heads={self.heads} and mlp_ratio={self.mlp_ratio} must be "
                "positive; the usual values are 20, 256, none and 4"
            )


class Job(NamedTuple):
    """One probe to fit."""

    lr: float
    weight_decay: float
    seed: int


class Attentive(nn.Module):
    """The probe of the module's equations, for tokens that are standardised by `mean` and `std` (D,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " d"], std: Float[Tensor, " d"], heads: int, ratio: float, classes: int):
        super().__init__()
        dim = len(mean)
        self.heads = heads
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.query = nn.Parameter(torch.empty(dim))
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.norm, self.mlp = nn.LayerNorm(dim, eps=1e-6), FeedForward(dim, max(1, int(ratio * dim)))
        self.head = nn.Linear(dim, classes)
        init_linears(self, "xavier")
        nn.init.trunc_normal_(self.query, std=0.02)

    def looks_for(self) -> Float[Tensor, "h d"]:
        """The vector (D,) with which each head compares raw tokens."""
        dim = len(self.query)
        q = self.q(self.query).reshape(self.heads, -1)
        k = self.kv.weight[:dim].reshape(self.heads, -1, dim)
        # The mean and the keys' bias shift all scores of a head alike, so the softmax removes both.
        return torch.einsum("he,hed->hd", q, k) / math.sqrt(dim // self.heads) / self.std

    def read(self, mixed: Float[Tensor, "b h d"]) -> Float[Tensor, "b k"]:
        """Class scores from the mixture of tokens that each head gathered."""
        dim = len(self.query)
        v = self.kv.weight[dim:].reshape(self.heads, -1, dim)
        y = torch.einsum("bhd,hed->bhe", (mixed - self.mean) / self.std, v).flatten(1) + self.kv.bias[dim:]
        s = self.query + y
        scores: Tensor = self.head(s + self.mlp(self.norm(s)))
        return scores


def joint_scores(probes: list[Attentive], x: Float[Tensor, "b n d"]) -> list[Float[Tensor, "b k"]]:
    """The class scores of several probes on the same tokens."""
    wanted = [probe.looks_for() for probe in probes]
    weights = torch.softmax(x @ torch.cat(wanted).T, dim=1)
    mixed = torch.split(weights.transpose(1, 2) @ x, [len(w) for w in wanted], dim=1)
    return [probe.read(part) for probe, part in zip(probes, mixed, strict=True)]


def evaluate(train: Tokens, test: Tokens, cfg: Config) -> Pairs:
    """Yield the mean accuracy on `test` over the seeds, the chosen `lr` and `weight_decay`, and the `heads`."""
    classes, dim = count_classes(train.y, test.y), train.store.shape[2]
    heads = choose_heads(cfg.heads, dim)
    lr, weight_decay = yield from _choose_settings(train, cfg, heads, classes)
    yield "lr", lr
    yield "weight_decay", weight_decay
    yield "heads", float(heads)
    share = (0.0, 1.0) if len(cfg.lr) * len(cfg.weight_decay) == 1 else (0.5, 1.0)
    probes = yield from fit_probes(
        train, [Job(lr, weight_decay, seed) for seed in cfg.seeds], cfg, heads, classes, share
    )
    yield from mean_results(predict_classes(probes, test), test.y, classes)


def choose_heads(heads: int | None, dim: int) -> int:
    """The largest number of heads up to `heads`, or to one per 64 features, that divides `dim` features."""
    most = max(1, dim // 64) if heads is None else min(heads, dim)
    return max(h for h in range(1, most + 1) if dim % h == 0)


def _choose_settings(
    train: Tokens, cfg: Config, heads: int, classes: int
) -> Generator[tuple[str, Value], None, tuple[float, float]]:
    """The pair with the best accuracy on a held-out fifth of `train`; for ties, the lowest rate and strongest decay.

    Raises ValueError if no class has two samples, so that nothing can be held out.
    """
    pairs = sorted(product(cfg.lr, cfg.weight_decay), key=lambda pair: (pair[0], -pair[1]))
    if len(pairs) == 1:
        return pairs[0]
    held = held_for_choice(train.id.tolist(), train.y, "attentive", "lr", f" each, e.g. lr=({cfg.lr[0]},)")
    jobs = [Job(*pair, cfg.seeds[0]) for pair in pairs]
    probes = yield from fit_probes(train.where(~held), jobs, cfg, heads, classes, (0.0, 0.5))
    judge = train.where(held)
    scores = [float((pred == judge.y).mean()) for pred in predict_classes(probes, judge)]
    return pairs[int(np.argmax(scores))]


def fit_probes(
    train: Tokens, jobs: list[Job], cfg: Config, heads: int, classes: int, share: tuple[float, float] = (0.0, 1.0)
) -> Generator[tuple[str, Value], None, list[Attentive]]:
    """Fit one probe per job, all in the same passes over the tokens; yields `progress` between the ends of `share`."""
    mean, std = token_moments(train)
    probes = [build_probe(job.seed, mean, std, heads, cfg.mlp_ratio, classes).to(train.device) for job in jobs]
    rules = [Optim(j.lr, j.lr, 0.0, 0.0, j.weight_decay, j.weight_decay) for j in jobs]
    optimizers = [optim.build_optimizer(rule, probe) for rule, probe in zip(rules, probes, strict=True)]
    y = torch.from_numpy(train.y).to(train.device)
    plan = list(batch_order(len(train), cfg.batch, cfg.epochs))
    for step, index in enumerate(plan):
        at = schedules.run_progress(step, len(plan))
        losses = [F.cross_entropy(scores, y[index]) for scores in joint_scores(probes, train.read(index))]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for rule, optimizer in zip(rules, optimizers, strict=True):
            optim.set_schedule(optimizer, rule, at)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield "progress", share[0] + (share[1] - share[0]) * (step + 1) / len(plan)
    return probes


def build_probe(
    seed: int, mean: Float[Tensor, " d"], std: Float[Tensor, " d"], heads: int, ratio: float, classes: int
) -> Attentive:
    """An untrained probe; the caller's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Attentive(mean, std, heads, ratio, classes)


def batch_order(n: int, batch: int, epochs: int) -> Iterator[Int64[np.ndarray, " b"]]:
    """The rows of each step: every row once per epoch, in batches that differ in size by at most one."""
    for epoch in range(epochs):
        rows = torch.randperm(n, generator=Rng(0, epoch).fork("probe", "order").generator()).numpy()
        # Sorting within a batch changes no sum and reads the file forwards.
        yield from (np.sort(part) for part in np.array_split(rows, -(-n // batch)))


@torch.no_grad()
def predict_classes(probes: list[Attentive], part: Tokens) -> list[Int64[np.ndarray, " n"]]:
    """The class (N,) that each probe predicts for each sample."""
    groups = np.array_split(np.arange(len(part)), -(-len(part) // 256))
    found = [[scores.argmax(1).cpu() for scores in joint_scores(probes, part.read(i))] for i in groups]
    return [torch.cat(list(column)).numpy() for column in zip(*found, strict=True)]
