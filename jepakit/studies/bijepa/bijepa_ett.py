"""Study: the classic JEPA and BiJEPA forecast a transformer's temperature and loads (ETTh1), beside linear models.

The split in time is the usual one: 12 months for training, 4 for choosing settings, 4 for testing, all in units of the
training months. A window has two weeks of past and two of future (7 variables, hourly). A window starts at every hour,
so 2,545 windows are tested, whatever the horizon. The encoder, a vision transformer with one patch per day, sees only
the past; a ridge reads the future values from its representation (A) or from the predicted representation of the future
(B). The mean square covers all steps up to the horizon, as in published results. The linear models are the same ridge
on past values: on all channels, or from each channel minus its last value to the same channel, with shared weights (the
form of Zeng et al. 2022, arXiv:2205.13504, which is hard to beat on this set).

Settings were chosen on the 4 months for it, with one seed each: patches of 12, 24 and 48 hours, widths of 32 to 128,
100 to 1000 steps. The errors hardly differ (B is best with one patch per day).
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float

from ...core import files
from ...data.series import settings as series
from ...evals.metrics.readers import choose_reader, fit_linear_changes
from ...methods import bijepa
from ...nn import ViT
from ...nn.predictor import Predictor
from ...run import parse
from ...run.optim import Optim
from ...run.settings import Length, Loop, Run
from ..cells import Mean
from ..claims import Better, Ranking, Statement
from ..study import Arm, Study, require_data

ETT_FILE: Final = "timeseries/ETTh1.csv"
MONTH, HALF, PATCH = 720, 336, 24
# First and last row of every part; test windows need two weeks of past before the first tested step.
PART_STEPS: Final[Mapping[str, tuple[int, int]]] = {
    "train": (0, 12 * MONTH),
    "choose": (12 * MONTH - HALF, 16 * MONTH),
    "test": (16 * MONTH - HALF, 20 * MONTH),
}
HORIZONS: Final = (24, 96, 336)
STEPS, BATCH = 1000, 64
FORWARD_WEIGHTS: Final[Mapping[str, float]] = {"classic": 1.0, "bijepa": 0.5}
LINEAR, CHANNEL, STILL = "linear, all channels", "linear, per channel", "last value"


def split_table(data: Path, out: Path) -> Path:
    """Write each part as a table into the study's own folder and return the folder."""
    source, folder = require_data("bijepa-ett", data, ETT_FILE), out / "data"
    header, *rows = source.read_text().splitlines()
    for name, (first, last) in PART_STEPS.items():
        path = folder / f"{name}.csv"
        if not path.exists():
            files.write_text(path, "\n".join([header, *rows[first:last], ""]))
    return folder


def arms() -> tuple[Arm, ...]:
    """The two trainings: forward only, and in both directions."""
    return tuple(Arm("ETTh1", name, training_run(alpha), "test.csv") for name, alpha in FORWARD_WEIGHTS.items())


def training_run(alpha: float) -> Run:
    """The training of one arm; `alpha` is its weight of the forward direction (FORWARD_WEIGHTS)."""
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


def forecast_errors(run: Path) -> dict[str, float]:
    """The errors, up to every horizon, of a run's forecasts and of the models that need no training."""
    found = {}
    for path in sorted((run / "evals").glob("forecast-*.json")):
        result = json.loads(path.read_text())
        found[metric_name(*path.stem.removeprefix("forecast-").split("-"))] = float(result["notes"]["path"])
    return found | _linear_errors(Path(parse.from_yaml(run / "config.yaml").data.path))


def metric_name(what: str, horizon: object) -> str:
    """The name of an error in the table."""
    return f"{what}, MSE to {horizon}"


@cache
def _linear_errors(train: Path) -> dict[str, float]:
    kept = train.with_name("beside.json")
    if not kept.exists():
        files.write_json(
            kept, dict(linear_forecasts(*(read_table(train.with_name(f"{n}.csv")) for n in ("train", "test"))))
        )
    numbers: dict[str, float] = json.loads(kept.read_text())
    return numbers


def read_table(path: Path) -> Float[np.ndarray, "t c"]:
    """The values of a part, (T, C)."""
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 8))


def linear_forecasts(train: Float[np.ndarray, "t c"], test: Float[np.ndarray, "s c"]) -> Iterator[tuple[str, float]]:
    """The errors, up to every horizon, of linear autoregression and of repeating the last value."""
    mean, std = train.mean(0), train.std(0)
    (x, y), (new, truth) = (split_windows((part - mean) / std) for part in (train, test))
    held = np.arange(len(x)) >= len(x) - len(x) // 5
    reader, _ = choose_reader(x.reshape(len(x), -1), y, held)
    own = fit_linear_changes(x, y, held)
    guesses = {
        LINEAR: reader(new.reshape(len(new), -1)).reshape(truth.shape),
        CHANNEL: own(new),
        STILL: new[..., -1:],
    }
    for name, guess in guesses.items():
        error = np.square(guess - truth).mean((0, 1))
        for h in HORIZONS:
            yield metric_name(name, h), float(error[:h].mean())


def split_windows(
    values: Float[np.ndarray, "t c"],
) -> tuple[Float[np.ndarray, "n c half"], Float[np.ndarray, "n c half"]]:
    """The past and the future half of every window."""
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * HALF, axis=0)
    return windows[..., :HALF], windows[..., HALF:]


def claims() -> Iterator[Statement]:
    """Claims, at every horizon, on the gain of predicting in both directions, and on errors versus linear models."""
    bijepa, classic = "ETTh1 · bijepa", "ETTh1 · classic"
    for h in HORIZONS:
        yield from (Better(bijepa, classic, metric_name(reader, h), lower=True) for reader in ("A", "B"))
        trained = [(row, metric_name(reader, h)) for row in (bijepa, classic) for reader in ("A", "B")]
        linear_rows = [(Mean("no encoder", (classic,)), metric_name(name, h)) for name in (LINEAR, CHANNEL, STILL)]
        yield Ranking((*trained, *linear_rows), lower=True, words=f"Up to {h} hours")


STUDY = Study(
    title="Forecasts of ETTh1",
    source="no published figure for BiJEPA (arXiv:2603.00049); the set: Zhou et al. 2021, arXiv:2012.07436",
    claim="Predicting in both directions gives representations of the past that forecast the future better.",
    arms=arms(),
    claims=tuple(claims()),
    kinds=("forecast",),
    options={"forecast.horizons": HORIZONS},
    run_metrics=forecast_errors,
    prepare=split_table,
)
