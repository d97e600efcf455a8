"""Forecasts a user's series beyond their end, by whatever did best on data that the run's encoder never saw.

Candidates (candidates.py) are fitted to what the run was trained on. They are compared, chosen (choice.py) and given
their intervals (intervals.py) on the part that training left out (unseen.py). If the run was trained on whole series of
unequal lengths, windows are as long as the shortest one, so that every series has an end to forecast from.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Shaped

from ..core import devices, files
from ..core.progress import Progress, SilentProgress
from ..data.series.dataset import Series
from ..evals.windows import check_cut, steps_seen
from ..run import checkpoint
from ..run.checkpoint import LoadedRun
from ..run.own_data import unseen_part
from ..training.request import PathLike
from .candidates import Candidate, Past, View, candidate_names, fit_candidate, fit_candidates, window_view
from .choice import Comparison, compare
from .inputs import open_series, open_training_series
from .intervals import HALF_LIFE, INTERVAL_PERCENTS, LEAST, Errors, Intervals, drift_sentence, fit_intervals
from .plots import draw_forecast
from .recent import LEAST_TRIED, MAX_TRIED, PER_HORIZON, REACH, SeenSteps, recent_errors
from .season import season_length
from .tables import Forecasts, check_step_outputs, write_forecasts
from .unseen import MAX_JUDGED, PARTS, Division, Judged, check_division, divide, fit_windows, judged_windows, parted
from .windows import WindowLengths, whole_spans, window_lengths

__all__ = ["Forecast", "forecast"]

REGULAR_SHARE: Final = 0.8
"""The share of steps that must take the usual time for the times to be continued."""
PERIODS_FOR_A_SEASON: Final = 3
"""How often a season has to fit into what it is found in."""
MAX_KNOWN_VALUES: Final = 2**25
"""The most values before all forecasts that are judged on (256 MiB), which bounds the season."""


class Forecast(NamedTuple):
    """What was written: the table and the file of details, how many series and steps, and the reader that was used.

    `errors` are the mean squared errors of every reader over the horizon, at the model's normalisation, on the part
    that training left out; `seen`: there is none, so they are on data seen in training. `season` has so many steps (0:
    none), and `notes` are sentences on the choice and the intervals.
    """

    out: Path
    details: Path
    series: int
    horizon: int
    reader: str
    errors: dict[str, float]
    seen: bool
    season: int
    notes: tuple[str, ...]


def forecast(
    run: PathLike,
    data: PathLike,
    horizon: int,
    out: PathLike,
    *,
    reader: str | None = None,
    plot: PathLike | None = None,
    overwrite: bool = False,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Write the `horizon` steps that follow every series in `data`, with intervals, to a .csv or .parquet file.

    Columns: entity, step, time if times are regular, and for every channel the value and the ends of the intervals
    that are to cover 80, 90 and 95 %. Beside it, `out` with the ending .json has the errors of all readers. `reader`
    names the one to use instead of the best, and `plot` is a .png file to draw the first series in. `step` is that of a
    checkpoint, by default the newest; `settings` override how `data` are read, as {"data.fill": 30}. Raises ValueError,
    before anything is fitted or written, if the run cannot predict the future, a series is too short to start from,
    there is no such reader, or too little was left out of training to judge forecasts of that horizon.
    """
    progress, out, picture = progress or SilentProgress(), Path(out), None if plot is None else Path(plot)
    if horizon < 1:
        raise ValueError(f"the horizon is {horizon}; give the number of steps to forecast, 1 or more")
    check_step_outputs(out, picture, overwrite)
    files.check_writable(details := out.with_suffix(".json"), overwrite, main=out)
    task = open_task(checkpoint.load_run(Path(run), step, note=progress.note), os.fspath(data), horizon, settings)
    check_reader(reader, candidate_names(task.dataset.channels, task.season))
    progress.note("fitting readers to what the run was trained on")
    fitted = fit_readers(task, reader)
    progress.note("trying it on parts of what it was fitted to, for its intervals")
    parts = part_errors(fitted.compared, fitted.used, fitted.view, task.division, fitted.judged, task.season)
    past = last_steps(task.dataset, task.past)
    intervals = fit_intervals(list(parts.values()))
    forecasts = predict(task.dataset, fitted.used, fitted.view, intervals, past, horizon, task.division)
    compared, division = fitted.compared, task.division
    sentences = [compared.encoder_sentence, compared.caution, _seen_sentence(division), drift_sentence(parts)]
    notes = tuple(filter(None, sentences))
    source = {"run": os.fspath(run), "step": task.loaded.step, "data": os.fspath(data)}
    files.write_json(details, source | describe_choice(task, fitted) | {"notes": notes})
    write_forecasts(out, forecasts)
    if picture is not None:
        draw_first(picture, task.dataset, forecasts, max(2 * horizon, task.cut))
    name = fitted.used.name
    return Forecast(out, details, len(past), horizon, name, compared.errors, division.seen, task.season, notes)


