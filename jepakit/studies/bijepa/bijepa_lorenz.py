"""The Lorenz system: BiJEPA beside the JEPA of one direction, on the paper's second experiment.

See `studies/series_forms.py` for what is trained and read. Beside it, every method goes on by itself in latent space:
from the past half of a window each prediction is the start of the next, and a ridge reads the states from it. Such a
path cannot follow the true one for long; what it can have is its distribution along each axis, and its largest Lyapunov
exponent, here of paths of 8 units of time by 180 steps of their neighbours.

The map of growing norms has trainings of a third of the length. Our own settings were chosen among four on other
seeds: no LayerNorms, and a learning rate that falls to a thousandth on a cosine.
"""

from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import torch
from jaxtyping import Float64

from ...data.series import generated
from ...evals.metrics.readers import chosen
from ...evals.windows import past_and_future, steps_seen
from ...methods.bijepa import BiJEPA
from ..study import Own, Scores, Study
from . import series_forms as forms
from .dynamics import axis_distances, decoded, lyapunov, unrolled
from .series_figures import figures, phase
from .series_map import mapped, table
from .series_says import says as common
from .series_says import told

PATHS, BLOCKS = 20, 40
FIT: Final = (20, 200)
APART: Final = 75  # about one turn
SAMPLE: Final = 1500
SYSTEM: Final = "the system itself"
Paths = Float64[np.ndarray, "n 3 t"]


def paths(method: BiJEPA, seed: int) -> tuple[Paths, Paths]:
    """Paths unrolled in latent space, and the true ones from the same starts, at the model's normalisation."""
    cut, probe = steps_seen(method), forms.drawn(TASK, 1000 + seed)
    x, _ = probe.whole(np.arange(len(probe), dtype=np.int64), method.signal.size)
    target = method.expected(x, past_and_future(method, len(x))).flatten(1).numpy()
    last = np.arange(len(x)) >= 0.8 * len(x)
    reader, _ = chosen(target, method.normalize(x).numpy()[..., cut:], last)
    states = torch.from_numpy(true(seed, cut * (1 + BLOCKS))).float()
    path = decoded(reader, unrolled(method, states[..., : 2 * cut], BLOCKS), 3)
    return path, method.normalize(states).numpy().astype(np.float64)[..., cut:]


def true(seed: int, length: int) -> Paths:
    """Paths of the system, in its own units."""
    return generated.generate(replace(TASK.data, length=length, seed=4000 + seed), np.arange(PATHS, dtype=np.int64))


def compared(path: Paths, other: Paths) -> dict[str, float]:
    """The statistics of a path, beside those of another."""
    a, b = (p.transpose(0, 2, 1).reshape(-1, 3) for p in (path, other))
    return {
        "axis distance": float((axis_distances(a, b) / b.std(0)).mean()),
        "Lyapunov exponent": lyapunov(path.transpose(0, 2, 1), TASK.data.dt, APART, FIT, SAMPLE),
    }


def further(method: BiJEPA, seed: int) -> dict[str, float]:
    """How the unrolled paths compare with the true ones: after a window, after five, and as a whole."""
    path, truth = paths(method, seed)
    cut = steps_seen(method)
    errors = {
        f"unrolled MSE, {k} {'window' if k == 1 else 'windows'}": float(
            ((path - truth)[..., cut * (k - 1) : cut * k] ** 2).mean()
        )
        for k in (1, 5)
    }
    return errors | compared(path, truth)


def beside(seed: int) -> dict[str, dict[str, float]]:
    """The same statistics of the system, against other paths of its own."""
    length = TASK.patch * BLOCKS
    return {SYSTEM: compared(true(seed, length), true(seed + 500, length))}


def portrait(method: BiJEPA, seed: int) -> dict[str, list[list[float]]]:
    """One unrolled path and the true one, (3, T)."""
    path, truth = paths(method, seed)
    return {"unrolled": np.round(path[0], 4).tolist(), "truth": np.round(truth[0], 4).tolist()}


def says(scores: Scores) -> list[str]:
    """What holds of the paper's claims, and what the unrolled paths keep of the system."""
    found = [
        f"{name}: largest Lyapunov exponent {told(scores, name, 'Lyapunov exponent')}, distance along the axes "
        f"{told(scores, name, 'axis distance')} deviations"
        for name in ("bijepa", "classic", SYSTEM)
    ]
    return [*common(scores), "Unrolled in latent space, " + "; ".join(found) + "."]


TASK: Final = forms.Task(
    data=generated.Config("lorenz", count=2000),
    steps=3000,
    patch=20,
    width=32,
    hidden=128,
    lr=5e-4,
    probe_steps=200,
    fresh=False,
    pooled=True,
    shifts={"rho 24": {"rho": 24.0}, "rho 32": {"rho": 32.0}, "noise 0.5": {"noise": 0.5}},
    ours=forms.Form(norm=False, end=1e-3),
    further=further,
    beside=beside,
    portrait=portrait,
    map_steps=1000,  # At full length the map alone would take a third of the study's time.
)
PAPER: Final = {"classic": (0.0006, 0.0224, 0.0937), "bijepa": (0.0007, 0.0172, 0.0249)}
STUDY = Study(
    title="BiJEPA on the Lorenz system",
    source="Huang 2026, arXiv:2603.00049, experiment 2, table 1 and figure 3 (one seed)",
    claim=(
        "To predict the past from the future as well makes predictions of the future worth more: the error of a linear "
        "probe on them falls from 0.0937 to 0.0249, at about the same loss."
    ),
    arms=(),
    says=says,
    kinds=(),
    own=Own(partial(forms.take, TASK, mapped), table, partial(figures, phase=phase), forms.published(PAPER), 2),
    seeds=5,
)
