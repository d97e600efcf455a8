"""Study: R-JEPA as a model of a cortical circuit: integration time, surprise, adaptation and sparseness.

The study compares the circuit of `rjepa-gaze` with the same circuit without a past, and with itself before training,
whose row shows what was learned. It is trained on human scanpaths (OSIE), or, if that set is missing, on generated ones
over digits. All measures (`cortex.py`, which also states their limits) use held-out pictures:

- τ: of the autocorrelation of units on independently drawn fixations, so that only the circuit provides memory; and of
  the remaining effect, in unchanged scanpaths, of one exchanged fixation
- surprise: the prediction error at a fixation from another picture, over the error at the original fixation. Fixations
  are exchanged one for one, so they stay equally typical. `over same picture` is the ratio to the error at a fixation
  of another viewer in the same picture, which separates the picture's effect from that of a broken order
- adaptation: one fixation is repeated, then the next one follows; its `release` is relative to its response without
  the repeats
- sparseness: of |h − mean| after a number of fixations, beside the encoder's features
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
from jaxtyping import Float64

from ...data.scanpaths import settings
from ...data.scanpaths.dataset import Scanpaths
from ...methods.rjepa import RJEPA
from ...reporting.figures import Figure
from ...run import checkpoint
from ...run.optim import Optim
from ...run.settings import Run
from ...types import Rng
from ..study import Arm, Study
from . import cortex, cortex_figures, cortex_trials, standin
from .cortex_claims import INTERVAL_SUFFIXES, QUARTILE_SUFFIXES, claims, conclusions
from .cortex_trials import AT, OTHER, OWN, SAME, TRIAL_PARTS, HeldScanpaths, Swap
from .rjepa_gaze import OSIE_FILE, find_arm
from .rjepa_states import encode_fixations, record_circuit

BY, LAGS, BURN = 7, 8, 10
STUDY_RNG: Final = Rng(0).fork("study", "rjepa-cortex")


class RunNumbers(NamedTuple):
    """The rows of a run, and the curves of its figures."""

    rows: Mapping[str, float]
    curves: Mapping[str, Float64[np.ndarray, "_ ..."]]


def held_out(method: RJEPA, data: Scanpaths) -> HeldScanpaths:
    """The inputs of all measures: held-out scanpaths whose labels are pictures."""
    ids = np.arange(len(data))
    picture = np.array([data.label(int(i)) for i in ids])
    return HeldScanpaths(*encode_fixations(method, data, ids), data.lengths.clip(max=data.steps), picture)


def quartile_rows(name: str, curves: Sequence[np.ndarray]) -> dict[str, float]:
    """The quartiles over units of each level's time constants; several levels are numbered from the bottom."""
    found: dict[str, float] = {}
    for k, curve in enumerate(curves, 1):
        tau = cortex.time_constant(curve)
        known = tau[np.isfinite(tau)] if np.isfinite(tau).any() else np.zeros(1)
        level = f", level {k}" if len(curves) > 1 else ""
        values = np.quantile(known, (0.5, 0.25, 0.75))
        found |= {f"{name}{level}{part}": float(v) for part, v in zip(QUARTILE_SUFFIXES, values, strict=True)}
    return found


def measure_integration(method: RJEPA, held: HeldScanpaths, swapped: Swap) -> RunNumbers:
    """Time constants by autocorrelation and by a swap."""
    free = [h[BURN:] for h in cortex_trials.draw_independent(method, held, STUDY_RNG.fork("drawn")).levels]
    kept = [cortex.unit_autocorrelation(h, LAGS) for h in free]
    whole = np.flatnonzero(swapped.part.length >= len(swapped.part.y))
    own, other = ([h[AT - 1 :, whole] for h in swapped.states[name].levels] for name in (OWN, OTHER))
    left = [cortex.remaining_difference(a, b) for a, b in zip(own, other, strict=True)]
    together = cortex.remaining_norm(own[-1], other[-1])
    rows = quartile_rows("time constant, independent", kept) | quartile_rows("time constant, swap", left)
    rows["time constant, swap, all units"] = float(cortex.time_constant(together)[0])
    return RunNumbers(rows, {"kept": kept[-1], "left": left[-1]})