class Task(NamedTuple):
    """What is to be forecast: the run, the series, and where readers are fitted and judged.

    The encoder reads the last `cut` steps, and forecasts know `past` steps, which hold a whole season.
    """

    loaded: LoadedRun
    dataset: Series
    division: Division
    shortest: int
    cut: int
    season: int
    horizon: int

    @property
    def past(self) -> int:
        """The steps that a forecast knows."""
        return max(self.cut, self.season)


def open_task(loaded: LoadedRun, data: str, horizon: int, settings: Mapping[str, Any] | None) -> Task:
    """Read the run's own data and the series. Raises ValueError if they do not suffice for this horizon."""
    check_cut(loaded.method)
    own = open_training_series(loaded, "its readers are fitted to it")
    lengths = window_lengths(loaded.method, own)
    cut = steps_seen(loaded.method, lengths.shortest)
    dataset = open_series(loaded, data, settings)
    check_lengths(dataset, cut, lengths)
    division = divide(own, unseen_part(loaded, own.cfg), lengths.shortest)
    check_division(division, cut, lengths.shortest, horizon)
    season = find_season(division, dataset, cut, horizon)
    return Task(loaded, dataset, division, lengths.shortest, cut, season, horizon)


class Fitted(NamedTuple):
    """The candidates beside each other, the one that is used, and what they were judged on."""

    compared: Comparison
    used: Candidate
    view: View
    judged: Judged


def fit_readers(task: Task, reader: str | None) -> Fitted:
    """Fit all candidates and compare them; `reader` names the one to use instead of the choice."""
    method, (device, _) = task.loaded.method, devices.best_device()
    windows = fit_windows(task.division, task.shortest)
    view = window_view(method.to(device), device, windows, task.cut)
    judged = judged_windows(task.division, task.past, task.horizon)
    std = method.std.cpu().numpy().astype(np.float64)
    compared = compare(list(fit_candidates(view, windows, task.season)), judged, std)
    used = next(c for c in compared.candidates if c.name == reader) if reader else compared.choice
    return Fitted(compared, used, view, judged)


def describe_choice(task: Task, fitted: Fitted) -> dict[str, Any]:
    """What the file of details says of the readers."""
    division, judged = task.division, fitted.judged
    return {
        "horizon": task.horizon,
        "reader": fitted.used.name,
        "best": fitted.compared.choice.name,
        "mean_squared_errors": fitted.compared.errors,
        "judged_on": division.judged_part + (", seen in training" if division.seen else ", never seen in training"),
        "forecasts": judged.origins,
        "independent_forecasts": round(judged.independent, 1),
        "season": task.season or None,
    }


def find_season(division: Division, dataset: Series, past: int, horizon: int) -> int:
    """The steps of the season of what was trained on; 0 if there is none that every forecast knows the whole of."""
    trained = [s.values[:, s.begin : s.end] for s in division.fit]
    longest = min(
        max(values.shape[1] for values in trained) // PERIODS_FOR_A_SEASON,
        min(max(past, s.first - s.begin) for s in division.judge if s.room(past) >= horizon),
        min(span.steps for span in whole_spans(dataset)),
        MAX_KNOWN_VALUES // (MAX_JUDGED * dataset.channels),
    )
    return season_length(trained, longest)


def check_reader(reader: str | None, names: tuple[str, ...]) -> None:
    """Raise ValueError, listing the readers, if there is no such one."""
    if reader is not None and reader not in names:
        raise ValueError(f"no reader {reader!r} for these data; give one of {', '.join(names)}")


