"""Measures of segmentation: intersection over union, and the accuracy of outlines."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ...types import Grid
from ..tokens import UNKNOWN_CLASS


def class_shares(truth: Int64[Tensor, "b h w"], classes: int, grid: Grid) -> Float[Tensor, "b n k"]:
    """The share of each grid cell that belongs to each class; unknown pixels belong to none."""
    b, height, width = truth.shape
    down = torch.arange(height, device=truth.device) * grid[0] // height
    across = torch.arange(width, device=truth.device) * grid[1] // width
    cell = (down[:, None] * grid[1] + across).expand(b, -1, -1)
    picture = torch.arange(b, device=truth.device)[:, None, None]
    at = (picture * grid[0] * grid[1] + cell) * classes + truth
    n = grid[0] * grid[1]
    counts = torch.bincount(at[truth != UNKNOWN_CLASS], minlength=b * n * classes)
    return counts.reshape(b, n, classes).float() * (n / (height * width))


def overlap_counts(
    pred: Int64[Tensor, "b h w"], truth: Int64[Tensor, "b h w"], classes: int
) -> Int64[np.ndarray, "b 3 k"]:
    """Per picture and class, the pixels in both, in the prediction, and in the truth, where the truth is known."""
    known = truth != UNKNOWN_CLASS
    out = np.zeros((len(pred), 3, classes), np.int64)
    for i in range(len(pred)):
        p, t = pred[i][known[i]], truth[i][known[i]]
        for row, ids in enumerate((p[p == t], p, t)):
            out[i, row] = torch.bincount(ids, minlength=classes).cpu().numpy()
    return out


def iou(counts: Int64[np.ndarray, "*n 3 k"]) -> Float[np.ndarray, "*n k"]:
    """The intersection over union of each class; NaN for a class that is neither predicted nor present."""
    both, pred, truth = np.moveaxis(counts, -2, 0).astype(np.float64)
    union = pred + truth - both
    found: np.ndarray = np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0)
    return found


def mean_iou(counts: Int64[np.ndarray, "*n 3 k"]) -> Float[np.ndarray, "*n"]:
    """The mean IoU over the classes that are predicted or present; NaN if there are none."""
    each = iou(counts)
    total, number = np.nansum(each, axis=-1), (~np.isnan(each)).sum(-1)
    mean: np.ndarray = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean


def jaccard(pred: Bool[Tensor, "h w"], truth: Bool[Tensor, "h w"]) -> float:
    """J, region similarity: the intersection over union; 1 if both are empty."""
    union = int((pred | truth).sum())
    return int((pred & truth).sum()) / union if union else 1.0


def region_outline(region: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """The outline: pixels that differ from their right, lower or lower right neighbour."""
    padded = F.pad(region[None, None].float(), (0, 1, 0, 1), mode="replicate")[0, 0] > 0
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (region != right) | (region != below) | (region != diagonal)


def contour_accuracy(pred: Bool[Tensor, "h w"], truth: Bool[Tensor, "h w"], tolerance: float = 0.008) -> float:
    """F, contour accuracy: the harmonic mean of the precision and recall of outline pixels.

    A pixel counts as found if it lies within `tolerance` times the diagonal, at least one pixel. F is 1 if neither has
    an outline, and 0 if only one has. Source: Perazzi et al., A benchmark dataset and evaluation methodology for video
    object segmentation, CVPR 2016.
    """
    ours, theirs = region_outline(pred), region_outline(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    radius = math.ceil(tolerance * math.hypot(*pred.shape))
    precision = float((ours & dilate_region(theirs, radius)).sum() / ours.sum())
    recall = float((theirs & dilate_region(ours, radius)).sum() / theirs.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def dilate_region(region: Bool[Tensor, "h w"], radius: int) -> Bool[Tensor, "h w"]:
    """The region dilated by `radius` pixels."""
    at = torch.arange(-radius, radius + 1, device=region.device)
    disc = (at[:, None] ** 2 + at[None] ** 2 <= radius**2).float()
    return F.conv2d(region[None, None].float(), disc[None, None], padding=radius)[0, 0] > 0
