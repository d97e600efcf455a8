"""Label propagation through a film by nearest neighbours among frozen tokens, from the mask of its first frame."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ...types import Grid
from ..tokens import UNKNOWN_CLASS, Tokens
from .segments import class_shares, contour_accuracy, jaccard


class Rule(NamedTuple):
    """Each token takes its label from the `k` most similar tokens at most `radius` away along both axes.

    They come from the first frame and from the last `context` frames; similarity c has weight exp(c / temperature).
    Source: DINO, Caron et al. 2021, arXiv:2104.14294.
    """

    k: int
    context: int
    radius: int
    temperature: float


class Score(NamedTuple):
    """J and F of one object, averaged over the frames after the first."""

    film: int
    j: float
    f: float


def object_scores(part: Tokens, rule: Rule) -> Iterator[Score]:
    """The scores of each object in the first frame of each film; films of a single frame are skipped."""
    assert part.sequence is not None
    for film in np.unique(part.sequence):
        frames = np.flatnonzero(part.sequence == film)
        if len(frames) > 1:
            yield from film_scores(part, frames, int(film), rule)


def film_scores(part: Tokens, frames: Int64[np.ndarray, " t"], film: int, rule: Rule) -> Iterator[Score]:
    """The scores of the objects of one film."""
    truth = part.truth(frames)
    objects = [int(o) for o in np.unique(truth[0].cpu().numpy()) if o not in (0, UNKNOWN_CLASS)]
    if not objects:
        return
    pred = carry_labels(
        part.read(frames), _first_labels(truth[0], objects, part.grid), part.grid, rule, tuple(truth.shape[1:])
    )
    known = truth[1:] != UNKNOWN_CLASS
    for i, o in enumerate(objects, 1):
        found = [((p == i) & k, t == o) for p, t, k in zip(pred, truth[1:], known, strict=True)]
        j, f = (float(np.mean([measure(a, b) for a, b in found])) for measure in (jaccard, contour_accuracy))
        yield Score(film, j, f)


def _first_labels(truth: Int64[Tensor, "h w"], objects: list[int], grid: Grid) -> Float[Tensor, "n k"]:
    """The share of the background and of each object in every token of a first frame."""
    place = torch.zeros(UNKNOWN_CLASS + 1, dtype=torch.int64, device=truth.device)
    place[objects] = torch.arange(1, len(objects) + 1, device=truth.device)
    return class_shares(place[truth][None], len(objects) + 1, grid)[0]


def carry_labels(
    tokens: Float[Tensor, "t n d"], first: Float[Tensor, "n k"], grid: Grid, rule: Rule, size: tuple[int, ...]
) -> Int64[Tensor, "s h w"]:
    """The label of every pixel in the frames after the first; `first` (N, K) are label shares of the first's tokens."""
    s, near = F.normalize(tokens, dim=-1), neighbour_mask(grid, rule.radius, tokens.device)
    labels, found = [first], []
    for i in range(1, len(s)):
        context = [0, *range(max(1, i - rule.context), i)]
        likeness = s[i] @ s[context].flatten(0, 1).T
        likeness = likeness.masked_fill(~near.repeat(1, len(context)), -torch.inf)
        top = likeness.topk(min(rule.k, likeness.shape[1]), dim=1)
        weight = torch.softmax(top.values / rule.temperature, dim=1)
        known = torch.cat([labels[c] for c in context])
        labels.append((weight[..., None] * known[top.indices]).sum(1))
        maps = labels[-1].T.reshape(1, -1, *grid)
        found.append(F.interpolate(maps, size, mode="bilinear", align_corners=False)[0].argmax(0))
    return torch.stack(found)


def neighbour_mask(grid: Grid, radius: int, device: torch.device) -> Bool[Tensor, "n n"]:
    """Whether each pair of tokens is at most `radius` apart along both axes."""
    at = torch.stack(torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")).flatten(1)
    return (at[:, :, None] - at[:, None, :]).abs().amax(0) <= radius
