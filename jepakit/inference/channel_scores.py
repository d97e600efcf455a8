"""Scores every step of a series by what each channel does, without a model.

For a channel x and a window of w steps, the components of step t are logarithms of

- level: |x_t - median of the window|, with the window around t or, if causal, ending with t
- spread: the standard deviation in that window, and in one of 4 w steps: large where the channel is unsteady
- still: 1 / the smallest standard deviation in a window that contains t or, if causal, ends with t: large where the
  channel hardly moves. The smallest makes a still stretch stand out for its whole length, not only in its middle
- flat: the length of the run of equal values that contains t or, if causal, its length up to t

Their units are of no consequence: rarity.py ranks them among the same component's scores of normal data. All windows
are complete. So causal components have no score (NaN) before the end of the first window.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.ndimage import minimum_filter1d

COMPONENTS: Final = ("level", "spread", "spread", "still", "flat")
"""The reason that each component gives. Two have the same: spread is measured in a short and in a long window."""
LONG_WINDOW: Final = 4
"""The long window, in short ones."""
WINDOWS_PER_SERIES: Final = 4
"""The longest series of the run's own data has at least so many windows of either length."""
MIN_SHARE: Final = 1e-6
"""Distances and deviations below this share of the channel's scale count as that share: their logarithm is finite."""
CHUNK_VALUES: Final = 2**22

Channel = Float64[np.ndarray, " t"]


class ChannelWindows(NamedTuple):
    """The steps of the short and of the long window."""

    short: int
    long: int

    @classmethod
    def of_run(cls, window: int, longest: int) -> "ChannelWindows":
        """Those of a run with windows of `window` steps, whose longest series has `longest` steps.

        The data to score have no say in them, so that causal scores do not change with what comes later.
        """
        most = max(2, longest // WINDOWS_PER_SERIES)
        return cls(min(window, most), min(LONG_WINDOW * window, most))


def channel_scores(
    values: Float[np.ndarray, "c t"], scales: Float64[np.ndarray, " c"], windows: ChannelWindows, causal: bool
) -> Float64[np.ndarray, "k c t"]:
    """The components of every channel of a series, in the order of COMPONENTS, as logarithms; NaN: none.

    `scales` are typical deviations of the channels. A shorter series is one window.
    """
    found = [
        _components(x.astype(np.float64), MIN_SHARE * scale, windows, causal)
        for x, scale in zip(values, scales, strict=True)
    ]
    return np.stack(found, 1)


def _components(x: Channel, least: float, windows: ChannelWindows, causal: bool) -> Float64[np.ndarray, "k t"]:
    distance = np.abs(x - _at_steps(x, windows.short, _median, causal))
    spreads = [_at_steps(x, window, _deviation, causal) for window in windows]
    smallest = spreads[0] if causal else _smallest_deviation(x, windows.short)
    columns = [np.log(np.maximum(column, least)) for column in (distance, *spreads, smallest)]
    return np.stack([*columns[:3], -columns[3], np.log(_run_lengths(x, causal))])


def run_beginnings(values: Float[np.ndarray, "c t"]) -> Bool[np.ndarray, "c t"]:
    """Where a run of equal values begins in each channel."""
    changes: np.ndarray = values[:, 1:] != values[:, :-1]
    return np.concatenate([np.ones((len(values), 1), dtype=bool), changes], axis=1)


Statistic = Callable[[np.ndarray], np.ndarray]


def _rolling(x: Channel, window: int, statistic: Statistic) -> Float64[np.ndarray, " w"]:
    """A statistic of every complete window, in the order of their first steps; of the series, if it is shorter."""
    windows = np.lib.stride_tricks.sliding_window_view(x, min(window, len(x)))
    # A few megabytes at a time.
    count = max(1, CHUNK_VALUES // window)
    return np.concatenate([statistic(windows[k : k + count]) for k in range(0, len(windows), count)])


def _median(windows: np.ndarray) -> np.ndarray:
    middle: np.ndarray = np.median(windows, axis=1)
    return middle


def _deviation(windows: np.ndarray) -> np.ndarray:
    deviation: np.ndarray = windows.std(axis=1)
    return deviation


def _at_steps(x: Channel, window: int, statistic: Statistic, causal: bool) -> Channel:
    """For each step, the statistic of the window around it or, if causal, of the complete window that ends with it."""
    found = _rolling(x, window, statistic)
    if causal:
        return np.concatenate([np.full(window - 1, np.nan), found])[: len(x)]
    return found[np.clip(np.arange(len(x)) - window // 2, 0, len(found) - 1)]


def _smallest_deviation(x: Channel, window: int) -> Channel:
    """For each step, the smallest deviation of all windows that contain it."""
    found = _rolling(x, window, _deviation)
    window = len(x) - len(found) + 1
    padded = np.concatenate([found, np.full(window - 1, np.inf)])
    # The windows that contain step t begin at t - window + 1 … t; the filter's size is centred, so it is moved back.
    smallest: Channel = minimum_filter1d(padded, window, origin=(window - 1) // 2, mode="constant", cval=np.inf)
    return smallest


def _run_lengths(x: Channel, causal: bool) -> Channel:
    """The length of the run of equal values that contains each step or, if causal, its length up to the step."""
    begins = run_beginnings(x[None])[0]
    run: Int64[np.ndarray, " t"] = np.cumsum(begins) - 1
    lengths: np.ndarray = np.arange(len(x)) - np.flatnonzero(begins)[run] + 1 if causal else np.bincount(run)[run]
    return lengths.astype(np.float64)