def part_errors(
    compared: Comparison, used: Candidate, view: View, division: Division, judged: Judged, season: int
) -> dict[str, Errors]:
    """The errors of the candidate `used`, by the name of the part of the data.

    In the parts of what readers are fitted to, they are those of the same candidate, fitted to the rest.
    """
    horizon, past = judged.truth.shape[2], judged.past.shape[2]
    linear = next(one for one in compared.candidates if one.name == "linear")
    names = [used.name, *["linear"] * used.encoder]
    held = [_errors(one, view, judged) for one in (used, linear)[: len(names)]]
    found: list[list[Errors]] = []
    parts: dict[str, Errors] = {}
    for k, part in enumerate(parted(division, view.size)):
        if any(s.room(past) >= horizon for s in part.judge):
            windows = fit_windows(part, view.size)
            tried = judged_windows(part, past, horizon, MAX_JUDGED // PARTS)
            found.append([_errors(fit_candidate(name, view, windows, season), view, tried) for name in names])
            parts[f"part {k + 1} of {PARTS} of the training part"] = found[-1][0]
    if used.encoder and found:
        memory = memorisation(held, found)
        parts = {name: errors._replace(ratio=errors.ratio * memory) for name, errors in parts.items()}
    return {**parts, division.judged_part: held[0]}


def _errors(one: Candidate, view: View, judged: Judged) -> Errors:
    ratio = np.abs(one.forecast(judged.past, judged.truth.shape[2]) - judged.truth) / view.scale(judged.past)
    return Errors(ratio, judged.independent)


def memorisation(held: list[Errors], found: list[list[Errors]]) -> float:
    """How much smaller errors are where the encoder was trained, at least 1: its readers' over those of linear models.

    `held` are those of both in the held-out part, `found` in every part of the training part.
    """
    (read, linear) = (max(errors.ratio.mean(), LEAST) for errors in held)
    (read_before, linear_before) = (max(np.mean([f[k].ratio.mean() for f in found]), LEAST) for k in range(2))
    return float(max(1.0, read / linear * linear_before / read_before))


def _seen_sentence(division: Division) -> str:
    return (
        f"all errors and intervals are from {division.judged_part}, seen in training, and may be too good: train with "
        "data.split=train to keep a part from it"
        if division.seen
        else ""
    )


def predict(
    dataset: Series, used: Candidate, view: View, intervals: Intervals, past: Past, horizon: int, division: Division
) -> Forecasts:
    """The forecast of every series from its `past`, with intervals that follow the errors of its last forecasts."""
    mean, unit, spans = used.forecast(past, horizon), view.scale(past), whole_spans(dataset)
    seen = SeenSteps(division.fit, view.half)
    most = min(REACH * HALF_LIFE * PER_HORIZON, max(LEAST_TRIED, MAX_TRIED // len(spans)))
    found = []
    for span in spans:
        recent = recent_errors(dataset, span, seen, used, view, past.shape[2], horizon, most)
        found.append(intervals.half_widths(recent))
    widths = {share: np.stack([each[share] for each in found]) * unit for share in INTERVAL_PERCENTS}
    bands = {share: (mean - w, mean + w) for share, w in widths.items()}
    names = [span.name for span in spans]
    return Forecasts(names, dataset.columns, mean, bands, next_times(dataset, horizon), dataset.steps.offset)


def draw_first(picture: Path, dataset: Series, forecasts: Forecasts, steps: int) -> None:
    """Draw the forecast of the first series after its last `steps` steps."""
    end, time = whole_spans(dataset)[0].end, dataset.steps.time
    values = dataset.steps.values[:, :end]
    draw_forecast(picture, forecasts, values, None if time is None else time[:end], min(end, steps))


def check_lengths(dataset: Series, cut: int, lengths: WindowLengths) -> None:
    """Raise ValueError, naming the series, if one has fewer steps than a forecast starts from."""
    for span in whole_spans(dataset):
        if span.steps < cut:
            raise ValueError(
                f"{span.name} has {span.steps} steps, but a forecast starts from {cut}, the earlier half: "
                f"{lengths.length_requirement}; {lengths.advice}"
            )


def last_steps(dataset: Series, steps: int) -> Past:
    """The last `steps` steps of every series, (N, C, steps)."""
    parts = [dataset.steps.values[:, span.end - steps : span.end] for span in whole_spans(dataset)]
    return np.stack(parts).astype(np.float64)


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
