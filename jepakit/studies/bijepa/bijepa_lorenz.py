"""Study: BiJEPA and the one-directional JEPA forecast the Lorenz system, the paper's second experiment.

`series_forms.py` defines trainings and measurements. In addition, every method is unrolled in latent space: starting at
the past half of a window, each prediction is the input of the next, and a ridge reads the states from it. Such a path
cannot follow the true one for long, but it can have the same distribution along each axis and the same largest Lyapunov
exponent, estimated here from paths of 8 time units over 180 steps of neighbouring points.

The trainings for the map of growing norms have a third of the length. Our own settings were chosen from four on other
seeds: no LayerNorms, and a learning rate that falls to a thousandth along a cosine.
"""

from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import torch
from jaxtyping import Float64

from ...data.series import generated
from ...evals.metrics.readers import choose_reader
from ...evals.windows import past_and_future, steps_seen
from ...methods.bijepa import BiJEPA
from ..claims import Numbers
from ..study import Own, Study
from . import series_forms as forms
from .dynamics import axis_distances, decode_path, lyapunov_exponent, unroll_blocks
from .series_claims import conclusions, series_claims
from .series_figures import draw_figures, draw_phase
from .series_map import map_norms, tabulate

PATHS, BLOCKS = 20, 40
FIT_STEPS: Final = (20, 200)
MIN_STEPS_APART: Final = 75  # about one turn
SAMPLE_SIZE: Final = 1500
SYSTEM_ROW: Final = "the system itself"
Paths = Float64[np.ndarray, "n 3 t"]


def unroll_paths(method: BiJEPA, seed: int) -> tuple[Paths, Paths]:
    """Unrolled paths and the true ones from the same starts, both (PATHS, 3, T), in the model's normalisation."""
    cut, probe = steps_seen(method), forms.probe_set(TASK, 1000 + seed)
    x, _ = probe.whole(np.arange(len(probe), dtype=np.int64), method.signal.size)
    target = method.expected(x, past_and_future(method, len(x))).flatten(1).numpy()
    last = np.arange(len(x)) >= 0.8 * len(x)
    reader, _ = choose_reader(target, method.normalize(x).numpy()[..., cut:], last)
    states = torch.from_numpy(true_paths(seed, cut * (1 + BLOCKS))).float()
    path = decode_path(reader, unroll_blocks(method, states[..., : 2 * cut], BLOCKS), 3)
    return path, method.normalize(states).numpy().astype(np.float64)[..., cut:]


def true_paths(seed: int, length: int) -> Paths:
    """Paths of the system (PATHS, 3, `length`) in its own units."""
    return generated.generate_series(
        replace(TASK.data, length=length, seed=4000 + seed), np.arange(PATHS, dtype=np.int64)
    )


def path_statistics(path: Paths, other: Paths) -> dict[str, float]:
    """The distance between the distribution of paths and that of others, and the largest Lyapunov exponent."""
    a, b = (p.transpose(0, 2, 1).reshape(-1, 3) for p in (path, other))
    return {
        "axis distance": float((axis_distances(a, b) / b.std(0)).mean()),
        "Lyapunov exponent": lyapunov_exponent(
            path.transpose(0, 2, 1), TASK.data.dt, MIN_STEPS_APART, FIT_STEPS, SAMPLE_SIZE
        ),
    }


def unrolled_scores(method: BiJEPA, seed: int) -> dict[str, float]:
    """Unrolled paths compared with the true ones: errors in the first and in the fifth window, and statistics."""
    path, truth = unroll_paths(method, seed)
    cut = steps_seen(method)
    errors = {
        f"unrolled MSE, {k} {'window' if k == 1 else 'windows'}": float(
            ((path - truth)[..., cut * (k - 1) : cut * k] ** 2).mean()
        )
        for k in (1, 5)
    }
    return errors | path_statistics(path, truth)


def system_rows(seed: int) -> dict[str, dict[str, float]]:
    """The row of the system itself: its statistics against other paths of the same system."""
    length = TASK.patch * BLOCKS
    return {SYSTEM_ROW: path_statistics(true_paths(seed, length), true_paths(seed + 500, length))}


def phase_paths(method: BiJEPA, seed: int) -> dict[str, list[list[float]]]:
    """One unrolled path and the true one, (3, T)."""
    path, truth = unroll_paths(method, seed)
    return {"unrolled": np.round(path[0], 4).tolist(), "truth": np.round(truth[0], 4).tolist()}


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
    further=unrolled_scores,
    beside=system_rows,
    portrait=phase_paths,
    map_steps=1000,  # At full length the map alone would take a third of the study's time.
)
PAPER_ERRORS: Final = {"classic": (0.0006, 0.0224, 0.0937), "bijepa": (0.0007, 0.0172, 0.0249)}
UNROLLED_NUMBERS: Final = Numbers(
    ("bijepa", "classic", SYSTEM_ROW),
    ("Lyapunov exponent", "axis distance"),
    words="Unrolled in latent space (the largest exponent; the distance in deviations)",
)
STUDY = Study(
    title="BiJEPA on the Lorenz system",
    source="Huang 2026, arXiv:2603.00049, experiment 2, table 1 and figure 3 (one seed)",
    claim=(
        "Also predicting the past from the future makes predictions of the future more useful: the error of a linear "
        "probe on them falls from 0.0937 to 0.0249, at about the same loss."
    ),
    arms=(),
    claims=(*series_claims(TASK.shifts), UNROLLED_NUMBERS),
    conclusions=conclusions,
    kinds=(),
    own=Own(
        partial(forms.measure_seeds, TASK, map_norms),
        tabulate,
        partial(draw_figures, phase=draw_phase),
        forms.paper_figures(PAPER_ERRORS),
        version=2,
    ),
    seeds=5,
)
