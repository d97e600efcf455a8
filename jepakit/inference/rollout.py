"""Forecasts rolled out: moments to forecast from, the reader of a representation, and how wrong it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..data.base import spread
from ..data.series.dataset import Series
from ..evals.metrics.readers import Reader, chosen
from ..evals.windows import FEWEST, represented, steps_seen
from .windows import covered

MOST = 4000
"""Windows to fit to, and moments to try, at most: evenly spread."""
HELD = 0.2


@dataclass(frozen=True, eq=False)
class Origins:
    """All steps of the run's data, where windows of `size` steps begin, and which of them the fit may see.

    The first `past` steps of a window are known, the others to be foretold. `fit` lie before the part that is held
    out, `every` all over; from `tried`, past halves whose future is held out, forecasts are compared with what came:
    `room` steps of it.
    """

    values: Float[np.ndarray, "c t"]
    size: int
    past: int
    fit: Int64[np.ndarray, " f"]
    every: Int64[np.ndarray, " e"]
    tried: Int64[np.ndarray, " k"]
    room: Int64[np.ndarray, " k"]

    def cut(self, starts: Int64[np.ndarray, " n"], length: int) -> Float[Tensor, "n c {length}"]:
        """`length` steps from each start."""
        at = starts[:, None] + np.arange(length)
        return torch.from_numpy(np.ascontiguousarray(self.values[:, at].transpose(1, 0, 2)))

    def future(self, begin: int, horizon: int) -> Float[np.ndarray, "k c {horizon}"]:
        """What came after the first `begin` steps of every one that is tried; NaN beyond the end of its series."""
        steps = np.arange(horizon)
        at = np.minimum(self.tried[:, None] + begin + steps, self.values.shape[1] - 1)
        found = self.values[:, at].transpose(1, 0, 2).astype(np.float64)
        return np.where((steps < self.room[:, None])[:, None], found, np.nan)


def origins(dataset: Series, method: Any, size: int) -> Origins:
    """What to fit to and to try, by windows of `size` steps.

    In long series the last fifth of each is held out, else the last fifth of the series. Raises ValueError where too
    few windows are left.
    """
    cut, spans = steps_seen(method, size), covered(dataset)
    # A fifth of a series has to hold something to foretell.
    long = all(HELD * (s.end - s.begin) >= 2 and (1 - HELD) * (s.end - s.begin) >= size + FEWEST for s in spans)
    edges = [s.end - int(HELD * (s.end - s.begin)) for s in spans]
    if not long:
        first = len(spans) - max(1, int(HELD * len(spans)))
        edges = [s.end if k < first else s.begin for k, s in enumerate(spans)]
    fit = _joined([np.arange(s.begin, e - size + 1) for s, e in zip(spans, edges, strict=True)])
    every = _joined([np.arange(s.begin, s.end - size + 1) for s in spans])
    tried = _joined([np.arange(max(s.begin, e - cut), s.end - cut) for s, e in zip(spans, edges, strict=True)])
    ends = np.concatenate(
        [np.full(max(0, s.end - cut - max(s.begin, e - cut)), s.end) for s, e in zip(spans, edges, strict=True)]
    )
    if len(fit) < FEWEST or not len(tried):
        raise ValueError(
            f"the run was trained on {len(every)} windows, too few to fit a reader and to hold some out for intervals; "
            f"train on data with {2 * FEWEST} windows or more"
        )
    few = spread(len(tried), MOST)
    room = (ends[few] - tried[few] - cut).astype(np.int64)
    starts = (fit[spread(len(fit), MOST)], every[spread(len(every), MOST)], tried[few])
    return Origins(dataset.steps.values, size, cut, *starts, room)


def _joined(parts: list[np.ndarray]) -> Int64[np.ndarray, " n"]:
    return np.concatenate(parts).astype(np.int64)


SHARES = (80, 95)
"""Per cent that an interval is to cover."""
BATCH = 512
READS = {"pred": "the method's prediction of the future", "s": "the representation of the past"}
LINEAR = "the past itself"
Values = Float64[np.ndarray, "n c h"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A reader of the later half of a window of `size` steps, by `reads`: a key of READS, or LINEAR."""

    method: Any
    device: str
    size: int
    reads: str
    reader: Reader

    def half(self, past: Float[np.ndarray, "n c p"]) -> Values:
        """What follows the past half, in the data's own units."""
        mean, std = (v.cpu().numpy().astype(np.float64) for v in (self.method.mean, self.method.std))
        read = self.reader(_seen(self.method, self.device, self.size, past)[self.reads])
        values: np.ndarray = read.reshape(len(past), past.shape[1], -1) * std + mean
        return values

    def values(self, past: Float[np.ndarray, "n c p"], horizon: int) -> Values:
        """The next `horizon` steps; what was read is appended, and its end is the past of the next half."""
        found, cut = past.astype(np.float64), past.shape[2]
        while found.shape[2] < cut + horizon:
            found = np.concatenate([found, self.half(found[..., -cut:])], 2)
        ahead: np.ndarray = found[..., cut : cut + horizon]
        return ahead


