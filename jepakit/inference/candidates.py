"""The candidates for a forecast: repeated values, linear models of the values, and readers of a run's representations.

A reader is a ridge regression from what the method knows of the earlier half of a window. It reads how much every
channel changes since its last value, in units of how much that half varies, and it reads this from a half that was
brought to zero mean and unit variance before it was encoded: a level that drifts changes neither. Where the level
matters, readers of the half as it is do better, so they are candidates too. Beyond one half, what was read is appended
and takes the place of data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64

from ..evals.metrics.readers import LinearChanges, Reader, choose_reader, fit_linear_changes
from ..evals.windows import represent_windows
from ..methods.base import Method
from .tables import Values

BATCH_SIZE: Final = 512
LEAST_SCALE: Final = 0.25
"""The least unit of a half window, as a share of the median over windows: a half that hardly varies is no unit."""
REPRESENTATION, PREDICTION = "s", "pred"

Features = Float[np.ndarray, "n _"]
Past = Float64[np.ndarray, "n c p"]
NextHalf = Callable[[Past], Values]


@runtime_checkable
class Candidate(Protocol):
    """A way to forecast; `encoder`: it needs the run's encoder."""

    @property
    def name(self) -> str:
        """What `--reader` calls it."""

    @property
    def encoder(self) -> bool:
        """Whether it reads representations."""

    def forecast(self, past: Past, horizon: int) -> Values:
        """The `horizon` steps (N, C, horizon) that follow each past (N, C, P)."""


@dataclass(frozen=True)
class Repeat:
    """The last value repeated or, if `season` is more than 1, the last season."""

    season: int = 1
    encoder: bool = False

    @property
    def name(self) -> str:
        """What `--reader` calls it."""
        return "last-value" if self.season == 1 else "last-season"

    def forecast(self, past: Past, horizon: int) -> Values:
        """The last values again and again."""
        at = np.arange(horizon) % self.season - self.season
        found: Values = past[..., at]
        return found


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear model of each channel's change since its last value, from `half` steps of the same channel.

    `mean` and `std` normalise the values.
    """

    name: str
    half: int
    mean: Float64[np.ndarray, "c 1"]
    std: Float64[np.ndarray, "c 1"]
    changes: LinearChanges
    encoder: bool = False

    def next_half(self, past: Past) -> Values:
        """The values that follow a half window, in the data's own units."""
        values: Values = self.changes((past - self.mean) / self.std) * self.std + self.mean
        return values

    def forecast(self, past: Past, horizon: int) -> Values:
        """The path from half to half."""
        return roll_out(self.next_half, past, self.half, horizon)


@dataclass(frozen=True, eq=False)
class Represented:
    """Reads the change of every channel from the `source`: a representation of the past, or the prediction from it.

    With a `base`, the change since its forecast is read. `least` is the least scale of every channel.
    """

    name: str
    view: "View"
    source: str
    reader: Reader
    base: Linear | None = None
    encoder: bool = True

    def next_half(self, past: Past) -> Values:
        """The values that follow a half window, in the data's own units."""
        read = self.reader(self.view.features(past)[self.source]).reshape(*past.shape[:2], -1)
        start = past[..., -1:] if self.base is None else self.base.next_half(past)
        values: Values = start + read * self.view.scale(past)
        return values

    def forecast(self, past: Past, horizon: int) -> Values:
        """The path from half to half."""
        return roll_out(self.next_half, past, self.view.half, horizon)


@dataclass(frozen=True, eq=False)
class View:
    """How a method sees the first `half` steps of a window of `size`: at zero mean and unit variance.

    `least` is the least standard deviation that counts as a unit, per channel. With `level`, the method sees the steps
    as they are, and the unit is the standard deviation of its training data.
    """

    method: Method
    device: str
    size: int
    half: int
    least: Float64[np.ndarray, "c 1"]
    level: bool = False

    @property
    def moments(self) -> tuple[Float64[np.ndarray, "c 1"], Float64[np.ndarray, "c 1"]]:
        """Mean and standard deviation of the method's training data."""
        mean, std = (v.cpu().numpy().astype(np.float64) for v in (self.method.mean, self.method.std))
        return mean, std

    def scale(self, past: Past) -> Float64[np.ndarray, "n c 1"]:
        """How much the last half window of each past varies: the unit of its changes and errors."""
        if self.level:
            return np.tile(self.moments[1], (len(past), 1, 1))
        found: np.ndarray = np.sqrt(past[..., -self.half :].var(2, keepdims=True) + self.least**2)
        return found

    def features(self, past: Past) -> dict[str, Features]:
        """The representation of each half window and the prediction from it, as rows."""
        mean, std = self.moments
        seen = past if self.level else (past - past.mean(2, keepdims=True)) / self.scale(past) * std + mean
        parts = []
        for x in torch.split(torch.from_numpy(seen.astype(np.float32)), BATCH_SIZE):
            window = torch.zeros(*x.shape[:2], self.size)
            window[..., : self.half] = x
            parts.append(represent_windows(self.method, window.to(self.device)))
        s, pred = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {REPRESENTATION: s, PREDICTION: pred}


