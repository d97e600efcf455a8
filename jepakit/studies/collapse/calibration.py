"""Study: how reliable is the collapse verdict, on forced collapses and healthy trainings with a known outcome?

The true outcome (`studies/truth.py`) comes from the checkpoints, not from the panel or the settings. A run is

    full    if the variance of its target features over held-out pictures ends below 1 % of that at step 0
    worse   else, if its linear probe ends below the untrained encoder's, with separate 95 % intervals
    still   else, if its features have moved by less than 1 % of that variance
    alive   else

The threshold of the verdict `full` is chosen on one half of the runs and scored on the other half, which has other
methods and other seeds. The study takes about ten minutes on one idle core.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from ... import collapse
from ...core.statistics import wilson_interval
from ...masks.random import Random
from ...nn.heads import Projector
from ...recipes.small import SMALL_OPTIM
from ...run import checkpoint, write
from ..study import Arm, Scores, Study
from . import tiny
from .truth import NO_CHANGE_SHARE, Truth, read_truth

NUM_STEPS: Final = 150
ALARM_DEADLINE: Final = 5.0  # % of the run after the onset
NO_MOMENT: Final = -1.0  # the value of a moment that never comes
STATES: Final = get_args(collapse.State)
TRUTHS: Final = ("full", "worse", "still", "alive")


class Half(NamedTuple):
    """Healthy trainings, and trainings with a forced risk of collapse."""

    healthy: tuple[Arm, ...]
    forced_arms: tuple[Arm, ...]


class Case(NamedTuple):
    """One training: its name, and its numbers by metric."""

    name: str
    numbers: Mapping[str, float]

    @property
    def truth(self) -> str:
        """The outcome: one of TRUTHS."""
        return TRUTHS[int(self.numbers["truth"])]

    @property
    def verdict(self) -> str:
        """The last verdict."""
        return str(STATES[int(self.numbers["verdict"])])

    def within(self, alarm: float) -> bool:
        """Whether an alarm at this % of the run comes at most ALARM_DEADLINE after the onset; an early alarm counts."""
        return alarm != NO_MOMENT and alarm - self.numbers["onset"] <= ALARM_DEADLINE


def healthy_arms(methods: Sequence[str], seed: int) -> tuple[Arm, ...]:
    """Fifteen trainings of three methods."""
    sets = ("Fashion-MNIST", "Fashion-MNIST", "MNIST", "MNIST", "CIFAR-10")
    chosen = [(name, data, seed + k) for name in methods for k, data in enumerate(sets)]
    return tuple(make_arm(name, data, f"seed {s}", s) for name, data, s in chosen)


def make_arm(name: str, data: str, setting: str, seed: int, batch: int = 32, optim: Any = None, **changes: Any) -> Arm:
    """One training; `changes` overrides method settings, `optim` maps optimiser settings to factors."""
    slow = {key: factor * getattr(SMALL_OPTIM, key) for key, factor in (optim or {}).items()}
    settings = tiny.small_method(name, data, **changes)
    run = tiny.training_run(settings, data, NUM_STEPS, batch, seed, replace(SMALL_OPTIM, **slow))
    return Arm(data, name, run, tiny.DATA_SETS[data][1], setting)


def scale_rate(factor: float, decay: float = 1.0) -> dict[str, float]:
    """Optimiser factors that scale the learning rate and the weight decay over the whole run."""
    speeds = dict.fromkeys(("lr", "start_lr", "final_lr"), factor)
    return {**speeds, "weight_decay": decay, "final_weight_decay": decay}


NO_PROJECTOR: Final = Projector(layers=0)
EASY_MASKS: Final = (Random(ratio=0.1),)
F, M, C = "Fashion-MNIST", "MNIST", "CIFAR-10"

FITTED_HALF: Final = Half(
    healthy_arms(("I-JEPA", "VICReg", "SimCLR"), 0),
    (
        make_arm("I-JEPA", F, "EMA 0, masks too easy", 11, ema=(0.0, 0.0), masks=EASY_MASKS),
        make_arm("I-JEPA", M, "EMA 0, learning rate x 10", 12, optim=scale_rate(10.0), ema=(0.0, 0.0)),
        make_arm("I-JEPA", F, "learning rate x 30", 13, optim=scale_rate(30.0)),
        make_arm("I-JEPA", M, "learning rate x 30, weight decay x 100", 15, optim=scale_rate(30.0, 100.0)),
        make_arm("I-JEPA", M, "learning rate x 0.0001", 16, optim=scale_rate(1e-4)),
        make_arm("VICReg", F, "no stop-gradient, no predictor", 17, std=0.0, cov=0.0, projector=NO_PROJECTOR),
        make_arm("VICReg", C, "no stop-gradient, no predictor", 18, std=0.0, cov=0.0, projector=NO_PROJECTOR),
        make_arm("SimCLR", F, "batch of 4", 20, batch=4),
        make_arm("SimCLR", M, "learning rate x 30, weight decay x 100", 21, optim=scale_rate(30.0, 100.0)),
    ),
)
SCORED_HALF: Final = Half(
    healthy_arms(("C-JEPA", "LeJEPA", "MAE"), 100),
    (
        make_arm("C-JEPA", M, "invariance only, weight x 100", 111, ema=(0.0, 0.0), b_vic=1.0, std=0.0, cov=0.0),
        make_arm("C-JEPA", F, "learning rate x 30, weight decay x 100", 112, optim=scale_rate(30.0, 100.0)),
        make_arm("C-JEPA", F, "batch of 4", 113, batch=4, projector=Projector(layers=2, out=16)),
        make_arm("LeJEPA", C, "no stop-gradient, no predictor", 115, weight=0.0, projector=NO_PROJECTOR),
        make_arm(
            "LeJEPA",
            M,
            "no stop-gradient, learning rate x 10",
            116,
            optim=scale_rate(10.0),
            weight=0.0,
            projector=NO_PROJECTOR,
        ),
        make_arm("LeJEPA", M, "learning rate x 30", 118, optim=scale_rate(30.0)),
        make_arm("MAE", M, "learning rate x 30, weight decay x 100", 119, optim=scale_rate(30.0, 100.0)),
        make_arm("MAE", F, "masks too easy", 120, masks=EASY_MASKS),
        make_arm("MAE", M, "learning rate x 0.0001", 121, optim=scale_rate(1e-4)),
    ),
)


def measure_verdict(run: Path) -> Mapping[str, float]:
    """The true outcome of a finished run, the verdict and its moment, and the spread that decides it."""
    loaded = checkpoint.load_run(run)
    rows, every = loaded.state["panel"]["rows"], loaded.run.loop.panel_every or 1
    at = [100 * min(k * every, loaded.step) / loaded.step for k in range(len(rows))]
    settings = write.dump_settings(loaded.run)
    return verdict_numbers(
        read_truth(run), at, rows, [collapse.verdict(rows[: k + 1], settings).name for k in range(len(rows))]
    )


def verdict_numbers(
    real: Truth, at: Sequence[float], rows: Sequence[Mapping[str, float]], said: Sequence[str]
) -> dict[str, float]:
    """The numbers of the true outcome and of the verdicts `said` on the panel's `rows`, measured `at` % of the run.

    Spreads are relative to step 0; of the two encoders, the one with the lower spread counts.
    """
    onset = NO_MOMENT if real.collapse_onset is None else real.collapse_onset
    lowest = [min(row[key] for key in row if key.startswith("std_ratio_")) for row in rows]
    early = [spread for spread, when in zip(lowest, at, strict=True) if when <= onset + ALARM_DEADLINE]
    return {
        "linear accuracy": real.trained,
        "untrained accuracy": real.untrained,
        "variance left": real.variance[-1],
        "change": real.change,
        "truth": float(TRUTHS.index(true_outcome(real))),
        "verdict": float(STATES.index(said[-1])),
        "onset": onset,
        "alarm": first_moment(at, [state in ("full", "exploding") for state in said]),
        "warning": first_moment(at, [state not in ("healthy", "unknown") for state in said]),
        "lowest spread": min(lowest),
        "spread by the deadline": min(early, default=min(lowest)),
    }


def true_outcome(real: Truth) -> str:
    """The true outcome of a run: one of TRUTHS."""
    if real.collapse_onset is not None:
        return "full"
    if real.worse:
        return "worse"
    return "still" if real.change < NO_CHANGE_SHARE else "alive"


def first_moment(at: Sequence[float], holds: Sequence[bool]) -> float:
    """The moment of the first row at which `holds` is true, or NO_MOMENT if there is none."""
    return next((when for when, true in zip(at, holds, strict=True) if true), NO_MOMENT)


def fit_threshold(fulls: Sequence[Case], others: Sequence[Case]) -> float | None:
    """The spread, relative to step 0, below which a run counts as fully collapsed.

    It is the geometric midpoint between the highest spread that a collapsed run reaches by its deadline and the lowest
    spread of a healthy run. None if there is no collapse, or if no threshold separates the two.
    """
    highest = max((case.numbers["spread by the deadline"] for case in fulls), default=1.0)
    lowest = min((case.numbers["lowest spread"] for case in others), default=0.0)
    return sqrt(highest * lowest) if highest < lowest else None


def read_cases(scores: Scores, arms: Sequence[Arm]) -> list[Case]:
    """Every measured training of `arms`, seed by seed."""
    found = []
    for one in arms:
        numbers = {metric: values for (label, metric), values in scores.values.items() if label == one.label}
        for k in range(len(numbers.get("truth", ()))):
            found.append(Case(f"{one.label}, seed {one.run.seed + k}", {key: v[k] for key, v in numbers.items()}))
    return found


def conclusions(scores: Scores) -> list[str]:
    """Sentences on the threshold fitted on one half of the trainings, and on the verdict's accuracy on both halves."""
    if not read_cases(scores, scores.arms):
        return ["Nothing was measured."]
    fitted, told = read_cases(scores, (*FITTED_HALF.healthy, *FITTED_HALF.forced_arms)), []
    fulls, well = ([case for case in fitted if case.truth in kinds] for kinds in (("full",), ("alive", "still")))
    chosen = fit_threshold(fulls, well)
    told.append(
        f"Threshold of `full`, from {len(fulls)} collapses and {len(well)} healthy runs: "
        f"{'none separates them' if chosen is None else f'{chosen:.3g}'} (the verdict has {collapse.FULL_STD_RATIO:g})."
    )
    for name, half in (("chosen on", FITTED_HALF), ("scored", SCORED_HALF)):
        told += [
            f"Half {name}: {line}"
            for line in half_conclusions(read_cases(scores, half.healthy), read_cases(scores, half.forced_arms))
        ]
    return told