def _seen(method: Any, device: str, size: int, past: Float[np.ndarray, "n c p"]) -> dict[str, Float[np.ndarray, "n _"]]:
    """By what the future can be read: prediction, representation, and the normalised past."""
    parts = []
    for x in torch.split(torch.from_numpy(past.astype(np.float32)), BATCH):
        window = torch.zeros(*x.shape[:2], size)
        window[..., : x.shape[2]] = x
        window = window.to(device)
        flat = method.normalize(window)[..., : x.shape[2]].flatten(1).cpu().numpy()
        parts.append((*represented(method, window), flat))
    s, pred, raw = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"pred": pred, "s": s, LINEAR: raw}


def fit(method: Any, device: str, data: Origins, starts: np.ndarray, reads: Sequence[str]) -> list[Fitted]:
    """A reader by each of `reads`, fitted to the windows at `starts`; its strength is chosen on their last fifth."""
    x = data.cut(starts, data.size)
    future = method.normalize(x.to(device)).cpu().numpy()[..., data.past :]
    held = np.arange(len(starts)) >= len(starts) - max(1, len(starts) // 5)
    seen = _seen(method, device, data.size, x[..., : data.past].numpy())
    return [Fitted(method, device, data.size, name, chosen(seen[name], future, held)[0]) for name in reads]


def best(method: Any, device: str, data: Origins, horizon: int) -> tuple[Fitted, dict[str, float], Values]:
    """The reader that does better on held-out data, fitted to all of it; the errors; its residuals there.

    Residuals (K, C, horizon) are at the model's normalisation, NaN where a series ended before.
    """
    past = data.cut(data.tried, data.past).numpy()
    std = method.std.cpu().numpy().astype(np.float64)
    came = data.future(data.past, horizon)
    tried = fit(method, device, data, data.fit, [*READS, LINEAR])
    residuals = {one.reads: (one.values(past, horizon) - came) / std for one in tried}
    near = min(horizon, data.size - data.past)
    errors = {name: float(np.nanmean(r[..., :near] ** 2)) for name, r in residuals.items()}
    name = min(READS, key=errors.__getitem__)
    still = float(np.nanmean(((past[..., -1:] - came)[..., :near] / std) ** 2))
    (final,) = fit(method, device, data, data.every, [name])
    told = {"forecast": errors[name], "last value": still, "linear autoregression": errors[LINEAR]}
    return final, told, residuals[name]


def half_widths(residuals: Values, shares: Sequence[int]) -> Mapping[int, Float64[np.ndarray, "c h"]]:
    """Half the width of the interval of each share, per channel and step: a quantile of the residuals' sizes.

    The quantile is that of n residuals and one more, so that the share is kept for few of them, too; the largest one
    where there are not enough. Steps that no series of the run's data is long enough to try have the widest interval
    of the steps before them. Source: split conformal prediction, Lei et al. 2018, JASA 113, 1094.
    """
    size, count = np.sort(np.abs(residuals), axis=0), np.isfinite(residuals).sum(0)
    found = {}
    for share in shares:
        at = np.minimum(np.ceil((count + 1) * share / 100).astype(int), count) - 1
        width = np.take_along_axis(size, np.maximum(at, 0)[None], 0)[0]
        # Sorting puts NaN last, so a step without residuals has NaN here.
        known = np.where(count > 0, width, -np.inf)
        found[share] = np.where(count > 0, width, np.maximum.accumulate(known, axis=1))
    return found