def roll_out(next_half: NextHalf, past: Past, half: int, horizon: int) -> Values:
    """The next `horizon` steps; the end of each half that was read is the past of the next."""
    path = past[..., -half:].astype(np.float64)
    while path.shape[2] < half + horizon:
        path = np.concatenate([path, next_half(path[..., -half:])], 2)
    future: Values = path[..., half : half + horizon]
    return future


def candidate_names(channels: int, season: int) -> tuple[str, ...]:
    """The names of the candidates for so many channels and a season of so many steps (0: none), the simplest first.

    A single channel has no weights of its own.
    """
    values = ["last-value", *["last-season"] * (season > 0)]
    values += ["linear", *["linear-per-channel"] * (channels > 1), "linear-level"]
    read = ["representation", "prediction", "representation-level", "prediction-level", "linear-corrected"]
    return (*values, *read)


def window_view(method: Method, device: str, windows: Float[np.ndarray, "n c t"], half: int) -> View:
    """How a method sees the first `half` steps of windows like these."""
    std = method.std.cpu().numpy().astype(np.float64)
    usual = np.median(windows[..., :half].astype(np.float64).std(2), axis=0)[:, None]
    # Where most halves are flat, a part of the whole data's deviation is better than no unit.
    return View(method, device, windows.shape[2], half, LEAST_SCALE * np.maximum(usual, 0.01 * std))


def fit_candidates(view: View, windows: Float[np.ndarray, "n c t"], season: int) -> Iterator[Candidate]:
    """The candidates of `candidate_names`, in that order, fitted to `windows` of which the view sees the first half."""
    fits = _fits(view, windows)
    for name in candidate_names(windows.shape[1], season):
        yield _repeat(name, season) or fits[name]()


def fit_candidate(name: str, view: View, windows: Float[np.ndarray, "n c t"], season: int) -> Candidate:
    """The candidate of that name alone."""
    return _repeat(name, season) or _fits(view, windows)[name]()


def _repeat(name: str, season: int) -> Repeat | None:
    """The candidate if it needs no fitting."""
    return next((one for one in (Repeat(), Repeat(max(season, 1))) if one.name == name), None)


def _fits(view: View, windows: Float[np.ndarray, "n c t"]) -> dict[str, Callable[[], Candidate]]:
    """By name, what fits a candidate; the strength of each ridge is chosen on the last fifth of the windows."""
    half = view.half
    values = windows.astype(np.float64)
    past, future = values[..., :half], values[..., half:]
    mean, std = view.moments
    held = np.arange(len(values)) >= len(values) - max(1, len(values) // 5)
    views = {"": view, "-level": replace(view, level=True)}
    # Several candidates read the same representations, and none is computed that nobody reads.
    features = cache(lambda suffix: views[suffix].features(past))

    @cache
    def linear(name: str, shared: bool = True, level: bool = False) -> Linear:
        normal = ((past - mean) / std, (future - mean) / std, held)
        return Linear(name, half, mean, std, fit_linear_changes(*normal, shared=shared, level=level))

    def represented(name: str, source: str, suffix: str) -> Represented:
        change = (future - past[..., -1:]) / views[suffix].scale(past)
        return Represented(name, views[suffix], source, choose_reader(features(suffix)[source], change, held)[0])

    def corrected() -> Represented:
        rest = (future - (base := linear("linear")).next_half(past)) / view.scale(past)
        reader, _ = choose_reader(features("")[REPRESENTATION], rest, held)
        return Represented("linear-corrected", view, REPRESENTATION, reader, base)

    read = {
        name + suffix: partial(represented, name + suffix, source, suffix)
        for suffix in views
        for name, source in (("representation", REPRESENTATION), ("prediction", PREDICTION))
    }
    return {
        "linear": partial(linear, "linear"),
        "linear-per-channel": partial(linear, "linear-per-channel", shared=False),
        "linear-level": partial(linear, "linear-level", level=True),
        **read,
        "linear-corrected": corrected,
    }
