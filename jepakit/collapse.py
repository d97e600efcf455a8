"""Label-free quality of representations, and a verdict with the option to change.

No single number tells collapse: the centred rank is blind to a representation that shrinks to a point, the raw rank is
fooled by a large mean, and the loss falls when its target shrinks. So the panel reads several, and compares the spread
with its own value at step 0. A rank depends on the number of samples: keep the panel's samples fixed over a run.

Source: RankMe (arXiv:2210.02885), centred here; effective rank after Roy & Vetterli (2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .losses import Kind, elementwise, wide

State = Literal["healthy", "drifting", "dimensional", "full", "exploding", "idle", "unknown"]
Row = Mapping[str, float]

# Proposals, to be calibrated on forced collapses.
FULL: Final = 0.01  # std below this share of its value at step 0
EXPLODING: Final = 100.0  # std above this multiple of its value at step 0
DIMENSIONAL: Final = 0.05  # rank below this share of min(N, D) …
FALLING: Final = 0.8  # … and below this share of its best value so far
DRIFTING: Final = 0.7  # rank below this share of its best for PATIENCE rows, while the loss improves
NO_SPREAD: Final = 1e-5  # std at step 0 below this share of the features' size is rounding
IDLE: Final = 0.98  # prediction loss above this share of what the best constant has
PATIENCE: Final = 3


@dataclass(frozen=True)
class Panel:
    """The spread of target and context features at step 0; saved with the run, as later rows are relative to it.

    It is 0 where it is no more than rounding.
    """

    std_target: float
    std_context: float


@dataclass(frozen=True)
class Verdict:
    """The state of a run, the numbers that say so, and what to change (empty where nothing is to be)."""

    name: State
    reason: str
    advice: str = ""


def std(features: Float[Tensor, "n d"]) -> float:
    """The standard deviation over samples, averaged over features; 0 for a single point."""
    return features.double().std(0, correction=0).mean().item()


def spectrum(features: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The eigenvalues of the covariance, largest first, float64 on the CPU; NaN where a feature is not finite."""
    centred = features.double().cpu()
    centred = centred - centred.mean(0)
    if not centred.isfinite().all():
        return torch.full_like(centred[0], torch.nan)
    values: Tensor = torch.linalg.eigvalsh(centred.T @ centred / len(centred))
    return values.flip(0).clamp(min=0)


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """The exponential of the entropy of the singular values of the centred features: 1 … min(N, D), 0 for one point.

    It grows with N: compare only values of equal N, and give N ≥ 10 D where possible.
    """
    return rank_of(spectrum(features))


def rank_of(eigenvalues: Float[Tensor, " d"]) -> float:
    """The effective rank that belongs to a `spectrum`."""
    sigma = eigenvalues.sqrt()
    if sigma.sum() == 0:
        return 0.0
    p = sigma / sigma.sum() + 1e-7
    return (-(p * p.log()).sum()).exp().item()


def position_share(tokens: Float[Tensor, "b n d"]) -> float:
    """The share of the variance of tokens that their position explains; 1 means that the sample leaves no trace."""
    total = wide(tokens).var((0, 1), correction=0).mean()
    by_position = wide(tokens).mean(0).var(0, correction=0).mean()
    return (by_position / total).item() if total > 0 else 1.0


def normalized_loss(pred: Float[Tensor, "*n d"], target: Float[Tensor, "*n d"], kind: Kind = "smooth_l1") -> float:
    """The prediction loss over that of the best constant prediction: 1 is no better than the mean, 0 is perfect.

    Unlike the loss it does not fall when the targets shrink. Both arguments as the loss compares them. A constant
    target, which any predictor can match, gives 1.
    """
    pred, target = wide(pred).flatten(0, -2), wide(target).flatten(0, -2)
    constant = elementwise(target, best_constant(target, kind), kind).mean().item()
    loss = elementwise(pred, target, kind).mean().item()
    return loss / constant if constant > 0 else 1.0


def best_constant(target: Float[Tensor, "n d"], kind: Kind) -> Float[Tensor, "1 d"]:
    """The one vector that predicts all tokens with the lowest loss: the mean (l2), the median (l1), Huber's between."""
    if kind == "l1":
        return target.median(0, keepdim=True).values
    centre = target.mean(0, keepdim=True)
    if kind == "l2":
        return centre
    for _ in range(20):  # Reweighted means never raise this loss and settle to 4 digits well before.
        weight = 1 / (target - centre).abs().clamp(min=1)
        centre = (weight * target).sum(0, keepdim=True) / weight.sum(0, keepdim=True)
    return centre


def start(target: Float[Tensor, "b n d"], context: Float[Tensor, "b n d"]) -> Panel:
    """What later rows are compared with, from the tokens of the panel's samples at step 0."""
    return Panel(std_target=_spread(target.mean(1)), std_context=_spread(context.mean(1)))