def half_conclusions(fine: Sequence[Case], forced: Sequence[Case]) -> list[str]:
    """Sentences on detection, false alarms, the confusion table, and the interventions that caused no collapse."""
    every = [*fine, *forced]
    fulls = [case for case in every if case.truth == "full"]
    caught = sum(case.within(case.numbers["alarm"]) for case in fulls)
    late = [f"{case.name} ({alarm_delay(case)})" for case in fulls if not case.within(case.numbers["alarm"])]
    blind = sum(case.numbers["linear accuracy"] >= case.numbers["untrained accuracy"] - 0.03 for case in fulls)
    lines = [
        f"{caught} of {len(fulls)} full collapses were detected within {ALARM_DEADLINE:g} % of the run"
        + (f"; not: {'; '.join(late)}." if late else "."),
        f"in {blind} of them a linear probe, which standardises, loses at most 3 points of its initial accuracy.",
    ]
    fine = [case for case in fine if case.truth in ("alive", "still")]
    for what, key in (("a collapse", "alarm"), ("anything but healthy or unknown", "warning")):
        called = sum(case.numbers[key] != NO_MOMENT for case in fine)
        lines.append(f"{proportion_text(called, len(fine))} healthy runs were ever called {what}.")
    lines += [f"truth {state}: {count_verdicts(every, state)}." for state in TRUTHS]
    spared = [f"{case.name} ({case.truth}; {case.verdict})" for case in forced if case.truth in ("alive", "still")]
    return [*lines, f"interventions that did not collapse (truth; verdict): {'; '.join(spared) or 'none'}."]