def measure_surprise(swapped: Swap) -> RunNumbers:
    """The effect of another picture's fixation on error, change and gate."""
    errors = {name: swapped.errors(name) for name in TRIAL_PARTS}
    now: dict[str, dict[str, np.ndarray]] = {"surprise": {name: each[AT - 2] for name, each in errors.items()}}
    now["change"] = {name: cortex_trials.state_change(found.h)[AT - 2] for name, found in swapped.states.items()}
    now["gate"] = {name: found.gate[AT - 1].mean(1) for name, found in swapped.states.items()}
    rows = {f"error, {name}": float(each.mean()) for name, each in now["surprise"].items()}
    for what, control, words in (
        ("surprise", OWN, "surprise"),
        ("surprise", SAME, "surprise over same picture"),
        ("change", OWN, "change where surprised"),
        ("gate", OWN, "gate where surprised"),
    ):
        each = now[what]
        got = cortex.paired_effect(each[OTHER], each[control], swapped.part.picture, STUDY_RNG.fork("resampled"))
        kept = got if what == "surprise" else got[:1]
        rows |= {f"{words}{part}": value for part, value in zip(INTERVAL_SUFFIXES, kept, strict=False)}
    real = swapped.part.real[1:]
    curves = {f"error, {name}": (each * real).sum(1) / real.sum(1) for name, each in errors.items()}
    return RunNumbers(rows, curves)


def measure_adaptation(method: RJEPA, held: HeldScanpaths) -> RunNumbers:
    """The adaptation of change, error and response to repeats, and the response to the next fixation."""
    rows, curves = {}, cortex_trials.repeat_fixation(method, held)
    for name, (*repeats, new, plain) in curves.items():
        rows[f"adaptation of the {name}"] = cortex.adaptation_index(np.array(repeats))
        rows[f"release of the {name}"] = float(new / max(plain, 1e-12))
    return RunNumbers(rows, {f"repeats, {name}": curve[:-1] for name, curve in curves.items()})


def measure_sparseness(method: RJEPA, held: HeldScanpaths) -> RunNumbers:
    """The sparseness of the states after a number of fixations, and of the features at the last of them."""
    part = held.select(np.flatnonzero(held.length >= BY))
    h = record_circuit(method, part.y, part.action).h[BY - 1]
    rows, curves = {}, {}
    for words, values in (("", h), (" of the features", part.y[BY - 1].flatten(1).numpy())):
        z = cortex.standardise_units(values)
        curves[f"lifetime{words}"] = cortex.response_sparseness(np.abs(z).T)
        rows[f"lifetime sparseness{words}"] = float(np.median(curves[f"lifetime{words}"]))
        rows[f"population sparseness{words}"] = float(cortex.response_sparseness(np.abs(z)).mean())
        rows[f"kurtosis{words}"] = float(np.median(cortex.excess_kurtosis(z)))
    return RunNumbers(rows, curves)


@cache
def measure_run(folder: Path) -> RunNumbers:
    """All rows and curves of a finished run."""
    loaded = checkpoint.load_run(folder)
    method, cfg = cast(RJEPA, loaded.method.eval()), cast(settings.Config, loaded.run.data)
    data = replace(cfg, split="test", label="image").open()
    held = held_out(method, data)
    swapped = cortex_trials.swap_fixation(method, held, STUDY_RNG.fork("partner"))
    parts = (
        measure_integration(method, held, swapped),
        measure_surprise(swapped),
        measure_adaptation(method, held),
        measure_sparseness(method, held),
    )
    rows: dict[str, float] = {"fixations of people": float(not standin.is_made_up(data))}
    curves: dict[str, Any] = {}
    for part in parts:
        rows |= part.rows
        curves |= part.curves
    return RunNumbers(rows, curves)


def run_measures(folder: Path) -> Mapping[str, float]:
    """The rows of a finished run."""
    return measure_run(folder).rows


def draw_figures(folders: Mapping[str, Path]) -> Sequence[tuple[str, Figure]]:
    """The curves of the first seed's runs."""
    return cortex_figures.draw_curves(
        {label.partition(" · ")[2]: measure_run(f).curves for label, f in folders.items()}
    )


def untrained_run(run: Run) -> Run:
    """A training that leaves the circuit at its initial weights: one step at a learning rate of 0."""
    still = Optim(lr=0.0, start_lr=0.0, final_lr=0.0, weight_decay=0.0, final_weight_decay=0.0)
    return replace(run, optim=still, length=replace(run.length, steps=1))


STUDY = Study(
    title="R-JEPA beside properties of cortex",
    source="Model: Velarde & Parra 2024, arXiv:2411.16695; measures: see cortex.py; no published figures",
    claim="A circuit trained to predict its next state integrates, is surprised, adapts and is sparse; others less.",
    arms=(
        Arm("fixations", "gated", find_arm("human").run, OSIE_FILE),
        Arm("fixations", "memoryless", find_arm("memoryless").run, OSIE_FILE),
        Arm("fixations", "untrained", untrained_run(find_arm("human").run), OSIE_FILE),
    ),
    claims=claims(),
    conclusions=conclusions,
    kinds=(),
    run_metrics=run_measures,
    figures=draw_figures,
    prepare=standin.find_scanpaths,
    has_standin=True,
)
