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
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.ndimage import minimum_filter1d

COMPONENTS: Final = ("level", "spread", "spread", "still", "flat")
"""The reason that each component gives. Two have the same: spread is measured in a short and in a long window."""
LONG_WINDOW: Final = 4
"""The long window, in windows."""
MIN_SHARE: Final = 1e-6
"""Distances and deviations below this share of the channel's scale count as that share: their logarithm is finite."""
CHUNK_VALUES: Final = 2**22

Channel = Float64[np.ndarray, " t"]


def channel_scores(
    values: Float[np.ndarray, "c t"], scales: Float64[np.ndarray, " c"], window: int, causal: bool
) -> Float64[np.ndarray, "k c t"]:
    """The components of every channel of a series, in the order of COMPONENTS, as logarithms; NaN: none.

    `scales` are typical deviations of the channels. Windows are shortened to half of a shorter series.
    """
    steps = values.shape[1]
    short, long = (max(2, min(w, steps // 2)) for w in (window, LONG_WINDOW * window))
    if steps < short:
        return np.full((len(COMPONENTS), *values.shape), np.nan)
    found = [
        _components(x.astype(np.float64), MIN_SHARE * scale, short, long, causal)
        for x, scale in zip(values, scales, strict=True)
    ]
    return np.stack(found, 1)


def _components(x: Channel, least: float, short: int, long: int, causal: bool) -> Float64[np.ndarray, "k t"]:
    distance = np.abs(x - _at_steps(_rolling(x, short, _median), len(x), causal))
    deviation, long_deviation = (_rolling(x, w, _deviation) for w in (short, long))
    spreads = [_at_steps(d, len(x), causal) for d in (deviation, long_deviation)]
    smallest = _at_steps(deviation, len(x), True) if causal else _smallest_of_windows(deviation, short)
    columns = [np.log(np.maximum(column, least)) for column in (distance, *spreads, smallest)]
    return np.stack([*columns[:3], -columns[3], np.log(_run_lengths(x, causal))])


def _rolling(x: Channel, window: int, statistic: Callable[[np.ndarray], np.ndarray]) -> Float64[np.ndarray, " w"]:
    """A statistic of every complete window, in the order of their first steps; a few megabytes at a time."""
    windows = np.lib.stride_tricks.sliding_window_view(x, window)
    count = max(1, CHUNK_VALUES // window)
    return np.concatenate([statistic(windows[k : k + count]) for k in range(0, len(windows), count)])


def _median(windows: np.ndarray) -> np.ndarray:
    middle: np.ndarray = np.median(windows, axis=1)
    return middle


def _deviation(windows: np.ndarray) -> np.ndarray:
    deviation: np.ndarray = windows.std(axis=1)
    return deviation


def _at_steps(of_windows: Float64[np.ndarray, " w"], steps: int, causal: bool) -> Channel:
    """For each step, the value of the window around it or, if causal, of the window that ends with it."""
    window = steps - len(of_windows) + 1
    if causal:
        return np.concatenate([np.full(window - 1, np.nan), of_windows])
    return of_windows[np.clip(np.arange(steps) - window // 2, 0, len(of_windows) - 1)]


def _smallest_of_windows(of_windows: Float64[np.ndarray, " w"], window: int) -> Channel:
    """For each step, the smallest value of all windows that contain it."""
    beyond = np.full(window - 1, np.inf)
    # The windows that contain step t begin at t - window + 1 … t; the filter's size is centred, so it is moved back.
    padded = np.concatenate([of_windows, beyond])
    smallest: Channel = minimum_filter1d(padded, window, origin=(window - 1) // 2, mode="constant", cval=np.inf)
    return smallest


def _run_lengths(x: Channel, causal: bool) -> Channel:
    """The length of the run of equal values that contains each step or, if causal, its length up to the step."""
    begins = np.concatenate([[True], x[1:] != x[:-1]])
    run: Int64[np.ndarray, " t"] = np.cumsum(begins) - 1
    lengths: np.ndarray = np.arange(len(x)) - np.flatnonzero(begins)[run] + 1 if causal else np.bincount(run)[run]
    return lengths.astype(np.float64)