def panel(target: Float[Tensor, "b n d"], context: Float[Tensor, "b n d"], at_start: Panel) -> dict[str, float]:
    """One row of numbers on the tokens of the panel's samples, from the target and the context encoder.

    On means over tokens: `std_ratio_*` (relative to step 0; 0 where there was no spread then), `rank_*` (centred
    effective rank), `rank_share_*` (of min(N, D)). On tokens: `patch_rank_*`, `position_share_*`.
    """
    row: dict[str, float] = {}
    sides = {"target": (target, at_start.std_target), "context": (context, at_start.std_context)}
    for name, (tokens, std_at_start) in sides.items():
        pooled = tokens.mean(1)
        rank = effective_rank(pooled)
        row[f"std_ratio_{name}"] = std(pooled) / std_at_start if std_at_start else 0.0
        row[f"rank_{name}"] = rank
        row[f"rank_share_{name}"] = rank / min(pooled.shape)
        row[f"patch_rank_{name}"] = effective_rank(_some(tokens.flatten(0, 1)))
        row[f"position_share_{name}"] = position_share(tokens)
    return row


def verdict(history: Sequence[Row]) -> Verdict:
    """The state of a run from its panel rows, oldest first, each with `normalized_loss` where it is known.

    `history[0]` is the row of step 0. "unknown" until there are two rows, and as long as fewer than PATIENCE hold a
    loss, of which the last is no better than a constant's. The thresholds are proposals, see the constants of this
    module. The gravest state that holds is named: exploding, full, dimensional, drifting, idle, else healthy.
    """
    if len(history) < 2:
        return Verdict("unknown", f"{len(history)} of the 2 panel rows that a verdict needs")
    checks = (_exploding, _constant, _full, _dimensional, _drifting, _idle)
    found = (check(history, side) for check in checks for side in ("target", "context"))
    return next((v for v in found if v is not None), _healthy(history[-1]))


def _spread(features: Float[Tensor, "n d"]) -> float:
    """`std`, but 0 where it is no more than rounding."""
    value, size = std(features), features.double().square().mean().sqrt().item()
    return value if value > NO_SPREAD * size else 0.0


def _some(rows: Float[Tensor, "n d"]) -> Float[Tensor, "_ d"]:
    """At most 16,384 rows, evenly spread: enough for a rank, whatever the grid."""
    return rows[:: max(1, -(-len(rows) // 16384))]


def _exploding(history: Sequence[Row], side: str) -> Verdict | None:
    last = history[-1]
    wild = next((k for k, v in last.items() if not isfinite(v)), "")
    advice = "lower --optim.lr, or set --optim.clip 1"
    if wild:
        return Verdict("exploding", f"{wild} is {last[wild]}", advice)
    ratio = last.get(f"std_ratio_{side}", 1.0)
    if ratio > EXPLODING:
        return Verdict("exploding", f"{side} std is {ratio:.3g} times its value at step 0", advice)
    return None


def _constant(history: Sequence[Row], side: str) -> Verdict | None:
    if history[0].get(f"std_ratio_{side}", 1.0) > 0:
        return None
    advice = "look at the data with `jepa check-data`: to the untrained encoder all samples are the same"
    return Verdict("full", f"{side} std is 0 at step 0 already, before any training", advice)


def _full(history: Sequence[Row], side: str) -> Verdict | None:
    ratio = history[-1].get(f"std_ratio_{side}", 1.0)
    if ratio >= FULL:
        return None
    advice = "raise --method.ema towards 1, or lower --optim.lr"
    return Verdict("full", f"{side} std is {ratio:.2%} of its value at step 0", advice)


def _dimensional(history: Sequence[Row], side: str) -> Verdict | None:
    share = history[-1].get(f"rank_share_{side}", 1.0)
    best = max(_values(history, f"rank_share_{side}"), default=share)
    if share >= DIMENSIONAL or share >= FALLING * best:
        return None
    advice = "raise --method.ema towards 1, lower --optim.final_weight_decay, or make the masks harder"
    return Verdict("dimensional", f"{side} rank is {share:.1%} of what is possible, down from {best:.1%}", advice)


def _drifting(history: Sequence[Row], side: str) -> Verdict | None:
    ranks, losses = _values(history, f"rank_{side}"), _values(history, "normalized_loss")
    if len(ranks) <= PATIENCE or len(losses) <= PATIENCE:
        return None
    best, improves = max(ranks), losses[-1] < losses[-1 - PATIENCE]
    if not improves or any(rank >= DRIFTING * best for rank in ranks[-PATIENCE:]):
        return None
    advice = "lower --optim.lr or --optim.final_weight_decay, or raise --method.ema"
    return Verdict("drifting", f"{side} rank fell from {best:.3g} to {ranks[-1]:.3g} while the loss improves", advice)


def _idle(history: Sequence[Row], side: str) -> Verdict | None:
    losses = _values(history, "normalized_loss")[-PATIENCE:]
    if not losses or losses[-1] < IDLE:
        return None
    if len(losses) < PATIENCE:
        reason = f"the prediction loss is {losses[-1]:.1%} of what a constant has"
        return Verdict("unknown", f"{reason}, measured {len(losses)} times of the {PATIENCE} that tell")
    if min(losses) < IDLE:
        return None
    advice = "raise --optim.lr or --steps, or lower --method.ema"
    return Verdict("idle", f"the prediction loss is {min(losses):.1%} of what a constant has", advice)


def _healthy(row: Row) -> Verdict:
    keys = ("normalized_loss", "std_ratio_target", "rank_share_target")
    return Verdict("healthy", ", ".join(f"{key} {row[key]:.3g}" for key in keys if key in row))


def _values(history: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in history if key in row]
