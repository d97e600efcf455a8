"""Reads values from representations, rolls them out step by step, and measures how wrong that was on held-out data.

A reader is a ridge regression from what the method knows of the earlier half of a window to the values of the later
half; beyond that, its output is appended to the data and read on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..data.draws import spread_evenly
from ..data.series.dataset import Series
from ..evals.metrics.readers import Reader, choose_reader
from ..evals.windows import MIN_WINDOWS, represent_windows, steps_seen
from ..methods.base import Method
from .tables import Values
from .windows import sampled_spans

MAX_WINDOWS: Final = 4000
"""Windows to fit to, and moments to forecast from, at most: evenly spread."""
HELD_OUT: Final = 0.2
INTERVAL_PERCENTS: Final = (80, 95)
"""Per cent of the values that the intervals are to cover."""
BATCH_SIZE: Final = 512
READER_INPUTS: Final = {"pred": "the method's prediction of the future", "s": "the representation of the past"}
LINEAR_INPUT: Final = "the past itself"

Features = Float[np.ndarray, "n _"]


@dataclass(frozen=True, eq=False)
class Origins:
    """All steps of the run's training data, and where windows of `size` steps begin.

    The first `past` steps of a window are known, the others are to be forecast. `fit` are the starts of windows before
    the held-out part, `every` those of all windows. `tried` are the starts of past halves whose future is held out:
    forecasts from them are compared with what came, of which the series holds `room` steps.
    """

    values: Float[np.ndarray, "c t"]
    size: int
    past: int
    fit: Int64[np.ndarray, " f"]
    every: Int64[np.ndarray, " e"]
    validation_starts: Int64[np.ndarray, " k"]
    fitting_starts: Int64[np.ndarray, " k"]

    def windows_at(self, starts: Int64[np.ndarray, " n"], length: int) -> Float[Tensor, "n c {length}"]:
        """The `length` steps from each start on."""
        at = starts[:, None] + np.arange(length)
        return torch.from_numpy(np.ascontiguousarray(self.values[:, at].transpose(1, 0, 2)))

    def future_values(self, begin: int, horizon: int) -> Float[np.ndarray, "k c {horizon}"]:
        """The values after the first `begin` steps from each of `tried`; NaN beyond the end of the series."""
        steps = np.arange(horizon)
        at = np.minimum(self.validation_starts[:, None] + begin + steps, self.values.shape[1] - 1)
        found = self.values[:, at].transpose(1, 0, 2).astype(np.float64)
        return np.where((steps < self.fitting_starts[:, None])[:, None], found, np.nan)


def forecast_origins(dataset: Series, method: Method, size: int) -> Origins:
    """Where to fit readers and where to test them, by windows of `size` steps.

    If all series are long, the last fifth of each is held out, else the last fifth of the series. Raises ValueError if
    too few windows are left.
    """
    cut, spans = steps_seen(method, size), sampled_spans(dataset)
    # A fifth of a series must hold something to forecast.
    long = all(HELD_OUT * s.steps >= 2 and (1 - HELD_OUT) * s.steps >= size + MIN_WINDOWS for s in spans)
    edges = [s.end - int(HELD_OUT * s.steps) for s in spans]
    if not long:
        first = len(spans) - max(1, int(HELD_OUT * len(spans)))
        edges = [s.end if k < first else s.begin for k, s in enumerate(spans)]
    fit = _concatenate_indices([np.arange(s.begin, e - size + 1) for s, e in zip(spans, edges, strict=True)])
    every = _concatenate_indices([np.arange(s.begin, s.end - size + 1) for s in spans])
    tried = _concatenate_indices(
        [np.arange(max(s.begin, e - cut), s.end - cut) for s, e in zip(spans, edges, strict=True)]
    )
    ends = np.concatenate(
        [np.full(max(0, s.end - cut - max(s.begin, e - cut)), s.end) for s, e in zip(spans, edges, strict=True)]
    )
    if len(fit) < MIN_WINDOWS or not len(tried):
        raise ValueError(
            f"the run was trained on {len(every)} windows, too few to fit a reader and to hold some out for intervals; "
            f"train on data with {2 * MIN_WINDOWS} windows or more"
        )
    few = spread_evenly(len(tried), MAX_WINDOWS)
    room = (ends[few] - tried[few] - cut).astype(np.int64)
    starts = (fit[spread_evenly(len(fit), MAX_WINDOWS)], every[spread_evenly(len(every), MAX_WINDOWS)], tried[few])
    return Origins(dataset.steps.values, size, cut, *starts, room)


def _concatenate_indices(parts: list[np.ndarray]) -> Int64[np.ndarray, " n"]:
    return np.concatenate(parts).astype(np.int64)


@dataclass(frozen=True, eq=False)
class FittedReader:
    """Reads the later half of a window of `size` steps from `reads`: a key of READS, or LINEAR."""

    method: Method
    device: str
    size: int
    reads: str
    reader: Reader

    def next_half(self, past: Float[np.ndarray, "n c p"]) -> Values:
        """The values of the half window that follows `past`, in the data's own units."""
        mean, std = (v.cpu().numpy().astype(np.float64) for v in (self.method.mean, self.method.std))
        read = self.reader(_reader_inputs(self.method, self.device, self.size, past)[self.reads])
        values: np.ndarray = read.reshape(len(past), past.shape[1], -1) * std + mean
        return values

    def roll_out(self, past: Float[np.ndarray, "n c p"], horizon: int) -> Values:
        """The next `horizon` steps; the end of each half that was read is the past of the next."""
        path, cut = past.astype(np.float64), past.shape[2]
        while path.shape[2] < cut + horizon:
            path = np.concatenate([path, self.next_half(path[..., -cut:])], 2)
        future: np.ndarray = path[..., cut : cut + horizon]
        return future


