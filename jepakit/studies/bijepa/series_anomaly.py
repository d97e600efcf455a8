"""Study: anomalies in real series (NAB), as `jepa score` finds them with BiJEPA and with the forward-only JEPA.

The data are the 47 real series of the Numenta Anomaly Benchmark. By its convention, the first 15 % of a series are for
learning and are not scored. One model for all series trains, without labels, on those parts. Each series is normalised
by the mean and deviation of its own first part. Labels are used only for the areas under the ROC curves.

A window has two patches of 32 steps. A perceptron sees one patch at a time, so a target contains nothing but its patch.
These settings were chosen on 24 generated series with planted anomalies (2,000 steps, one seed): .84 and .82 for BiJEPA
and forward alone, .81 for windows of 32, 96 and 128, .60 to .74 for small transformers with 500 steps, .51 for the
distance to the rolling median. No NAB label was used to choose them. How `jepa score` combines the prediction with what
the channel does was chosen with the labels of every third labelled series, so areas are means over the others.

The score is also measured in parts: the error of the prediction alone, and the channel alone. The baselines are the
distances to the first part's mean, to the rolling median and to the last value, and the rolling deviation.

The study does not compute NAB's own score, which rewards early alarms. NAB's labelled windows cover a tenth of each
series and contain many normal steps, so areas are far from 1 for every detector.
"""

import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ...core import files
from ...core.progress import SilentProgress
from ...data.series import settings as series
from ...inference.inputs import open_training_series
from ...inference.rarity import StepScores, fit_reference
from ...inference.score import Settings, StepScorer, own_steps
from ...inference.windows import whole_spans
from ...masks.halves import Halves
from ...methods import bijepa
from ...nn import MLP
from ...nn.mlp import Perceptron
from ...run import checkpoint, parse
from ...run.optim import Optim
from ...run.settings import Length, Loop, Run
from ...types import Rng
from ..claims import Better, Numbers
from ..study import Arm, Study, require_data
from .anomaly import Scores as Steps
from .anomaly import (
    average_scores,
    bootstrap_interval,
    mark_windows,
    median_distance,
    roc_area,
    rolling_deviation,
    scaled_median_distance,
    step_distance,
)

NAB_ARCHIVE: Final = "timeseries/nab_real.tar.gz"
TRAINING_SHARE: Final = 0.15  # of each series
PATCH, STRIDE, STEPS, BATCH = 32, 4, 2000, 64
MEDIAN, SCALED_MEDIAN, LAST = (
    "distance to the rolling median",
    "distance to the rolling median / MAD",
    "distance to the last value",
)
LEVEL_ROW, DEVIATION = "distance to the first part's mean", "deviation of four windows"
AUC, CAUSAL, PREDICTION, CHANNEL = "AUC", "AUC, causal", "AUC of the prediction alone", "AUC of the channel alone"
CAUSAL_PREDICTION = "AUC of the prediction alone, causal"
AVERAGED_SUFFIX, ALL_SUFFIX = ", averaged over a window", ", all series"
BASELINES = (LEVEL_ROW, MEDIAN, SCALED_MEDIAN, LAST, DEVIATION)
FALSE_ALARMS, QUANTILE = "false alarms on steps left out of training", 0.999
CHOSEN_ON = 3
"""Every third series with labels, from the first on, served to choose the score and is not reported."""
INTERVALS_NOTE = "means over the series with labels that chose nothing (95 % by bootstrap over them, first seed)"


def write_tables(data: Path, out: Path) -> Path:
    """Write tables of all series and of their first parts, and labels of every step, into the study's own folder."""
    folder, source = out / "data", require_data("series-anomaly", data, NAB_ARCHIVE)
    if (folder / "labels.npz").exists():
        return folder
    values, labels = read_archive(source)
    for name, share in (("all", 1.0), ("first", TRAINING_SHARE)):
        _write_table(folder / f"{name}.parquet", {k: v[: round(share * len(v))] for k, v in values.items()})
    with files.replace_file(folder / "labels.npz") as part, part.open("wb") as file:
        np.savez(file, **labels)  # type: ignore[arg-type]
    return folder


