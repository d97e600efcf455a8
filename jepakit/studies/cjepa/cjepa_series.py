"""Study: I-JEPA, C-JEPA and BiJEPA classify series, beside the nearest training series by Euclidean distance and DTW.

The data are seven sets of the UCR and UEA archives with 36 to 270 training series; ECG5000 has no test part here. Every
series is resampled to an even length, the same within a set. All methods have the same encoder, which sees either half
of a series: with so few series, a perceptron did better than transformers. I-JEPA and C-JEPA hide one half as BiJEPA
does, but have a single predictor, which knows the hidden half; C-JEPA's terms compare context and target.

Settings were chosen on training parts alone, by a linear classifier on five folds, three times (GunPoint and ArrowHead,
one seed; raw values .87 and .83). Transformers of 25 patches with 300 steps reached .87 to .91 and .66 to .81 by the
mean of their tokens or all tokens side by side (untrained .89 and .70 to .83). Two halves and a perceptron of width 64
reached .89 to .90 and .82 to .84, of width 256 .94 to .95 and .84; crops and noise lowered that. The linear probe's
settings were chosen in the same way: both tokens side by side, and an l2 of .01, because a fifth of 36 series is too
little to choose it on (GunPoint: .94 to .95 with .01, .87 to .89 with 1). DTW has a band of 10 %, not tuned.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Float

from ...core import files
from ...data.series import settings as series
from ...masks.halves import Halves
from ...methods import bijepa, cjepa, ijepa
from ...nn import MLP
from ...nn.mlp import Perceptron
from ...recipes.series import series_classes
from ...run import parse
from ...run.settings import Loop
from ..cells import Mean
from ..claims import AtLeast, Better, Statement
from ..study import Arm, Scores, Study, require_data
from .nearest import classify_nearest

UCR_ARCHIVE: Final = "timeseries/ucr_uea.npz"
SERIES_LENGTHS: Final = {
    "GunPoint": 150,
    "ArrowHead": 252,
    "ItalyPowerDemand": 24,
    "OSULeaf": 428,
    "ECG200": 96,
    "BasicMotions": 100,
    "JapaneseVowels": 30,
}
BAND = 0.1
LINEAR, NEAREST = "linear accuracy", {"euclidean": "1-NN Euclidean accuracy", "dtw": "1-NN DTW accuracy"}
GUNPOINT_GOAL: Final = 0.95  # of GunPoint


def unpack_sets(data: Path, out: Path) -> Path:
    """Write each set, resampled to one length, into the study's own folder, and return the folder."""
    folder, source = out / "data", require_data("cjepa-series", data, UCR_ARCHIVE)
    with np.load(source) as archive:
        for name, length in SERIES_LENGTHS.items():
            classes = np.unique(archive[f"{name}_y_train"])
            for part in ("train", "test"):
                path = folder / f"{name}_{part}.npz"
                if not path.exists():
                    x = stretch_series(archive[f"{name}_X_{part}"], length)
                    # Classes are numbered, so that a number means the same class in both parts.
                    y = np.searchsorted(classes, archive[f"{name}_y_{part}"])
                    with files.replace_file(path) as beside, beside.open("wb") as file:
                        np.savez(file, x=x, y=y)
    return folder


def stretch_series(x: Float[np.ndarray, "n c _"], length: int) -> Float[np.ndarray, "n c {length}"]:
    """Every series resampled to one length by linear interpolation; NaN at the end of a series is padding."""
    found = []
    for one in x:
        steps = int(np.flatnonzero(~np.isnan(one).all(0))[-1]) + 1
        at = np.linspace(0, steps - 1, length)
        found.append([np.interp(at, np.arange(steps), channel[:steps]) for channel in one])
    return np.array(found, dtype=np.float32)


