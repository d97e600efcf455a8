"""Draws scores, forecasts and completed series with matplotlib, as .png files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ..core.files import replace_file
from .tables import Forecasts, SeriesScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", out: Path, dpi: int) -> None:
    """Write a figure as a .png file, whole or not at all."""
    with replace_file(out) as path:
        figure.savefig(path, dpi=dpi, format="png")


def plot_title(name: str, drawn: int, channels: int) -> str:
    """The name of a series and, if not all of its channels are drawn, how many are."""
    return name if drawn == channels else f"{name} · the first {drawn} of {channels} channels"


# --- scores

MAX_SERIES_DRAWN: Final = 6
MAX_POINTS: Final = 2000


class ScoreStrip(NamedTuple):
    """The drawn part of one scored series: its channels and scores, thinned to MAX_POINTS."""

    name: str
    time: Shaped[np.ndarray, " p"]
    values: Float[np.ndarray, "c p"]
    score: Float[np.ndarray, " p"]


def score_strip(values: Float[np.ndarray, "c t"], rows: SeriesScores) -> ScoreStrip:
    """A series at MAX_POINTS points at most; steps that share a point give their largest score and extreme values."""
    count = -(-values.shape[1] // MAX_POINTS)
    edges = np.arange(0, values.shape[1], count)
    if count == 1:
        return ScoreStrip(rows.entity, rows.time, values, rows.score)
    middle = np.median(values, axis=1)[:, None]
    high, low = (f.reduceat(values, edges, axis=1) for f in (np.maximum, np.minimum))
    furthest = np.where(high - middle > middle - low, high, low)
    return ScoreStrip(rows.entity, rows.time[edges], furthest, np.fmax.reduceat(rows.score, edges))


def draw_scores(strips: Sequence[ScoreStrip], columns: Sequence[str], threshold: float, out: Path) -> None:
    """Draw each series above its score: several channels in standard deviations, anomalous steps in red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(strips)), layout="constrained")
    for part, one in zip(figure.subfigures(len(strips), 1, squeeze=False)[:, 0], strips, strict=True):
        top, below = part.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        values = one.values
        if len(values) > 1:
            values = (values - values.mean(1)[:, None]) / np.maximum(values.std(1)[:, None], 1e-12)
        for name, line in zip(columns, values, strict=True):
            top.plot(one.time, line, linewidth=0.8, label=name)
        flagged = one.score > threshold
        for ax in (top, below):
            # The outline keeps single steps of a long series from being thinner than a pixel.
            high, red = ax.get_xaxis_transform(), "#f2b8b8"
            ax.fill_between(one.time, 0, 1, flagged, step="mid", transform=high, color=red, linewidth=1, zorder=0)
        top.set_title(one.name, fontsize=10, loc="left")
        top.set_ylabel(columns[0] if len(columns) == 1 else "standard deviations")
        if 1 < len(columns) <= 8:
            top.legend(fontsize=8, loc="upper left", ncols=4)
        below.plot(one.time, one.score, color="#444444", linewidth=0.8)
        below.axhline(threshold, color="#d62728", linewidth=0.8, linestyle="--")
        below.annotate(
            "threshold", (0.995, threshold), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
        below.set_ylim(top=1.25 * max(threshold, float(np.nanmax(np.append(one.score, threshold)))))
        below.set_ylabel("score")
        below.set_xlabel("step" if one.time.dtype.kind == "i" else "time")
    save_figure(figure, out, dpi=120)


# --- forecasts

MAX_CHANNELS_DRAWN: Final = 6
BAND_COLORS: Final = ("#e4ecfd", "#c3d5fa", "#9dbbf7")
"""Of the intervals, the widest first; opaque, so that the legend shows the colours of the picture."""


def draw_forecast(
    out: Path, forecasts: Forecasts, values: Float[np.ndarray, "c t"], time: Shaped[np.ndarray, " t"] | None, shown: int
) -> None:
    """Draw the forecast of the first series after its last `shown` steps, a panel per channel.

    `values` are all steps of that series and `time` their times, used only if the forecast has times too.
    """
    from matplotlib.figure import Figure

    horizon, steps = forecasts.mean.shape[2], values.shape[1]
    if time is None or forecasts.time is None:
        past = np.arange(steps - shown, steps)
        future = past[-1] + np.arange(1, horizon + 1)
    else:
        past, future = time[steps - shown :], forecasts.time[0]
    count = min(MAX_CHANNELS_DRAWN, len(values))
    figure = Figure(figsize=(9, 0.9 + 2.1 * count), layout="constrained")
    for k, ax in enumerate(np.atleast_1d(np.asarray(figure.subplots(count, 1, sharex=True)))):
        line = values[k, steps - shown :]
        ax.plot(past, line, color="#444444", linewidth=1, label="data")
        x = np.concatenate([past[-1:], future])
        for (share, band), color in zip(sorted(forecasts.bands.items(), reverse=True), BAND_COLORS, strict=True):
            ends = [np.concatenate([line[-1:], end[0, k]]) for end in band]
            ax.fill_between(x, *ends, color=color, linewidth=0, label=f"{share} %")
        ax.plot(x, np.concatenate([line[-1:], forecasts.mean[0, k]]), color="#2563eb", linewidth=1.4, label="forecast")
        ax.set_ylabel(forecasts.columns[k])
        if not k:
            ax.set_title(plot_title(forecasts.entity[0], count, len(values)), fontsize=10, loc="left")
            figure.legend(*ax.get_legend_handles_labels(), fontsize=8, loc="outside upper right", ncols=5)
    ax.set_xlabel("time" if forecasts.time is not None else "step")
    if forecasts.time is not None and past.dtype.kind == "M":
        figure.autofmt_xdate()
    save_figure(figure, out, dpi=110)


# --- completed series

MAX_CHANNELS_COMPLETED: Final = 3


class CompletedSeries(NamedTuple):
    """The drawn part of one sample: its name, the number of its first step, the completion and the truth."""

    name: str
    begin: int
    made: Float[np.ndarray, "c t"]
    true: Float[np.ndarray, "c t"]


def draw_completions(
    samples: Sequence[CompletedSeries], columns: Sequence[str], hidden: Bool[np.ndarray, " t"], out: Path
) -> None:
    """Draw a row per sample and a column per channel: the truth, and the completion where the steps were hidden."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    channels = min(len(columns), MAX_CHANNELS_COMPLETED)
    figure = Figure(figsize=(max(6.0, 4.2 * channels), 0.7 + 1.6 * len(samples)), layout="constrained")
    grid = figure.subplots(len(samples), channels, squeeze=False)
    for row, (name, begin, made, true) in zip(grid, samples, strict=True):
        steps = begin + np.arange(made.shape[1])
        for c, ax in enumerate(row):
            ax.axvspan(*steps[hidden][[0, -1]] + np.array([-0.5, 0.5]), color="#f2f2f2", linewidth=0)
            ax.plot(steps, true[c], color="#8a8a8a", linewidth=1.2, label="truth")
            ax.plot(steps[hidden], made[c][hidden], color="#c0392b", linewidth=1.4, label="completion")
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_ylabel(columns[c], fontsize=8)
        row[0].set_title(plot_title(name, channels, len(columns)), fontsize=8, loc="left")
    for ax in grid[-1]:
        ax.set_xlabel("step (shaded: hidden)", fontsize=8)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    save_figure(figure, out, dpi=130)
