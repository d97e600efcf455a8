"""How unexpected every step of a series is to a trained model: the error of its prediction in latent space.

Windows of the run's own length slide over each series; in each, tokens are hidden and predicted (rounds.py), and a
token's error is the distance between prediction and target as the loss compares them. It is that of all steps of the
token; a step's score is the mean over the windows that hide it, or if causal that of the first such window. Where the
run was trained on whole series of unequal lengths, each series is a window itself (known.py, sliding.py). Scores are
set against those of the part that the run was trained on: z is the distance to their median, over 1.4826 MAD (the
standard deviation, were they normal), and a step is anomalous where its score exceeds a high quantile of theirs.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from ..core import devices, files
from ..core.progress import Silent, Watch, counting
from ..data.series.dataset import Series
from ..run import checkpoint, parse
from .hiding import Round, check, rounds
from .score_plot import SERIES, Strip, draw, strip
from .score_table import WRITERS, Rows, writing
from .windows import Known, Scores, Slider, covered, known, trained_on, whole

__all__ = ["Reference", "Scored", "Settings", "rows_of", "score"]

PathLike = str | os.PathLike[str]
NORMAL: Final = 1.4826  # the standard deviation over the MAD of a normal distribution


@dataclass(frozen=True)
class Settings:
    """How to score: `stride` None is one token; `quantile` of the training scores makes the threshold."""

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
    """What scores of the part that was trained on are like, and the threshold above which one stands out."""

    median: float
    mad: float
    threshold: float

    @classmethod
    def of(cls, scores: Scores, quantile: float) -> "Reference":
        """From the scores of training steps. Raises ValueError where there are none."""
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            raise ValueError("no step of the training part has a score to compare with; give --stride 1")
        median = float(np.median(scores))
        return cls(median, float(np.median(np.abs(scores - median))), float(np.quantile(scores, quantile)))

    def z(self, scores: Scores) -> Float64[np.ndarray, " t"]:
        """How far scores lie above the median."""
        return (scores - self.median) / max(NORMAL * self.mad, np.finfo(np.float64).tiny)


class Scored(NamedTuple):
    """What was written: the file, the series, steps, how many have a score and how many are anomalous, the reference.

    `short` names the series that are shorter than any window that the run knows and have no scores.
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
    watch: Watch | None = None,
) -> Scored:
    """Write, to a .csv or .parquet file, how unexpected every step of the series in `data` is to a run's model.

    Columns: entity, time, score, z, anomalous. A score is the error of predicting the step's representation, averaged
    over windows that begin `stride` steps apart (default: one token); with `causal`, that of the first window that
    reaches it, from tokens before it alone. `anomalous` are scores above the `quantile` of those of the run's training
    data, and `plot` is a .png. `step` is that of a checkpoint, by default the newest, and `settings` of how `data` are
    read, as {"data.fill": 30}. Raises ValueError, before anything is written, where the run or the data cannot be
    scored.
    """
    how, watch = Settings(causal, stride, quantile, batch), watch or Silent()
    out, picture = Path(out), None if plot is None else Path(plot)
    files.check_writable(out, overwrite, WRITERS)
    if picture is not None:
        files.check_writable(picture, overwrite, (".png",))
    loaded = checkpoint.load_run(Path(run), step)
    check(loaded.method)
    own = trained_on(loaded, "scores are set against those of its data")
    windows = known(loaded.method, own)
    dataset = opened(loaded, os.fspath(data), settings or {})
    check_long(dataset, os.fspath(data), windows)
    slider = sliding(loaded, how, windows)
    reference = Reference.of(training_scores(slider, own, watch), how.quantile)
    return _write(slider, dataset, reference, out, picture, watch)


def sliding(loaded: checkpoint.Loaded, settings: Settings, windows: Known) -> Slider:
    """The run's method on the best device, and how its windows are scored."""
    device, _ = devices.best_device()
    stride = settings.stride or windows.patch

    # Of many lengths only those are asked for that some series has.
    @cache
    def chosen(size: int) -> list[Round]:
        return rounds(loaded.method, settings.causal, size // windows.patch)

    return Slider(loaded.method.to(device), windows, chosen, stride, settings.causal, settings.batch, device)


def opened(loaded: checkpoint.Loaded, path: str, settings: Mapping[str, Any]) -> Series:
    """The series at `path`, each as a whole, read by the run's columns and `settings`, as {"data.fill": 30}.

    Raises ValueError where they are no series, or have other channels.
    """
    channels = loaded.method.signal.channels
    dataset: Series = _whole(parse.other_data(loaded.run, path, loaded.method.signal, settings)).open()
    if dataset.channels != channels:
        raise ValueError(
            f"{path!r} has {dataset.channels} channels ({', '.join(dataset.columns)}) but the run was trained on "
            f"{channels}; give data of the same columns"
        )
    return dataset


def check_long(dataset: Series, path: str, windows: Known) -> None:
    """Raises ValueError where all series are shorter than the shortest window."""
    if not windows.fits(longest := max(span.end - span.begin for span in whole(dataset))):
        raise ValueError(f"{windows.told}, but the longest series in {path!r} has {longest}; {windows.fix}")


def _whole(cfg: Any) -> Any:
    """Settings that read series uncut."""
    return cfg.uncut()


def training_scores(slider: Slider, dataset: Series, watch: Watch) -> Scores:
    """The score of every step that the run was trained on."""
    progress = counting(watch, "scoring what was trained on", "windows")
    return np.concatenate(list(slider.scores(dataset, covered(dataset), progress)))


def rows_of(slider: Slider, dataset: Series, reference: Reference, watch: Watch) -> Iterator[Rows]:
    """The rows of each series; where there are no times, steps counted from 0."""
    spans, time = whole(dataset), dataset.steps.time
    progress = counting(watch, "scoring", "windows")
    for span, scores in zip(spans, slider.scores(dataset, spans, progress), strict=True):
        clock = np.arange(span.end - span.begin) if time is None else time[span.begin : span.end]
        yield Rows(span.name, clock, scores, reference.z(scores), scores > reference.threshold)


def _write(slider: Slider, dataset: Series, reference: Reference, out: Path, plot: Path | None, watch: Watch) -> Scored:
    spans, strips = whole(dataset), list[Strip]()
    kind = np.dtype(np.int64) if dataset.steps.time is None else dataset.steps.time.dtype
    steps = scored = anomalous = 0
    with writing(out, kind, dataset.steps.offset) as write:
        for span, rows in zip(spans, rows_of(slider, dataset, reference, watch), strict=True):
            write(rows)
            steps, scored = steps + len(rows.score), scored + int((~np.isnan(rows.score)).sum())
            anomalous += int(rows.anomalous.sum())
            if plot is not None and len(strips) < SERIES:
                strips.append(strip(dataset.steps.values[:, span.begin : span.end], rows))
    if plot is not None:
        draw(strips, dataset.columns, reference.threshold, plot)
        if len(spans) > SERIES:
            watch.note(f"{plot} shows the first {SERIES} of {len(spans)} series")
    short = tuple(span.name for span in spans if not slider.known.fits(span.end - span.begin))
    return Scored(out, len(spans), steps, scored, anomalous, reference, short)
