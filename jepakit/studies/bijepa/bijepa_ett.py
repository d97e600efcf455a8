"""Forecasts of a transformer's temperature and loads, ETTh1: classic and BiJEPA, beside linear autoregression.

The split in time that is usual for this set: 12 months to train on, 4 left for choosing settings, 4 to test on, all in
the units of the training months. A window is two weeks of past and two of future (7 variables, hourly); every hour
begins one, so 2,545 windows are tested, whatever the horizon. The encoder, a vision transformer of days, sees the past
alone; a ridge reads the future's values from it (A) or from its prediction of the future's representation (B). The mean
square is over all steps up to the horizon, as published ones are. Linear models are the same ridge on the values of the
past: of all channels, and of one channel less its last value, to the same one, with weights that all share (the form of
Zeng et al. 2022, arXiv:2205.13504, which is hard to beat on this set).

Settings were chosen on the months for it, by one seed each: patches of 12, 24 and 48 hours, widths of 32 to 128, 100 to
1000 steps, between which the errors hardly differ (B is best with days).
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from ...core import files
from ...data.series import settings as series
from ...evals.metrics.readers import chosen
from ...methods import bijepa
from ...nn import ViT
from ...nn.predictor import Predictor
from ...run import parse
from ...run.optim import Optim
from ...run.settings import Length, Loop, Run
from ..study import Arm, Scores, Study

FILE: Final = "timeseries/ETTh1.csv"
MONTH, HALF, PATCH = 720, 336, 24
# First and last row of every part; what is tested begins after two weeks of past.
PARTS: Final[Mapping[str, tuple[int, int]]] = {
    "train": (0, 12 * MONTH),
    "choose": (12 * MONTH - HALF, 16 * MONTH),
    "test": (16 * MONTH - HALF, 20 * MONTH),
}
HORIZONS: Final = (24, 96, 336)
STEPS, BATCH = 1000, 64
WAYS: Final[Mapping[str, float]] = {"classic": 1.0, "bijepa": 0.5}
LINEAR, CHANNEL, STILL = "linear, all channels", "linear, per channel", "last value"


def prepared(data: Path, out: Path) -> Path:
    """The parts as tables of their own, in the study's own folder."""
    source, folder = data / FILE, out / "data"
    if not source.exists():
        raise ValueError(f"study bijepa-ett reads {FILE}, which {data} does not hold; give --data the folder that does")
    header, *rows = source.read_text().splitlines()
    for name, (first, last) in PARTS.items():
        path = folder / f"{name}.csv"
        if not path.exists():
            files.write_text(path, "\n".join([header, *rows[first:last], ""]))
    return folder


def arms() -> tuple[Arm, ...]:
    """Forward alone, and both ways."""
    return tuple(Arm("ETTh1", name, training(alpha), "test.csv") for name, alpha in WAYS.items())


def training(alpha: float) -> Run:
    """The training of one of WAYS."""
    return Run(
        method=bijepa.Config(
            encoder=ViT((PATCH,), width=64, depth=2, heads=4, mlp_ratio=2.0, init="xavier"),
            predictor=Predictor(width=32, depth=2, heads=2, mlp_ratio=2.0, init="xavier"),
            alpha=alpha,
        ),
        data=series.Config(path="train.csv", window=2 * HALF, stride=1),
        optim=Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=0.04, final_weight_decay=0.1),
        length=Length(steps=STEPS, batch=BATCH),
        loop=Loop(workers=0, log_every=100, save_every=STEPS),
    )


def extra(run: Path) -> dict[str, float]:
    """The errors of a run's forecasts up to every horizon, and those of what needs no training."""
    found = {}
    for path in sorted((run / "evals").glob("forecast-*.json")):
        result = json.loads(path.read_text())
        found[metric(*path.stem.removeprefix("forecast-").split("-"))] = float(result["notes"]["path"])
    return found | _beside(Path(parse.from_yaml(run / "config.yaml").data.path))


def metric(what: str, horizon: object) -> str:
    """The name of an error in the table."""
    return f"{what}, MSE to {horizon}"


