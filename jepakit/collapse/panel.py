"""The collapse panel: one row of numbers on the tokens of a few fixed samples, from one or two encoders."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..types import Rng
from . import features as f
from .views import encoder_agreement

MIN_STD_SHARE = 1e-5  # a std at step 0 below this share of the features' size is rounding
RANK_TOKENS = 4096  # a rank of tokens is taken over at most so many, or 8 per feature


@dataclass(frozen=True)
class Panel:
    """Spread and length of target and context features at step 0; saved with the run, because later rows refer to it.

    `std_*` is the spread of the means over tokens, `patch_std_*` that of tokens over samples. Each is 0 if it is no
    more than rounding, or if the method lacks that encoder. `norm_*` is the mean length of tokens, 0 if unknown.
    """

    std_target: float
    std_context: float
    patch_std_target: float = 0.0
    patch_std_context: float = 0.0
    norm_target: float = 0.0
    norm_context: float = 0.0


def start_panel(target: Float[Tensor, "b n d"], context: Float[Tensor, "b n d"] | None) -> Panel:
    """The reference for later rows, from the tokens of the panel's samples at step 0."""
    sides = {"target": target} if context is None else {"target": target, "context": context}
    pooled = {
        f"std_{name}": _spread_or_zero(f.feature_std(tokens.mean(1)), tokens.mean(1)) for name, tokens in sides.items()
    }
    patch = {f"patch_std_{name}": _spread_or_zero(f.std_over_samples(tokens), tokens) for name, tokens in sides.items()}
    length = {f"norm_{name}": f.token_norm(tokens) for name, tokens in sides.items()}
    return Panel(**{"std_context": 0.0, **pooled, **patch, **length})


def panel_row(
    target: Float[Tensor, "b n d"], context: Float[Tensor, "b n d"] | None, at_start: Panel
) -> dict[str, float]:
    """One row of numbers on the tokens of the panel's samples, from the target and the context encoder.

    Keys end in `_target` and `_context`. On means over tokens: `std_ratio` (relative to step 0; 0 if there was no
    spread then), `std_to_mean`, `rank` (centred RankMe), `rank_share` (of min(N, D)), `rank_raw`, `entropy_rank`,
    `stable_rank`, `participation`, `alpha`, `redundancy`. On tokens: the ranks and `alpha` with the prefix `patch_`,
    `patch_std_ratio` over samples at each position, `position_share`, `norm` (mean length) and `norm_ratio` (relative
    to step 0). `encoder_agreement` compares the two encoders. A number that cannot be computed is left out.

    For a method with one encoder, `context` is None and the row has no `_context` keys.
    """
    row = _side_numbers("target", target, at_start)
    if context is not None:
        row |= _side_numbers("context", context, at_start)
        row["agreement"] = encoder_agreement(target.mean(1), context.mean(1))
    return row


def _side_numbers(side: str, tokens: Float[Tensor, "b n d"], at_start: Panel) -> dict[str, float]:
    pooled, patches = tokens.mean(1), subsample_rows(tokens.flatten(0, 1))
    std, patch_std, norm = (getattr(at_start, f"{what}_{side}") for what in ("std", "patch_std", "norm"))
    values = f.spectrum(pooled)
    rank = f.rank_of(values)
    row: dict[str, float | None] = {
        "std_ratio": f.feature_std(pooled) / std if std else 0.0,
        "std_to_mean": f.std_to_mean(pooled),
        "rank": rank,
        "rank_share": rank / min(pooled.shape),
        "rank_raw": f.raw_rank(pooled),
        **_spectrum_numbers(values),
        "redundancy": f.redundancy(pooled),
        "patch_std_ratio": f.std_over_samples(tokens) / patch_std if patch_std else None,
        "patch_rank_raw": f.raw_rank(patches),
        **{f"patch_{key}": value for key, value in _rank_numbers(patches).items()},
        "position_share": f.position_share(tokens),
        "norm": (length := f.token_norm(tokens)),
        "norm_ratio": length / norm if norm else None,
    }
    return {f"{key}_{side}": value for key, value in row.items() if value is not None}


def _rank_numbers(rows: Float[Tensor, "n d"]) -> dict[str, float | None]:
    values = f.spectrum(rows)
    return {"rank": f.rank_of(values), **_spectrum_numbers(values)}


def _spectrum_numbers(eigenvalues: Float[Tensor, " d"]) -> dict[str, float | None]:
    return {
        "entropy_rank": f.entropy_rank(eigenvalues),
        "stable_rank": f.stable_rank(eigenvalues),
        "participation": f.participation_ratio(eigenvalues),
        "alpha": f.alpha_req(eigenvalues),
    }


def subsample_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "_ d"]:
    """A random sample of at most 4,096 rows, or 8 per feature: enough for a rank, whatever the grid."""
    return rows[row_sample(len(rows), max(RANK_TOKENS, 8 * rows.shape[1])).to(rows.device)]


def row_sample(n: int, most: int) -> Int[Tensor, " k"]:
    """At most `most` of n row numbers, ascending, and the same ones every time.

    They are drawn at random, because every k-th row of tokens may be the same position of every grid.
    """
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=Rng(0).fork("panel", "rows").generator())[:most].sort().values


def _spread_or_zero(spread: float, features: Float[Tensor, "*n d"]) -> float:
    """`spread`, or 0 if it is no more than rounding."""
    return spread if spread > MIN_STD_SHARE * features.double().square().mean().sqrt().item() else 0.0
