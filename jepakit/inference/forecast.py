"""Forecasts a user's series beyond their end, with values read from a run's representation of the last steps.

A linear reader (rollout.py) is fitted to the windows that the run was trained on. It reads the later half of a window
from the method's prediction of it or, if that does better, from the representation of the earlier half. Beyond one
half, what was read is appended and takes the place of data. Intervals are residuals of the same roll-out over the last
fifth of the run's data, with a reader that has not seen it. If the run was trained on whole series of unequal lengths,
windows are as long as the shortest one, so that every series has an end to forecast from.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

from ..core import devices
from ..core.progress import Progress, SilentProgress
from ..data.series.dataset import Series
from ..evals.windows import check_cut, steps_seen
from ..run import checkpoint
from ..training.request import PathLike
from .inputs import open_series, open_training_series
from .plots import draw_forecast
from .rollout import INTERVAL_PERCENTS, best_reader, forecast_origins, half_widths
from .tables import Forecasts, check_step_outputs, write_forecasts
from .windows import WindowLengths, whole_spans, window_lengths

__all__ = ["Forecast", "forecast"]

REGULAR_SHARE: Final = 0.8
"""The share of steps that must take the usual time for the times to be continued."""


class Forecast(NamedTuple):
    """What was written: the file, how many series and steps, and what the reader reads.

    `errors` are mean squared errors on held-out data at the model's normalisation: of the `forecast`, of the
    `last value` repeated and of `linear autoregression`, over the first half window, or `horizon` steps if fewer.
    """

    out: Path
    series: int
    horizon: int
    reader: str
    errors: dict[str, float]


def forecast(
    run: PathLike,
    data: PathLike,
    horizon: int,
    out: PathLike,
    *,
    plot: PathLike | None = None,
    overwrite: bool = False,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Write the `horizon` steps that follow every series in `data`, with intervals, to a .csv or .parquet file.

    Columns: entity, step, time if times are regular, and for every channel the value and the ends of the intervals
    that are to cover 80 and 95 %. `plot` is a .png file to draw the first series in. `step` is that of a checkpoint, by
    default the newest; `settings` override how `data` are read, as {"data.fill": 30}. Raises ValueError, before
    anything is written, if the run cannot predict the future or a series is too short to start from.
    """
    progress, out, picture = progress or SilentProgress(), Path(out), None if plot is None else Path(plot)
    if horizon < 1:
        raise ValueError(f"the horizon is {horizon}; give the number of steps to forecast, 1 or more")
    check_step_outputs(out, picture, overwrite)
    loaded = checkpoint.load_run(Path(run), step, note=progress.note)
    check_cut(loaded.method)
    own = open_training_series(loaded, "its readers are fitted to it")
    lengths = window_lengths(loaded.method, own)
    cut = steps_seen(loaded.method, lengths.shortest)
    dataset = open_series(loaded, os.fspath(data), settings)
    past = last_steps(dataset, cut, lengths)
    device, _ = devices.best_device()
    progress.note("fitting the reader to what the run was trained on")
    origins = forecast_origins(own, loaded.method, lengths.shortest)
    reader, errors, residuals = best_reader(loaded.method.to(device), device, origins, horizon)
    if errors["linear autoregression"] < errors["forecast"]:
        progress.note(
            "on held-out data a linear autoregression does better than this forecast; the table has the forecast"
        )
    mean = reader.roll_out(past, horizon)
    std = loaded.method.std.cpu().numpy().astype(np.float64)
    bands = {share: (mean - std * w, mean + std * w) for share, w in half_widths(residuals, INTERVAL_PERCENTS).items()}
    spans, times = whole_spans(dataset), next_times(dataset, horizon)
    names = [span.name for span in spans]
    forecasts = Forecasts(names, dataset.columns, mean, bands, times, dataset.steps.offset)
    write_forecasts(out, forecasts)
    if picture is not None:
        values, time = dataset.steps.values[:, : spans[0].end], dataset.steps.time
        shown = min(spans[0].end, max(2 * horizon, cut))
        draw_forecast(picture, forecasts, values, None if time is None else time[: spans[0].end], shown)
    return Forecast(out, len(past), horizon, reader.reads, errors)


def last_steps(dataset: Series, cut: int, lengths: WindowLengths) -> Float64[np.ndarray, "n c {cut}"]:
    """The last `cut` steps of every series. Raises ValueError, naming the series, if one has fewer."""
    found = []
    for span in whole_spans(dataset):
        if span.steps < cut:
            raise ValueError(
                f"{span.name} has {span.steps} steps, but a forecast starts from {cut}, the earlier half: "
                f"{lengths.length_requirement}; {lengths.advice}"
            )
        found.append(dataset.steps.values[:, span.end - cut : span.end])
    return np.stack(found).astype(np.float64)


def next_times(dataset: Series, horizon: int) -> Shaped[np.ndarray, "n {horizon}"] | None:
    """The times of the next steps of every series, each the usual step after the one before.

    None if the data have no times, or if in some series fewer than REGULAR_SHARE of the steps take the usual time.
    """
    times = dataset.steps.time
    if times is None:
        return None
    found = []
    for span in whole_spans(dataset):
        time = times[span.begin : span.end]
        step = np.diff(time)
        usual = np.sort(step)[len(step) // 2]
        near = np.abs((step - usual).astype(np.float64)) <= 1e-3 * np.abs(usual.astype(np.float64))
        if near.mean() < REGULAR_SHARE:
            return None
        found.append(time[-1] + usual * np.arange(1, horizon + 1))
    return np.stack(found)
