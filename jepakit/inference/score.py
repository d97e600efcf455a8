"""Scores how unusual every step of a series is: for a trained model that predicts it, and for each channel by itself.

Windows of the run's own length slide over each series (windows.py). In each window, tokens are hidden and predicted
(hiding.py), and a token's error is the distance between prediction and target as the loss compares them. It counts for
all steps of the token. A step's error is the mean over the windows that hide it or, if causal, that of the first such
window. If the run was trained on whole series of unequal lengths, each series is one window.

Beside the prediction, each channel is scored by its level, its spread and its standstill, without a model
(channel_scores.py). All are ranked among normal steps, those that training left out, and combined (rarity.py). Then z
is the distance of a score to the median of normal steps, over 1.4826 MAD (the standard deviation of a normal
distribution), and a step is anomalous if it is rarer than a share of 1 - `quantile` of normal steps.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from ..core import devices
from ..core.progress import Progress, SilentProgress, progress_counter
from ..data.series.dataset import Series
from ..run import checkpoint
from ..run.own_data import unseen_part
from ..training.request import PathLike
from .channel_scores import ChannelWindows, channel_scores, run_beginnings
from .hiding import Round, scorable_method, scoring_rounds
from .inputs import open_series, open_training_series
from .plots import MAX_SERIES_DRAWN, ScoreStrip, draw_scores, score_strip
from .rarity import PREDICTION, REASONS, Reference, StepScores, fit_reference
from .tables import SeriesScores, check_step_outputs, score_table
from .windows import ProgressCallback, SlidingScorer, Span, WindowLengths, whole_spans, window_lengths

__all__ = [
    "Reference",
    "Scored",
    "Settings",
    "StepScorer",
    "own_steps",
    "score",
    "series_scores",
    "sliding_scorer",
]

MAX_REFERENCE_STEPS: Final = 2**18
"""The reference holds at most so many steps of the run's own data, evenly spaced."""


@dataclass(frozen=True)
class Settings:
    """How to score: a `stride` of None is one token; `quantile` is the share of normal steps below the threshold."""

    causal: bool = False
    stride: int | None = None
    quantile: float = 0.999
    batch: int = 256

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride is {self.stride}; give a number of steps, 1 or more")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile:g}; give a share between 0 and 1, such as 0.999")
        if self.batch < 1:
            raise ValueError(f"the batch is {self.batch}; give 1 window or more, e.g. --batch 256")


class Scored(NamedTuple):
    """What was written: the file, how many series, steps, scored and anomalous steps, and the reference.

    `short` names the series that are shorter than the shortest training window and have no scores.
    """

    out: Path
    series: int
    steps: int
    scored: int
    anomalous: int
    reference: Reference
    short: tuple[str, ...]


