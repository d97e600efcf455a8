"""A picture of a forecast: the end of the first series, what is to follow, and the intervals."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ..core.files import replacing
from ..data.series.dataset import Series
from .forecast_table import Band, ahead
from .windows import whole

CHANNELS = 6
SHADES = ("#d7e3fc", "#9dbbf7")
"""Of the intervals, the widest first; opaque, so that the legend has the colours of the picture."""


def draw(out: Path, dataset: Series, mean: Float64[np.ndarray, "n c h"], bands: Mapping[int, Band], cut: int) -> None:
    """Write the picture, a panel per channel, the first CHANNELS of them."""
    from matplotlib.figure import Figure

    span, horizon = whole(dataset)[0], mean.shape[2]
    shown = min(span.end - span.begin, max(2 * horizon, cut))
    times = ahead(dataset, horizon)
    clock = dataset.steps.time
    if clock is None or times is None:
        past = np.arange(span.end - span.begin - shown, span.end - span.begin)
        future = past[-1] + np.arange(1, horizon + 1)
    else:
        past, future = clock[span.end - shown : span.end], times[0]
    count = min(CHANNELS, dataset.channels)
    figure = Figure(figsize=(9, 0.9 + 2.1 * count), layout="constrained")
    for k, ax in enumerate(np.atleast_1d(np.asarray(figure.subplots(count, 1, sharex=True)))):
        values = dataset.steps.values[k, span.end - shown : span.end]
        ax.plot(past, values, color="#444444", linewidth=1, label="data")
        x = np.concatenate([past[-1:], future])
        for (share, band), color in zip(sorted(bands.items(), reverse=True), SHADES, strict=True):
            ends = [np.concatenate([values[-1:], end[0, k]]) for end in band]
            ax.fill_between(x, *ends, color=color, linewidth=0, label=f"{share} %")
        ax.plot(x, np.concatenate([values[-1:], mean[0, k]]), color="#2563eb", linewidth=1.4, label="forecast")
        ax.set_ylabel(dataset.columns[k])
        if not k:
            ax.set_title(span.name, fontsize=10, loc="left")
            figure.legend(*ax.get_legend_handles_labels(), fontsize=8, loc="outside upper right", ncols=4)
    ax.set_xlabel("time" if times is not None else "step")
    if clock is not None and times is not None and clock.dtype.kind == "M":
        figure.autofmt_xdate()
    with replacing(out) as part:
        figure.savefig(part, format="png", dpi=110)
