"""Study: which of the panel's label-free numbers correlates with the accuracy of a linear probe?

The study computes Spearman's rank correlation, over many trainings, between every number in the panel's last row and
the accuracy of a linear probe on held-out pictures. Both differ between data sets, so ranks are taken within each data
set, or, in the analysis within methods, within each data set and method. The trainings are those of the study
`calibration` and others with a different length or learning rate. It takes about ten minutes on one idle core.

Sources of similar comparisons: RankMe, arXiv:2210.02885; LiDAR, arXiv:2312.04000. They compare runs of one method.
"""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Final

from ...run import checkpoint
from ...types import Rng
from ..correlations import Correlation, best_number, bootstrap_correlation, gather_runs
from ..study import Arm, Scores, Study
from . import calibration, tiny
from .truth import held_out, pooled_tokens, probe_accuracy

METHOD_NAMES: Final = ("I-JEPA", "C-JEPA", "VICReg", "LeJEPA", "SimCLR", "MAE")
LONGER_STEPS: Final = 300
MIN_TRAININGS: Final = 20  # the least number of trainings in which a number was measured
LABEL_METRIC: Final = "linear accuracy"
PANEL_PREFIX: Final = "panel: "


def arms() -> tuple[Arm, ...]:
    """Every training of `calibration`, and trainings of twice the length or a tenth of the learning rate."""
    both = (calibration.FITTED_HALF, calibration.SCORED_HALF)
    known = [arm for half in both for arm in (*half.healthy, *half.forced_arms)]
    data = "Fashion-MNIST"
    longer = [
        Arm(
            data,
            name,
            tiny.training_run(tiny.small_method(name, data), data, LONGER_STEPS, seed=200),
            tiny.DATA_SETS[data][1],
            "longer",
        )
        for name in METHOD_NAMES
    ]
    slow = [
        calibration.make_arm(name, data, "learning rate x 0.1", 201, optim=calibration.scale_rate(0.1))
        for name in METHOD_NAMES
    ]
    return (*known, *longer, *slow)


def measure_run(run: Path) -> Mapping[str, float]:
    """The last row of the panel, and the accuracy of a linear probe on held-out pictures."""
    loaded = checkpoint.load_run(run)
    x, y = held_out(loaded)
    row = json.loads((run / "summary.json").read_text())["panel"]
    numbers = {
        f"{PANEL_PREFIX}{key}": float(v) for key, v in row.items() if isinstance(v, (int, float)) and isfinite(v)
    }
    return {LABEL_METRIC: probe_accuracy(pooled_tokens(run, loaded.step, loaded.method, x), y), **numbers}


def panel_correlations(scores: Scores, by_method: bool) -> dict[str, Correlation]:
    """The correlation of every number that enough trainings have, in falling order."""
    numbers = dict.fromkeys(metric for _, metric in scores.values if metric.startswith(PANEL_PREFIX))
    over = {
        number.removeprefix(PANEL_PREFIX): gather_runs(scores, number, LABEL_METRIC, by_method) for number in numbers
    }
    found = {
        name: bootstrap_correlation(runs, Rng(0).fork("study", "label-free"))
        for name, runs in over.items()
        if len(runs.x) >= MIN_TRAININGS
    }
    return dict(sorted(found.items(), key=lambda item: -abs(item[1].value)))


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the best number with its certainty, then on every number."""
    overall, inside = panel_correlations(scores, by_method=False), panel_correlations(scores, by_method=True)
    if not overall:
        return [f"No number of the panel was taken in {MIN_TRAININGS} trainings."]
    told = [best_number(overall, "over all methods"), best_number(inside, "within methods")]
    return [*told, *(f"{name}: {found}; within methods {inside[name]}." for name, found in overall.items())]


STUDY = Study(
    title="Label-free numbers beside the probe",
    source="RankMe, arXiv:2210.02885, and LiDAR, arXiv:2312.04000, claim that feature rank correlates with the probe",
    claim="Some number of the panel predicts, without labels, which of two trainings a linear probe will prefer.",
    arms=arms(),
    conclusions=conclusions,
    kinds=(),
    run_metrics=measure_run,
)