def score(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    causal: bool = False,
    stride: int | None = None,
    quantile: float = 0.999,
    plot: PathLike | None = None,
    batch: int = 256,
    overwrite: bool = False,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Write how unusual every step of the series in `data` is, to a .csv or .parquet file.

    Columns: entity, time, score, z, anomalous, channel, reason. A score of 3 means that one normal step in a thousand
    is as unusual, by the run's prediction of its representation and by what each channel does; `channel` and `reason`
    say what contributes most. Errors of the prediction are averaged over windows that begin `stride` steps apart
    (default: one token); with `causal`, only what lies before a step, and its own token, counts. `anomalous` marks
    steps that are rarer than a share of 1 - `quantile` of normal steps, and `plot` is a .png file to draw. `step` is
    that of a checkpoint, by default the newest; `settings` override how `data` are read, as {"data.fill": 30}. Raises
    ValueError, before anything is written, if the run or the data cannot be scored.
    """
    how, progress = Settings(causal, stride, quantile, batch), progress or SilentProgress()
    out, picture = Path(out), None if plot is None else Path(plot)
    check_step_outputs(out, picture, overwrite)
    loaded = checkpoint.load_run(Path(run), step, note=progress.note)
    scorable_method(loaded.method)
    own = open_training_series(loaded, "scores are set against those of its data")
    scorer = StepScorer.of_run(loaded, how, own)
    dataset = open_series(loaded, os.fspath(data), settings)
    check_length(dataset, os.fspath(data), scorer.sliding.lengths)
    reference = fit_reference(*own_steps(scorer, own, progress), how.quantile)
    return _write_scores(scorer, dataset, reference, out, picture, progress)


def sliding_scorer(loaded: checkpoint.LoadedRun, settings: Settings, lengths: WindowLengths) -> SlidingScorer:
    """The run's method on the best device, and how it scores windows."""
    device, _ = devices.best_device()
    method = scorable_method(loaded.method).to(device)
    stride = settings.stride or lengths.patch

    # Series of many lengths ask only for the sizes that some window has.
    @cache
    def rounds_of(size: int) -> list[Round]:
        return scoring_rounds(method, settings.causal, size // lengths.patch)

    return SlidingScorer(method, lengths, rounds_of, stride, settings.causal, settings.batch, device)


def check_length(dataset: Series, path: str, lengths: WindowLengths) -> None:
    """Raises ValueError if all series are shorter than the shortest window."""
    if not lengths.longest_fit(longest := max(span.steps for span in whole_spans(dataset))):
        raise ValueError(
            f"{lengths.length_requirement}, but the longest series in {path!r} has {longest}; {lengths.advice}"
        )


class StepScorer(NamedTuple):
    """Scores steps by the run's prediction and by their channels.

    `scales` are the channels' standard deviations over the steps that training samples contain; `left_out`: the run
    left out a part of its data that its encoder never saw.
    """

    sliding: SlidingScorer
    scales: Float64[np.ndarray, " c"]
    windows: ChannelWindows
    left_out: bool

    @classmethod
    def of_run(cls, loaded: checkpoint.LoadedRun, settings: Settings, own: Series) -> "StepScorer":
        """How a run scores steps; `own` is its training data."""
        lengths = window_lengths(loaded.method, own)
        scales = own.steps.values[:, own.covered_steps()].std(axis=1, dtype=np.float64)
        windows = ChannelWindows.of_run(lengths.longest, max(span.steps for span in whole_spans(own)))
        left_out = unseen_part(loaded, own.cfg) is not None
        return cls(sliding_scorer(loaded, settings, lengths), scales, windows, left_out)

    def step_scores(
        self, dataset: Series, spans: Sequence[Span], progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[StepScores]:
        """The scores of the steps of each span, one span at a time, as logarithms."""
        for span, errors in zip(spans, self.sliding.step_scores(dataset, spans, progress), strict=True):
            values = dataset.steps.values[:, span.begin : span.end]
            prediction = np.log(np.maximum(errors, np.finfo(np.float64).tiny))
            channels = channel_scores(values, self.scales, self.windows, self.sliding.causal)
            yield StepScores(prediction, channels, run_beginnings(values))


class OwnSteps(NamedTuple):
    """The scores of the steps of a run's own data; whether training left them out, and which half they belong to."""

    scores: StepScores
    unseen: Bool[np.ndarray, " t"]
    later: Bool[np.ndarray, " t"]


def own_steps(scorer: StepScorer, own: Series, progress: Progress) -> OwnSteps:
    """The scores of a run's own data. If training left out nothing, no step is `unseen`."""
    count, spans = progress_counter(progress, "scoring the run's own data", "windows"), whole_spans(own)
    every = -(-spans[-1].end // MAX_REFERENCE_STEPS)
    unseen = ~own.covered_steps() & scorer.left_out
    masks = [unseen[span.begin : span.end] for span in spans]
    parts = [scores.part(slice(None, None, every)) for scores in scorer.step_scores(own, spans, count)]
    return OwnSteps(
        StepScores.join(parts),
        np.concatenate([mask[::every] for mask in masks]),
        np.concatenate([_later_halves(mask)[::every] for mask in masks]),
    )


def _later_halves(unseen: Bool[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """The later half of the steps that are unseen, and the later half of all others."""
    later = np.zeros_like(unseen)
    for rows in (np.flatnonzero(unseen), np.flatnonzero(~unseen)):
        later[rows[len(rows) // 2 :]] = True
    return later


def series_scores(
    scorer: StepScorer, dataset: Series, reference: Reference, progress: Progress
) -> Iterator[SeriesScores]:
    """The table rows of each series; if the data have no times, steps are counted from 0."""
    spans, time = whole_spans(dataset), dataset.steps.time
    count = progress_counter(progress, "scoring", "windows")
    reasons, channels = np.array(REASONS, dtype=object), np.array(dataset.columns, dtype=object)
    for span, steps in zip(spans, scorer.step_scores(dataset, spans, count), strict=True):
        times = np.arange(span.steps) if time is None else time[span.begin : span.end]
        found = reference.ranks.rarity(steps)
        reason = reasons[found.reason]
        yield SeriesScores(
            entity=span.name,
            time=times,
            score=found.score,
            z=reference.z_scores(found.score),
            anomalous=found.score > reference.threshold,
            # The prediction is of all channels together.
            channel=np.where(reason == PREDICTION, "", channels[found.channel]),
            reason=reason,
        )


def _write_scores(
    scorer: StepScorer, dataset: Series, reference: Reference, out: Path, plot: Path | None, progress: Progress
) -> Scored:
    spans, strips = whole_spans(dataset), list[ScoreStrip]()
    time = np.dtype(np.int64) if dataset.steps.time is None else dataset.steps.time.dtype
    steps = scored = anomalous = 0
    with score_table(out, time, dataset.steps.offset) as append:
        for span, rows in zip(spans, series_scores(scorer, dataset, reference, progress), strict=True):
            append(rows)
            steps, scored = steps + len(rows.score), scored + int((~np.isnan(rows.score)).sum())
            anomalous += int(rows.anomalous.sum())
            if plot is not None and len(strips) < MAX_SERIES_DRAWN:
                strips.append(score_strip(dataset.steps.values[:, span.begin : span.end], rows))
    if plot is not None:
        draw_scores(strips, dataset.columns, reference.threshold, plot)
        if len(spans) > MAX_SERIES_DRAWN:
            progress.note(f"{plot} shows the first {MAX_SERIES_DRAWN} of {len(spans)} series")
    short = tuple(span.name for span in spans if not scorer.sliding.lengths.longest_fit(span.steps))
    return Scored(out, len(spans), steps, scored, anomalous, reference, short)
