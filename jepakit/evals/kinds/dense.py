r"""Dense tasks on frozen tokens: segmentation by a linear layer on every token, and objects tracked through films.

**miou** Every token is classified by a linear layer; its scores are interpolated to the pixels. Fitted by L-BFGS on

    min_W,b  - mean_tokens sum_k share_k log softmax(x W + b)_k + l2 / 2 |W|^2

where `share_k` is how much of the token's patch belongs to class k, and tokens are standardised over the training part.
`value` is the intersection over union over all pixels of the test part, averaged over classes; `per_class` has each.
`l2` is chosen on a fifth of the training pictures, fitting on the rest. It corresponds to the linear rows on ADE20K.

**jf** With `films`, nearest neighbours among tokens carry the mask of a film's first frame to later frames; nothing is
trained. J (region) and F (contour) are averaged over frames and then objects, and `value` is their mean. An object is a
class id of the first frame other than 0. It corresponds to the rows on DAVIS: Pont-Tuset et al. 2017, arXiv:1704.00675.

Masks lie beside the images, `a.mask.png` for `a.jpg`: 8-bit class ids, 255 for unknown. They are cropped and resized
like the images, and scores are computed at that size. Intervals come from a bootstrap over the test pictures, or films.
The baselines are an untrained encoder and the pixels of each patch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ..metrics.films import Rule, Score, object_scores
from ..metrics.readers import check_strengths
from ..metrics.result import Value, bootstrap_counts, bootstrap_interval, score_results
from ..metrics.segments import class_shares, iou, mean_iou, overlap_counts
from ..split import held_rows
from ..tokens import Tokens, token_moments
from .linear import minimize_logistic

READS = "masks"

MAX_TOKENS = 2**18
"""The most tokens to fit on; if there are more, the pictures are spread evenly."""
MAX_VALUES = 2**27
"""The most feature values of all these tokens together (512 MiB)."""
MAX_SCORES = 2**25
"""The most scores held at a time while pixels are classified (128 MiB)."""


@dataclass(frozen=True)
class Config:
    """With `films`, sub-folders are films, and J and F are measured too, by the last four settings.

    `l2` lists the candidates; a single value is used without a search. `disk_gib` limits the temporary files of tokens.
    """

    films: bool = False
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    iterations: int = 60
    disk_gib: float = 16.0
    k: int = 5
    context: int = 7
    radius: int = 12
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_strengths(self.l2)
        if min(self.k, self.radius + 1, self.context + 1) < 1 or self.temperature <= 0:
            raise ValueError(
                f"k={self.k}, context={self.context}, radius={self.radius} and temperature={self.temperature} must be "
                "positive; the usual values are 5, 7, 12 and 0.1"
            )


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Scores of a token = ((x - mean) / std) weight + bias."""

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    weight: Float[Tensor, "d k"]
    bias: Float[Tensor, " k"]

    def overlap_counts(self, part: Tokens) -> Int64[np.ndarray, "n 3 k"]:
        """The pixel counts of `overlap_counts` for every picture."""
        classes = len(self.bias)
        rows = max(1, MAX_SCORES // (classes * int(np.prod(part.truth(np.array([0])).shape))))
        found = []
        for index in np.array_split(np.arange(len(part)), -(-len(part) // rows)):
            truth = part.truth(index)
            maps = ((part.read(index) - self.mean) / self.std @ self.weight + self.bias).transpose(1, 2)
            maps = maps.reshape(len(index), classes, *part.grid)
            pixels = F.interpolate(maps, tuple(truth.shape[1:]), mode="bilinear", align_corners=False)
            found.append(overlap_counts(pixels.argmax(1), truth, classes))
        return np.concatenate(found)


def evaluate(train: Tokens, test: Tokens, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield the mean IoU on `test`, the chosen `l2` and the number of `tokens` fitted; with `films`, also J and F."""
    if len(train.grid) != 2:
        n = train.store.shape[1]
        raise ValueError(f"dense needs tokens in a grid of patches, but this encoder gives {n} tokens without one")
    trained, tested = train.classes(), test.classes()
    if not trained or not tested:
        raise ValueError("every pixel of the masks of a part is unknown (255); give masks with class ids 0 … 254")
    yield from _segmentation_results(train, test, cfg, 1 + max(trained | tested))
    if untrained := sorted(tested - trained):
        yield "untrained", [float(c) for c in untrained]
    if cfg.films:
        rule = Rule(cfg.k, cfg.context, cfg.radius, cfg.temperature)
        yield from _film_results(list(object_scores(test, rule)))


def _segmentation_results(train: Tokens, test: Tokens, cfg: Config, classes: int) -> Iterator[tuple[str, Value]]:
    l2 = choose_l2(train, cfg, classes)
    (model,) = fit_segmenters(train, (l2,), cfg.iterations, classes)
    counts = model.overlap_counts(test)
    value = float(mean_iou(counts.sum(0)))
    interval = bootstrap_interval(value, mean_iou(_resampled_counts(counts, test)))
    yield "name", "miou"
    each = [None if np.isnan(c) else float(c) for c in iou(counts.sum(0))]
    yield from score_results("mean IoU", value, interval, each)
    yield "l2", l2
    yield "tokens", float(len(fitted_on(train)) * train.store.shape[1])


def _resampled_counts(counts: Int64[np.ndarray, "n 3 k"], test: Tokens) -> Int64[np.ndarray, "r 3 k"]:
    """The counts summed over resampled pictures, or over resampled films."""
    if test.sequence is not None:
        counts = np.stack([counts[test.sequence == film].sum(0) for film in np.unique(test.sequence)])
    return np.tensordot(bootstrap_counts(len(counts)), counts, axes=1)


def choose_l2(train: Tokens, cfg: Config, classes: int) -> float:
    """The candidate with the best mean IoU on a held-out fifth of `train`; for ties, the strongest."""
    if len(cfg.l2) == 1:
        return cfg.l2[0]
    held, candidates = held_rows(train, salt="dense"), sorted(cfg.l2, reverse=True)
    if not held.any():
        raise ValueError(f"l2 cannot be chosen on {len(train)} pictures; give one value, e.g. l2=({cfg.l2[0]},)")
    models = fit_segmenters(train.where(~held), tuple(candidates), cfg.iterations, classes)
    judge = train.where(held)
    return candidates[int(np.argmax([float(mean_iou(m.overlap_counts(judge).sum(0))) for m in models]))]


def fitted_on(train: Tokens) -> Int64[np.ndarray, " n"]:
    """The pictures to fit on: all, or as many as the limits allow, evenly spread."""
    n, dim = train.store.shape[1:]
    most = max(1, min(MAX_TOKENS, MAX_VALUES // dim) // n)
    return np.unique(np.linspace(0, len(train) - 1, min(len(train), most)).astype(np.int64))


def fit_segmenters(train: Tokens, l2: tuple[float, ...], iterations: int, classes: int) -> list[Segmenter]:
    """One segmenter per entry of `l2`, whose large values come first."""
    mean, std = token_moments(train)
    rows = fitted_on(train)
    x = ((train.read(rows) - mean) / std).flatten(0, 1)
    parts = np.array_split(rows, -(-len(rows) // 64))
    y = torch.cat([class_shares(train.truth(part), classes, train.grid) for part in parts]).flatten(0, 1)
    return [Segmenter(mean, std, weight, bias) for weight, bias in minimize_logistic(x, y, classes, l2, iterations)]


def _film_results(found: list[Score]) -> Iterator[tuple[str, Value]]:
    """Yield the mean of J and F over the objects, and each of them."""
    if not found:
        raise ValueError(
            "no film of the test part has two frames and an object in the first; give films as sub-folders of frames, "
            "with class ids above 0 in the first mask"
        )
    both = np.array([(s.j + s.f) / 2 for s in found])
    _, film = np.unique([s.film for s in found], return_inverse=True)
    weight = bootstrap_counts(int(film.max()) + 1)[:, film]
    objects = weight.sum(1)
    value = float(both.mean())
    # A resample of films without any object cannot occur: every film here has one.
    interval = bootstrap_interval(value, (weight @ both) / objects)
    yield "name", "jf"
    yield from score_results("J&F", value, interval)
    yield "J", float(np.mean([s.j for s in found]))
    yield "F", float(np.mean([s.f for s in found]))
    yield "objects", float(len(found))
