"""Scores how unexpected every step of a series is to a trained model: the error of its prediction in latent space.

Windows of the run's own length slide over each series (windows.py). In each window, tokens are hidden and predicted
(hiding.py), and a token's error is the distance between prediction and target as the loss compares them. It counts for
all steps of the token. A step's score is the mean over the windows that hide it or, if causal, that of the first such
window. If the run was trained on whole series of unequal lengths, each series is one window.

Scores are compared with those of the training data: z is the distance to their median, over 1.4826 MAD (the standard
deviation of a normal distribution), and a step is anomalous if its score exceeds a high quantile of theirs.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from ..core import devices
from ..core.progress import Progress, SilentProgress, progress_counter
from ..data.series.dataset import Series
from ..run import checkpoint
from ..training.request import PathLike
from .hiding import Round, scorable_method, scoring_rounds
from .inputs import open_series, open_training_series
from .plots import MAX_SERIES_DRAWN, ScoreStrip, draw_scores, score_strip
from .tables import SeriesScores, check_step_outputs, score_table
from .windows import Scores, SlidingScorer, WindowLengths, sampled_spans, whole_spans, window_lengths

__all__ = ["Reference", "Scored", "Settings", "score", "series_scores", "sliding_scorer"]

STD_PER_MAD: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class Settings:
    """How to score: a `stride` of None is one token; `quantile` of the training scores is the threshold."""

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


class Reference(NamedTuple):
    """Median and MAD of the scores of the training data, and the threshold above which a step is anomalous."""

    median: float
    mad: float
    threshold: float

    @classmethod
    def from_scores(cls, scores: Scores, quantile: float) -> "Reference":
        """The reference of the scores of training steps. Raises ValueError if no step has a score."""
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            raise ValueError("no step of the training part has a score to compare with; give --stride 1")
        median = float(np.median(scores))
        return cls(median, float(np.median(np.abs(scores - median))), float(np.quantile(scores, quantile)))

    def z_scores(self, scores: Scores) -> Float64[np.ndarray, " t"]:
        """How many standard deviations scores lie above the median."""
        return (scores - self.median) / max(STD_PER_MAD * self.mad, np.finfo(np.float64).tiny)


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
    """Write how unexpected every step of the series in `data` is to a run's model, to a .csv or .parquet file.

    Columns: entity, time, score, z, anomalous. A score is the error of predicting the step's representation, averaged
    over windows that begin `stride` steps apart (default: one token); with `causal`, it is that of the first window to
    reach the step, predicted from earlier tokens only. `anomalous` marks scores above the `quantile` of those of the
    run's training data, and `plot` is a .png file to draw. `step` is that of a checkpoint, by default the newest;
    `settings` override how `data` are read, as {"data.fill": 30}. Raises ValueError, before anything is written, if
    the run or the data cannot be scored.
    """
    how, progress = Settings(causal, stride, quantile, batch), progress or SilentProgress()
    out, picture = Path(out), None if plot is None else Path(plot)
    check_step_outputs(out, picture, overwrite)
    loaded = checkpoint.load_run(Path(run), step, note=progress.note)
    scorable_method(loaded.method)
    own = open_training_series(loaded, "scores are set against those of its data")
    lengths = window_lengths(loaded.method, own)
    dataset = open_series(loaded, os.fspath(data), settings)
    check_length(dataset, os.fspath(data), lengths)
    scorer = sliding_scorer(loaded, how, lengths)
    count = progress_counter(progress, "scoring what was trained on", "windows")
    trained_on = np.concatenate(list(scorer.step_scores(own, sampled_spans(own), count)))
    reference = Reference.from_scores(trained_on, how.quantile)
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


def series_scores(
    scorer: SlidingScorer, dataset: Series, reference: Reference, progress: Progress
) -> Iterator[SeriesScores]:
    """The table rows of each series; if the data have no times, steps are counted from 0."""
    spans, time = whole_spans(dataset), dataset.steps.time
    count = progress_counter(progress, "scoring", "windows")
    for span, scores in zip(spans, scorer.step_scores(dataset, spans, count), strict=True):
        times = np.arange(span.steps) if time is None else time[span.begin : span.end]
        yield SeriesScores(span.name, times, scores, reference.z_scores(scores), scores > reference.threshold)


def _write_scores(
    scorer: SlidingScorer, dataset: Series, reference: Reference, out: Path, plot: Path | None, progress: Progress
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
    short = tuple(span.name for span in spans if not scorer.lengths.longest_fit(span.steps))
    return Scored(out, len(spans), steps, scored, anomalous, reference, short)
