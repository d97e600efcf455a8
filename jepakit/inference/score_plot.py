"""A picture of series with their scores below them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ..core.files import replacing
from .score_table import Rows

SERIES = 6
POINTS = 2000


class Strip(NamedTuple):
    """What is drawn of one series: its channels, and its rows, thinned."""

    name: str
    time: Shaped[np.ndarray, " p"]
    values: Float[np.ndarray, "c p"]
    score: Float[np.ndarray, " p"]


def strip(values: Float[np.ndarray, "c t"], rows: Rows) -> Strip:
    """A series at POINTS points at most; of the steps that share one, the largest score and the furthest values."""
    count = -(-values.shape[1] // POINTS)
    edges = np.arange(0, values.shape[1], count)
    if count == 1:
        return Strip(rows.entity, rows.time, values, rows.score)
    middle = np.median(values, axis=1)[:, None]
    high, low = (f.reduceat(values, edges, axis=1) for f in (np.maximum, np.minimum))
    furthest = np.where(high - middle > middle - low, high, low)
    return Strip(rows.entity, rows.time[edges], furthest, np.fmax.reduceat(rows.score, edges))


def draw(strips: Sequence[Strip], columns: Sequence[str], threshold: float, out: Path) -> None:
    """Write the picture: per series its channels, in their own deviations if several, and its score."""
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
            # The line keeps single steps of a long series from being thinner than a pixel.
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
    with replacing(out) as path:
        figure.savefig(path, dpi=120, format="png")
