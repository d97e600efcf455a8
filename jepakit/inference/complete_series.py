"""Completed series as one table, and a picture of the first of them beside the truth."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from ..data import Dataset
from ..data.base import spread
from ..evals.metrics.generation import Tally, tally
from .complete_folder import Chunk

ROWS: Final = 6
CHANNELS: Final = 3

Drawn = tuple[str, int, Float[np.ndarray, "c t"], Float[np.ndarray, "c t"]]


def write(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, " t"], std: Tensor, count: int
) -> Tally:
    """FOLDER/completions.csv with a row per step, FOLDER/figure.png, and the sums of how far all are from the truth.

    Columns: item, step, time where the data have times, hidden (1 where the values are imagined), and the channels.
    Errors are in deviations of the channel, as series differ in their units.
    """
    names = list(dataset.column_names)
    total, shown, drawn = Tally(), list[Drawn](), spread(count, ROWS)
    with (folder / "completions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["item", "step", *["time"] * timed(dataset), "hidden", *names])
        for chunk in chunks:
            total = total.plus(tally(chunk.made / std, chunk.true / std, hidden))
            for item, made, true in zip(chunk.id, chunk.made.numpy(), chunk.true.numpy(), strict=True):
                name, (begin, times) = dataset.name(item), place(dataset, item, made.shape[1])
                for t, values in enumerate(made.T):
                    when = [times[t] if times else ""] * timed(dataset)
                    table.writerow([name, begin + t, *when, int(hidden[t]), *(f"{v:.9g}" for v in values)])
                if item in drawn:
                    shown.append((name, begin, made, true))
    if shown:
        draw(shown, names, hidden.numpy(), folder / "figure.png")
    return total


def timed(dataset: Dataset) -> bool:
    """Whether the data say when each step was."""
    return len(dataset) > 0 and dataset.step_times(0) is not None


def place(dataset: Dataset, item: int, length: int) -> tuple[int, list[str]]:
    """Which step of its series is an item's first, and the times, where there are; of stretched ones 0 and none."""
    span = dataset.step_span(item)
    if span is None or span[1] - span[0] != length:
        return 0, []
    return span[0], dataset.step_times(item) or []


def draw(shown: list[Drawn], names: list[str], hidden: Bool[np.ndarray, " t"], path: Path) -> None:
    """A row per series and a column per channel: what was seen, what was imagined, and what was there."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    channels = min(len(names), CHANNELS)
    figure = Figure(figsize=(max(6.0, 4.2 * channels), 0.7 + 1.6 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), channels, squeeze=False)
    for row, (name, begin, made, true) in zip(grid, shown, strict=True):
        steps = begin + np.arange(made.shape[1])
        for c, ax in enumerate(row):
            ax.axvspan(*steps[hidden][[0, -1]] + np.array([-0.5, 0.5]), color="#f2f2f2", linewidth=0)
            ax.plot(steps, true[c], color="#8a8a8a", linewidth=1.2, label="truth")
            ax.plot(steps[hidden], made[c][hidden], color="#c0392b", linewidth=1.4, label="completion")
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_ylabel(names[c], fontsize=8)
        row[0].set_title(name, fontsize=8, loc="left")
    for ax in grid[-1]:
        ax.set_xlabel("step (shaded: hidden)", fontsize=8)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130, format="png")
