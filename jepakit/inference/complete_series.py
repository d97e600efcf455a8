"""Writes completed series as one table, and draws some of them beside the truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jaxtyping import Bool
from torch import Tensor

from ..data import Dataset
from ..data.draws import spread_evenly
from ..evals.metrics.generation import Tally, tally_completions
from .complete_folder import Chunk
from .plots import CompletedSeries, draw_completions
from .tables import csv_table

MAX_SAMPLES_DRAWN: Final = 6


def write_series(
    chunks: Iterator[Chunk], folder: Path, dataset: Dataset, hidden: Bool[Tensor, " t"], std: Tensor, count: int
) -> Tally:
    """Write FOLDER/completions.csv, a row per step, and FOLDER/figure.png; returns how far all are from the truth.

    Columns: item, step, time if the data have times, hidden (1 where the values are imagined), and the channels.
    Errors are in standard deviations `std` of the channel, as series differ in their units.
    """
    names = list(dataset.column_names)
    total, samples, drawn = Tally(), list[CompletedSeries](), spread_evenly(count, MAX_SAMPLES_DRAWN)
    timed = len(dataset) > 0 and dataset.step_times(0) is not None
    flags = [int(flag) for flag in hidden]
    with csv_table(folder / "completions.csv", ["item", "step", *["time"] * timed, "hidden", *names]) as append:
        for chunk in chunks:
            total = total.plus(tally_completions(chunk.made / std, chunk.true / std, hidden))
            for item, made, true in zip(chunk.id, chunk.made.numpy(), chunk.true.numpy(), strict=True):
                name, (begin, times) = dataset.name(item), step_times(dataset, item, made.shape[1])
                append(
                    [name, begin + t, *[times[t] if times else ""] * timed, flags[t], *(f"{v:.9g}" for v in values)]
                    for t, values in enumerate(made.T)
                )
                if item in drawn:
                    samples.append(CompletedSeries(name, begin, made, true))
    if samples:
        draw_completions(samples, names, hidden.numpy(), folder / "figure.png")
    return total


def step_times(dataset: Dataset, item: int, length: int) -> tuple[int, list[str]]:
    """The number of an item's first step in its series and the times of its steps, if known.

    0 and none if the item was stretched to `length`, as its steps are then not those of the series.
    """
    span = dataset.step_span(item)
    if span is None or span[1] - span[0] != length:
        return 0, []
    return span[0], dataset.step_times(item) or []
