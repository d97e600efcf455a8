"""What comes after the end of a user's series: values read from a run's representation of their last steps.

A linear reader (evals/readers.py) is fitted to the windows that the run was trained on, to read the later half of a
window from the method's prediction of it, or from the representation of the earlier half where that did better.
Beyond one half, what was read is appended and takes the place of data. Intervals are residuals of the same roll-out
over the last fifth of the run's data, with a reader that has not seen it. Where the run was trained on whole series of
unequal lengths, windows are as long as the shortest, so that every one of them has an end to forecast from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from ..core import devices, files
from ..core.progress import Silent, Watch
from ..data.series.dataset import Series
from ..evals.windows import check_cut, steps_seen
from ..run import checkpoint
from .forecast_plot import draw
from .forecast_table import ENDINGS, ahead, write
from .rollout import SHARES, best, half_widths, origins
from .score import opened
from .windows import Known, known, trained_on, whole

__all__ = ["Forecast", "forecast_run"]


class Forecast(NamedTuple):
    """What was written, how many series and steps, and what of a window is read.

    `errors` are mean squares on held-out data at the model's normalisation: of the `forecast`, of the `last value` held
    and of `linear autoregression`, over the steps that a half window holds, `horizon` at most.
    """

    out: Path
    series: int
    horizon: int
    reader: str
    errors: dict[str, float]


def forecast_run(
    run: Path,
    data: str,
    horizon: int,
    out: Path,
    *,
    plot: Path | None = None,
    overwrite: bool = False,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Forecast:
    """Write the `horizon` steps that follow every series in `data`, with intervals, to a .csv or .parquet file.

    `plot` is a picture of the first series, `settings` are of how `data` are read. Raises ValueError, before anything
    is written, where the run cannot predict the future, or where the data are none that it can start from.
    """
    watch = watch or Silent()
    if horizon < 1:
        raise ValueError(f"the horizon is {horizon}; give the number of steps to forecast, 1 or more")
    files.check_writable(out, overwrite, ENDINGS)
    if plot is not None:
        files.check_writable(plot, overwrite, (".png",))
    loaded = checkpoint.load_run(run, step)
    check_cut(loaded.method)
    own = trained_on(loaded, "its readers are fitted to it")
    windows = known(loaded.method, own)
    cut = steps_seen(loaded.method, windows.least)
    dataset = opened(loaded, data, settings or {})
    last = lasts(dataset, cut, windows)
    device, _ = devices.best_device()
    watch.note("fitting the reader to what the run was trained on")
    fitted, errors, residuals = best(
        loaded.method.to(device), device, origins(own, loaded.method, windows.least), horizon
    )
    if errors["linear autoregression"] < errors["forecast"]:
        watch.note(
            "on held-out data a linear autoregression does better than this forecast; the table has the forecast"
        )
    mean = fitted.values(last, horizon)
    width = half_widths(residuals, SHARES)
    std = loaded.method.std.cpu().numpy().astype(np.float64)
    bands = {share: (mean - std * w, mean + std * w) for share, w in width.items()}
    write(out, dataset, mean, bands, ahead(dataset, horizon))
    if plot is not None:
        draw(plot, dataset, mean, {share: (low, high) for share, (low, high) in bands.items()}, cut)
    return Forecast(out, len(last), horizon, fitted.reads, errors)


def lasts(dataset: Series, cut: int, windows: Known) -> Float64[np.ndarray, "n c {cut}"]:
    """The last `cut` steps of every series. Raises ValueError, with its name, where one has fewer."""
    found: list[Float[np.ndarray, "c t"]] = []
    for span in whole(dataset):
        if span.end - span.begin < cut:
            raise ValueError(
                f"{span.name} has {span.end - span.begin} steps, but a forecast starts from {cut}, the earlier half: "
                f"{windows.told}; {windows.fix}"
            )
        found.append(dataset.steps.values[:, span.end - cut : span.end])
    return np.stack(found).astype(np.float64)