def alarm_delay(case: Case) -> str:
    """The delay of the alarm after the onset, as text."""
    alarm = case.numbers["alarm"]
    return "never" if alarm == NO_MOMENT else f"{alarm - case.numbers['onset']:.0f} % late"


def proportion_text(hits: int, n: int) -> str:
    """A count with its 95 % interval (Wilson)."""
    if not n:
        return "0 of 0"
    low, high = wilson_interval(hits, n)
    return f"{hits} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"


def count_verdicts(every: Sequence[Case], state: str) -> str:
    """The count of each final verdict among runs with this outcome, as text."""
    counts = Counter(case.verdict for case in every if case.truth == state)
    return ", ".join(f"{verdict} {n}" for verdict, n in counts.most_common()) or "no run"


STUDY = Study(
    title="The verdict beside the truth",
    source="no paper: forced collapses and healthy trainings of our own",
    claim=(
        f"The verdict names every full collapse within {ALARM_DEADLINE:g} % of the run from its onset, and raises "
        "no false alarm in 15 healthy runs that no threshold was chosen on."
    ),
    arms=(*FITTED_HALF.healthy, *FITTED_HALF.forced_arms, *SCORED_HALF.healthy, *SCORED_HALF.forced_arms),
    conclusions=conclusions,
    kinds=(),
    run_metrics=measure_verdict,
)