def read_archive(source: Path) -> tuple[dict[str, Float[np.ndarray, " _"]], dict[str, Bool[np.ndarray, " _"]]]:
    """Every series of the archive, normalised by the mean and deviation of its first part, and its labelled steps."""
    from pyarrow import csv

    values, labels = {}, {}
    with tarfile.open(source) as archive:
        windows = json.load(archive.extractfile("labels/combined_windows.json"))  # type: ignore[arg-type]
        for member in sorted(archive.getnames()):
            if not member.endswith(".csv"):
                continue
            table, name = csv.read_csv(archive.extractfile(member)), member.removeprefix("data/")
            x = np.asarray(table["value"].to_numpy(), dtype=np.float64)
            first = x[: round(TRAINING_SHARE * len(x))]
            values[name] = (x - first.mean()) / (first.std() or 1.0)
            labels[name] = mark_windows(np.asarray(table["timestamp"].to_numpy()), windows[name])
    return values, labels


def _write_table(path: Path, values: Mapping[str, Float[np.ndarray, " _"]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.repeat(list(values), [len(v) for v in values.values()])
    with files.replace_file(path) as part:
        pq.write_table(pa.table({"series": names, "value": np.concatenate(list(values.values()))}), part)


def training_run(alpha: float) -> Run:
    """The training on the first parts: BiJEPA, or forward only with an alpha of 1."""
    method = bijepa.Config(
        encoder=MLP(patch=(PATCH,), width=64, hidden=128),
        predictor=Perceptron(hidden=128),
        masks=(Halves(),),
        alpha=alpha,
        ema=(0.98, 0.9995),
    )
    return Run(
        method=method,
        data=series.Config(
            path="first.parquet", time="none", entity="series", window=2 * PATCH, stride=2, split="train"
        ),
        optim=Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=0.04, final_weight_decay=0.1),
        length=Length(steps=STEPS, batch=BATCH),
        loop=Loop(workers=0, log_every=100),
    )


def run_areas(run: Path) -> dict[str, float]:
    """The mean ROC areas, over the reported series, of a run's scores, of parts of them and of the baselines."""
    folder = Path(parse.from_yaml(run / "config.yaml").data.path).parent
    scores, causal = (score_series(run, folder, is_causal) for is_causal in (False, True))
    found = {
        **smoothed_and_plain(AUC, folder, scores.rarity),
        **smoothed_and_plain(PREDICTION, folder, scores.errors),
        **smoothed_and_plain(CHANNEL, folder, scores.channel),
        CAUSAL: _series_areas(folder, causal.rarity),
        CAUSAL_PREDICTION: _series_areas(folder, causal.errors),
        **baseline_areas(folder),
    }
    numbers = {FALSE_ALARMS: scores.false_alarms, f"{FALSE_ALARMS}, causal": causal.false_alarms}
    for metric, values in found.items():
        reported = [value for k, value in enumerate(values) if k % CHOSEN_ON]
        mean, low, high = bootstrap_interval(reported, Rng(0).fork("series"))
        numbers |= {metric: mean, f"{metric}, low": low, f"{metric}, high": high}
        numbers[metric + ALL_SUFFIX] = float(np.mean(values))
    return numbers


def smoothed_and_plain(name: str, folder: Path, scores: Mapping[str, Steps]) -> dict[str, list[float]]:
    """The areas of the raw scores, and of scores averaged over as many steps as a window has.

    Window scores are smooth already, and labelled windows are long, so averaging alone improves any score.
    """
    smooth = {k: average_scores(s, 2 * PATCH) for k, s in scores.items()}
    return {name: _series_areas(folder, scores), f"{name}{AVERAGED_SUFFIX}": _series_areas(folder, smooth)}


class RunScores(NamedTuple):
    """The step scores of a run by series, the errors of its prediction, the scores without it, and false alarms."""

    rarity: dict[str, Steps]
    errors: dict[str, Steps]
    channel: dict[str, Steps]
    false_alarms: float


def score_series(run: Path, folder: Path, causal: bool) -> RunScores:
    """The scores of a run."""
    loaded = checkpoint.load_run(run)
    own, dataset = open_training_series(loaded, "it is what scores are ranked among"), read_all(folder)
    scorer = StepScorer.of_run(loaded, Settings(causal, STRIDE), own)
    spans = whole_spans(dataset)
    names = [span.name.partition("/")[2] for span in spans]
    steps, own_scores = list(scorer.step_scores(dataset, spans)), own_steps(scorer, own, SilentProgress())
    reference = fit_reference(*own_scores, QUANTILE)
    alone = fit_reference(*own_scores._replace(scores=_without_prediction(own_scores.scores)), QUANTILE)
    return RunScores(
        {name: reference.ranks.rarity(scores).score for name, scores in zip(names, steps, strict=True)},
        {name: np.exp(scores.prediction) for name, scores in zip(names, steps, strict=True)},
        {name: alone.ranks.rarity(_without_prediction(s)).score for name, s in zip(names, steps, strict=True)},
        reference.false_alarms,
    )


def _without_prediction(scores: StepScores) -> StepScores:
    """The same scores, as if all predictions had the same error."""
    return scores._replace(prediction=scores.prediction * 0.0)


@cache
def baseline_areas(folder: Path) -> dict[str, list[float]]:
    """The areas of the baselines."""
    dataset, ways = read_all(folder), dict(zip(BASELINES, BASELINE_SCORES, strict=True))
    parts = {
        span.name.partition("/")[2]: dataset.steps.values[0, span.begin : span.end] for span in whole_spans(dataset)
    }
    scores = {name: {k: way(x) for k, x in parts.items()} for name, way in ways.items()}
    return {
        key: area for name, found in scores.items() for key, area in smoothed_and_plain(name, folder, found).items()
    }


def _squared_level(x: Float[np.ndarray, " t"]) -> Steps:
    return np.square(x.astype(np.float64))


BASELINE_SCORES: Final[Sequence[Callable[[Float[np.ndarray, " t"]], Steps]]] = (
    _squared_level,
    partial(median_distance, window=2 * PATCH),
    partial(scaled_median_distance, window=2 * PATCH),
    step_distance,
    partial(rolling_deviation, window=8 * PATCH),
)
"""Those of BASELINES."""


def read_all(folder: Path) -> Any:
    """All series as one data set, not cut into windows."""
    return series.Config(path=str(folder / "all.parquet"), time="none", entity="series", window=0).open()


def _series_areas(folder: Path, scores: Mapping[str, Steps]) -> list[float]:
    """The area for every series that has labelled steps after its first part."""
    with np.load(folder / "labels.npz") as labels:
        after = {name: (round(TRAINING_SHARE * len(s)), labels[name]) for name, s in scores.items()}
    return [roc_area(scores[name][cut:], kinds[cut:]) for name, (cut, kinds) in after.items() if kinds[cut:].any()]


OURS, FORWARD = "NAB · BiJEPA", "NAB · forward alone"
SCORES = (AUC, PREDICTION, CHANNEL)
CLAIMS: Final = (
    Numbers(
        (OURS, FORWARD),
        (*SCORES, *(name + AVERAGED_SUFFIX for name in SCORES), CAUSAL, CAUSAL_PREDICTION),
        words=f"Areas under the curve, {INTERVALS_NOTE}",
    ),
    Numbers(
        (OURS,), (*BASELINES, *(name + AVERAGED_SUFFIX for name in BASELINES)), words=f"Baselines, {INTERVALS_NOTE}"
    ),
    *(Better(OURS, OURS, AUC + end, name + end) for name in BASELINES for end in ("", AVERAGED_SUFFIX)),
    Better(OURS, OURS, CAUSAL, MEDIAN),
    *(Better(OURS, OURS, AUC + end, name + end) for name in (PREDICTION, CHANNEL) for end in ("", AVERAGED_SUFFIX)),
    *(Better(OURS, FORWARD, metric) for metric in (AUC, PREDICTION, CAUSAL)),
)
STUDY = Study(
    title="Anomalies by latent prediction",
    source="no published table; series and labelled windows: NAB, Lavin & Ahmad 2015, arXiv:1510.03336",
    claim=(
        "What a model of the first 15 % of a series cannot predict later, in latent space, or what its channel hardly "
        "ever did there, is an anomaly more often than what lies far from the values before."
    ),
    arms=(
        Arm("NAB", "BiJEPA", training_run(0.5), "all.parquet"),
        Arm("NAB", "forward alone", training_run(1.0), "all.parquet"),
    ),
    claims=CLAIMS,
    kinds=(),
    run_metrics=run_areas,
    prepare=write_tables,
)