def method_settings(patch: int) -> dict[str, Any]:
    """The settings of the three methods, which have the same encoder; C-JEPA's are the recipe's `series-classes`."""
    recipe = cast(cjepa.Config, series_classes().method)
    own = replace(recipe, encoder=replace(cast(MLP, recipe.encoder), patch=(patch,)))
    return {
        "I-JEPA": ijepa.Config(own.encoder, own.predictor, masks=own.masks, ema=own.ema),
        "C-JEPA": own,
        "BiJEPA": bijepa.Config(own.encoder, Perceptron(hidden=128), masks=(Halves(),), ema=own.ema),
    }


def arms() -> tuple[Arm, ...]:
    """Every method on every set."""
    found, recipe = [], series_classes()
    for data, length in SERIES_LENGTHS.items():
        for name, method in method_settings(length // 2).items():
            run = replace(
                recipe,
                method=method,
                data=series.Config(path=f"{data}_train.npz", window=0, layout="NCT"),
                loop=Loop(workers=0, log_every=100, save_every=recipe.length.steps),
            )
            found.append(Arm(data, name, run, f"{data}_test.npz"))
    return tuple(found)


def nearest_accuracies(run: Path) -> dict[str, float]:
    """The accuracies of the nearest-neighbour classifiers on a run's data set, cached beside the run."""
    train = Path(parse.from_yaml(run / "config.yaml").data.path)
    return _kept_accuracies(train)


@cache
def _kept_accuracies(train: Path) -> dict[str, float]:
    kept = train.with_name(train.name.replace("_train.npz", "_nearest.json"))
    if not kept.exists():
        (x, y), (held, labels) = (
            _read_set(path) for path in (train, train.with_name(kept.name.replace("_nearest.json", "_test.npz")))
        )
        mean, std = x.mean((0, 2), keepdims=True), x.std((0, 2), keepdims=True)
        x, held, (classes, codes) = (x - mean) / std, (held - mean) / std, np.unique(y, return_inverse=True)
        guessed = {metric: classes[classify_nearest(x, codes, held, way, BAND)] for way, metric in NEAREST.items()}  # type: ignore[arg-type]
        files.write_json(kept, {metric: float((found == labels).mean()) for metric, found in guessed.items()})
    numbers: dict[str, float] = json.loads(kept.read_text())
    return numbers


def _read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["x"].astype(np.float64), file["y"]


def claims() -> Iterator[Statement]:
    """Claims on means over the sets beside those of the nearest neighbours, on GunPoint, and on each set."""
    for name in method_settings(1):
        mean = Mean(
            f"{name}, mean over {len(SERIES_LENGTHS)} sets", tuple(f"{data} · {name}" for data in SERIES_LENGTHS)
        )
        yield from (Better(mean, mean, LINEAR, metric) for metric in NEAREST.values())
        yield AtLeast((f"GunPoint · {name}",), LINEAR, GUNPOINT_GOAL)


def conclusions(scores: Scores) -> list[str]:
    """Sentences that list, for every method, the sets on which it beats both nearest-neighbour classifiers."""
    found = []
    for name in method_settings(1):
        ahead = [
            data
            for data in SERIES_LENGTHS
            if all(
                scores.mean(f"{data} · {name}", LINEAR) > scores.mean(f"{data} · {name}", metric)
                for metric in NEAREST.values()
            )
        ]
        found.append(f"{name} is ahead of both neighbours on {len(ahead)} sets: {', '.join(ahead) or 'none'}.")
    return found


STUDY = Study(
    title="Labels of series",
    source="no published table; sets: the UCR and UEA archives, arXiv:1810.07758 and arXiv:1811.00075",
    claim=(
        "A linear classifier on representations trained on a few dozen series, without their labels, recognises "
        "classes at least as well as the nearest training series does, by Euclidean distance and by dynamic time "
        "warping."
    ),
    arms=arms(),
    claims=tuple(claims()),
    conclusions=conclusions,
    options=series_classes().evals.probe_settings,
    encoders=("target", "context"),
    run_metrics=nearest_accuracies,
    prepare=unpack_sets,
)
