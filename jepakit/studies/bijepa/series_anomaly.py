"""Study: BiJEPA and the forward-only JEPA detect anomalies in real series (NAB) by prediction errors in latent space.

The data are the 47 real series of the Numenta Anomaly Benchmark. By its convention, the first 15 % of a series are for
learning and are not scored. One model for all series trains, without labels, on those parts. Each series is normalised
by the mean and deviation of its own first part. Labels are used only for the areas under the ROC curves.

A window has two patches of 32 steps. A perceptron sees one patch at a time, so a target contains nothing but its patch.
These settings were chosen on 24 generated series with planted anomalies (2,000 steps, one seed): .84 and .82 for BiJEPA
and forward alone, .81 for windows of 32, 96 and 128, .60 to .74 for small transformers with 500 steps, .51 for the
distance to the rolling median. No NAB label was used to choose them.

The study does not compute NAB's own score, which rewards early alarms. NAB's labelled windows cover a tenth of each
series and contain many normal steps, so areas are far from 1 for every detector.
"""

import json
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float

from ...core import files
from ...data.series import settings as series
from ...inference.inputs import open_training_series
from ...inference.score import Settings, sliding_scorer
from ...inference.windows import whole_spans, window_lengths
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
from .anomaly import average_scores, bootstrap_interval, mark_windows, median_distance, roc_area, step_distance

NAB_ARCHIVE: Final = "timeseries/nab_real.tar.gz"
TRAINING_SHARE: Final = 0.15  # of each series
PATCH, STRIDE, STEPS, BATCH = 32, 4, 2000, 64
MEDIAN, LAST = "distance to the median", "distance to the last value"
LEVEL_ROW = "distance to the first part's mean"
AUC, CAUSAL = "AUC", "AUC, causal"
AVERAGED_SUFFIX = ", averaged over a window"
BASELINES = (LEVEL_ROW, MEDIAN, LAST)
INTERVALS_NOTE = "means over the series with labels (95 % by bootstrap over them, first seed)"


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
        data=series.Config(path="first.parquet", time="none", entity="series", window=2 * PATCH, stride=2),
        optim=Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=0.04, final_weight_decay=0.1),
        length=Length(steps=STEPS, batch=BATCH),
        loop=Loop(workers=0, log_every=100),
    )


def run_areas(run: Path) -> dict[str, float]:
    """The mean ROC areas, over the series with labels, of a run's scores, of its causal scores and of the baselines."""
    folder = Path(parse.from_yaml(run / "config.yaml").data.path).parent
    found = {
        **smoothed_and_plain(AUC, folder, score_series(run, folder, False)),
        CAUSAL: _series_areas(folder, score_series(run, folder, True)),
    }
    found |= baseline_areas(folder)
    numbers: dict[str, float] = {}
    for metric, values in found.items():
        mean, low, high = bootstrap_interval(values, Rng(0).fork("series"))
        numbers |= {metric: mean, f"{metric}, low": low, f"{metric}, high": high}
    return numbers


def smoothed_and_plain(name: str, folder: Path, scores: Mapping[str, Steps]) -> dict[str, list[float]]:
    """The areas of the raw scores, and of scores averaged over as many steps as a window has.

    Window scores are smooth already, and labelled windows are long, so averaging alone improves any score.
    """
    smooth = {k: average_scores(s, 2 * PATCH) for k, s in scores.items()}
    return {name: _series_areas(folder, scores), f"{name}{AVERAGED_SUFFIX}": _series_areas(folder, smooth)}


def score_series(run: Path, folder: Path, causal: bool) -> dict[str, Steps]:
    """A run's step scores by series."""
    loaded = checkpoint.load_run(run)
    lengths = window_lengths(loaded.method, open_training_series(loaded, "they tell how long its windows are"))
    scorer, dataset = sliding_scorer(loaded, Settings(causal, STRIDE), lengths), read_all(folder)
    spans = whole_spans(dataset)
    return dict(zip([span.name.partition("/")[2] for span in spans], scorer.step_scores(dataset, spans), strict=True))


@cache
def baseline_areas(folder: Path) -> dict[str, list[float]]:
    """The areas of the distances to the first part's mean, squared, to the rolling median and to the last value."""
    dataset, ways = read_all(folder), dict(zip(BASELINES, (_squared_level, _window_median, step_distance), strict=True))
    parts = {
        span.name.partition("/")[2]: dataset.steps.values[0, span.begin : span.end] for span in whole_spans(dataset)
    }
    scores = {name: {k: way(x) for k, x in parts.items()} for name, way in ways.items()}
    return {
        key: area for name, found in scores.items() for key, area in smoothed_and_plain(name, folder, found).items()
    }


def _squared_level(x: Float[np.ndarray, " t"]) -> Steps:
    return np.square(x.astype(np.float64))


def _window_median(x: Float[np.ndarray, " t"]) -> Steps:
    return median_distance(x, 2 * PATCH)


def read_all(folder: Path) -> Any:
    """All series as one data set, not cut into windows."""
    return series.Config(path=str(folder / "all.parquet"), time="none", entity="series", window=0).open()


def _series_areas(folder: Path, scores: Mapping[str, Steps]) -> list[float]:
    """The area for every series that has labelled steps after its first part."""
    with np.load(folder / "labels.npz") as labels:
        after = {name: (round(TRAINING_SHARE * len(s)), labels[name]) for name, s in scores.items()}
    return [roc_area(scores[name][cut:], kinds[cut:]) for name, (cut, kinds) in after.items() if kinds[cut:].any()]


OURS, FORWARD = "NAB · BiJEPA", "NAB · forward alone"
CLAIMS: Final = (
    Numbers((OURS, FORWARD), (AUC, AUC + AVERAGED_SUFFIX, CAUSAL), words=f"Areas under the curve, {INTERVALS_NOTE}"),
    Numbers(
        (OURS,), (*BASELINES, *(name + AVERAGED_SUFFIX for name in BASELINES)), words=f"Baselines, {INTERVALS_NOTE}"
    ),
    Better(OURS, OURS, AUC, MEDIAN),
    *(Better(OURS, OURS, AUC + AVERAGED_SUFFIX, name + AVERAGED_SUFFIX) for name in BASELINES),
    *(Better(OURS, FORWARD, metric) for metric in (AUC, AUC + AVERAGED_SUFFIX, CAUSAL)),
)
STUDY = Study(
    title="Anomalies by latent prediction",
    source="no published table; series and labelled windows: NAB, Lavin & Ahmad 2015, arXiv:1510.03336",
    claim=(
        "What a model of the first 15 % of a series cannot predict later, in latent space, is an anomaly more often "
        "than what lies far from the values before."
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