def _reader_inputs(method: Method, device: str, size: int, past: Float[np.ndarray, "n c p"]) -> dict[str, Features]:
    """What the future can be read from, as rows: prediction, representation, and the normalised past."""
    parts = []
    for x in torch.split(torch.from_numpy(past.astype(np.float32)), BATCH_SIZE):
        window = torch.zeros(*x.shape[:2], size)
        window[..., : x.shape[2]] = x
        window = window.to(device)
        flat = method.normalize(window)[..., : x.shape[2]].flatten(1).cpu().numpy()
        parts.append((*represent_windows(method, window), flat))
    s, pred, raw = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"pred": pred, "s": s, LINEAR_INPUT: raw}


def fit_readers(
    method: Method, device: str, data: Origins, starts: Int64[np.ndarray, " n"], reads: Sequence[str]
) -> list[FittedReader]:
    """A reader for each of `reads`, fitted to the windows at `starts`; its strength is chosen on their last fifth."""
    x = data.windows_at(starts, data.size)
    future = method.normalize(x.to(device)).cpu().numpy()[..., data.past :]
    held = np.arange(len(starts)) >= len(starts) - max(1, len(starts) // 5)
    features = _reader_inputs(method, device, data.size, x[..., : data.past].numpy())
    return [
        FittedReader(method, device, data.size, name, choose_reader(features[name], future, held)[0]) for name in reads
    ]


def best_reader(
    method: Method, device: str, data: Origins, horizon: int
) -> tuple[FittedReader, dict[str, float], Values]:
    """The reader of READS with the lower error on held-out data, refitted to all data; the errors; its residuals.

    Residuals (K, C, horizon) are those on held-out data, at the model's normalisation; NaN beyond the end of a series.
    """
    past = data.windows_at(data.validation_starts, data.past).numpy()
    std = method.std.cpu().numpy().astype(np.float64)
    truth = data.future_values(data.past, horizon)
    readers = fit_readers(method, device, data, data.fit, [*READER_INPUTS, LINEAR_INPUT])
    residuals = {one.reads: (one.roll_out(past, horizon) - truth) / std for one in readers}
    near = min(horizon, data.size - data.past)
    errors = {name: float(np.nanmean(r[..., :near] ** 2)) for name, r in residuals.items()}
    name = min(READER_INPUTS, key=errors.__getitem__)
    last_value = float(np.nanmean(((past[..., -1:] - truth)[..., :near] / std) ** 2))
    (final,) = fit_readers(method, device, data, data.every, [name])
    compared = {"forecast": errors[name], "last value": last_value, "linear autoregression": errors[LINEAR_INPUT]}
    return final, compared, residuals[name]


def half_widths(residuals: Values, shares: Sequence[int]) -> Mapping[int, Float64[np.ndarray, "c h"]]:
    """Half the width of the interval for each share, per channel and step: a quantile of the absolute residuals.

    The quantile is that of n + 1 residuals, so that even few of them keep the share; with too few, it is the largest
    residual. A step that no series of the training data reaches gets the widest interval of the steps before it.
    Source: split conformal prediction, Lei et al. 2018, JASA 113, 1094.
    """
    size, count = np.sort(np.abs(residuals), axis=0), np.isfinite(residuals).sum(0)
    widths = {}
    for share in shares:
        at = np.minimum(np.ceil((count + 1) * share / 100).astype(int), count) - 1
        width = np.take_along_axis(size, np.maximum(at, 0)[None], 0)[0]
        # Sorting puts NaN last, so a step without residuals has NaN here.
        known = np.where(count > 0, width, -np.inf)
        widths[share] = np.where(count > 0, width, np.maximum.accumulate(known, axis=1))
    return widths