@cache
def _beside(train: Path) -> dict[str, float]:
    kept = train.with_name("beside.json")
    if not kept.exists():
        files.write_json(kept, dict(linear(*(table(train.with_name(f"{n}.csv")) for n in ("train", "test")))))
    numbers: dict[str, float] = json.loads(kept.read_text())
    return numbers


def table(path: Path) -> Float[np.ndarray, "t c"]:
    """The values of a part."""
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8))


def linear(train: Float[np.ndarray, "t c"], test: Float[np.ndarray, "s c"]) -> Iterator[tuple[str, float]]:
    """The errors of linear autoregression, and of the last value held, up to every horizon."""
    mean, std = train.mean(0), train.std(0)
    (x, y), (new, truth) = (cut((part - mean) / std) for part in (train, test))
    held = np.arange(len(x)) >= len(x) - len(x) // 5
    reader, _ = chosen(x.reshape(len(x), -1), y, held)
    own, _ = chosen(rows(x, x), rows(y, x)[:, None], np.repeat(held, x.shape[1]))
    guesses = {
        LINEAR: reader(new.reshape(len(new), -1)).reshape(truth.shape),
        CHANNEL: new[..., -1:] + own(rows(new, new)).reshape(truth.shape),
        STILL: new[..., -1:],
    }
    for name, guess in guesses.items():
        error = np.square(guess - truth).mean((0, 1))
        for h in HORIZONS:
            yield metric(name, h), float(error[:h].mean())


def rows(values: Float[np.ndarray, "n c k"], past: Float[np.ndarray, "n c half"]) -> Float[np.ndarray, "nc k"]:
    """Every channel by itself, less the last value of its past."""
    found: np.ndarray = (values - past[..., -1:]).reshape(-1, values.shape[2])
    return found


def cut(values: Float[np.ndarray, "t c"]) -> tuple[Float[np.ndarray, "n c half"], Float[np.ndarray, "n c half"]]:
    """Past and future of every window."""
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * HALF, axis=0)
    return windows[..., :HALF], windows[..., HALF:]


def says(scores: Scores) -> list[str]:
    """At every horizon, what both ways gain, and whether either is ahead of what needs no training."""
    first, second = scores.arms
    found = []
    for h in HORIZONS:
        for way in ("A", "B"):
            # Errors: lower is better.
            gain = scores.gain(second, first, metric(way, h))
            word = {None: "one seed tells no spread", True: "beyond the seeds' scatter", False: "within it"}
            told = ", ".join(f"{arm.name} {_error(scores, arm, metric(way, h))}" for arm in scores.arms)
            better = "lower" if gain.mean > 0 else "higher"
            found.append(
                f"Up to {h} hours, {way}: {told}; BiJEPA's error is {abs(gain.mean):.3f} {better}, "
                f"{word[gain.beyond_spread]}."
            )
        rivals = {name: fmean(scores.values[first.label, metric(name, h)]) for name in (LINEAR, CHANNEL, STILL)}
        best = min(fmean(scores.values[arm.label, metric(way, h)]) for arm in scores.arms for way in ("A", "B"))
        ahead = [name for name, value in rivals.items() if best < value]
        told = "; ".join(f"{name} {value:.3f}" for name, value in rivals.items())
        found.append(f"Up to {h} hours beside them: {told}. The best of the four is ahead of {_and(ahead)}.")
    return found


def _error(scores: Scores, arm: Arm, name: str) -> str:
    values = scores.values[arm.label, name]
    return f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _and(names: list[Any]) -> str:
    return "; ".join(names) or "none of them"


STUDY = Study(
    title="Forecasts of ETTh1",
    source="no published figure for BiJEPA (arXiv:2603.00049); the set: Zhou et al. 2021, arXiv:2012.07436",
    claim="Predicting both ways gives representations of the past from which the future is forecast better.",
    arms=arms(),
    says=says,
    kinds=("forecast",),
    options={"forecast.horizons": HORIZONS},
    extra=extra,
    prepare=prepared,
)
