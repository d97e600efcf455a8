"""Six families with one encoder: I-JEPA, C-JEPA, LeJEPA, VICReg, SimCLR and MAE, at equal steps and at equal seconds.

The encoder is the vision transformer of the recipes `cifar10-ijepa` and `fashion-ijepa` on a grid of 4 × 4 patches, and
the optimiser, at a rate of 2e-3, the batch of 64 and I-JEPA's settings are theirs. 10,000 training pictures
(`data.limit`), 4 epochs of them, for all. The methods that predict see the recipe's augmentation, those that compare
views see two crops that are mirrored and changed in colour. Equal seconds: the steps that fit into I-JEPA's time, by a
pace measured on this machine, loading included.

Settings that are not the recipe's: the heads of LeJEPA, VICReg and SimCLR are 512 wide, four times the encoder, as
VICReg's 8192 are four times a ResNet-50's features; LeJEPA's weight is that of its small example, 0.02 for 256 samples,
for 64. Nothing was tuned. The probes are fitted to the same 10,000 pictures, on the mean of all tokens: what a
comparison of views trains, while prediction trains each token. 1 % of the labels are about 100.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from ...data.images.augment import Augment, Views
from ...masks.random import Random
from ...methods import cjepa, ijepa, lejepa, mae, simclr, vicreg
from ...nn.heads import Projector
from ...run import parse
from ...run.settings import Length, Loop, Run
from ..cjepa.cjepa import RECIPES, coarse
from ..study import MEMORY, Arm, Scores, Study

PICTURES, EPOCHS, HEAD = 10_000, 4.0, 512
BUDGETS = ("equal steps", "equal seconds")
FEW = "lowshot accuracy with 1 % of the labels"
METRICS = {"knn accuracy": "kNN", "linear accuracy": "linear probe", FEW: "1 % of the labels"}
LINEAR = "linear accuracy"
PAPER = {"LeJEPA": 0.9102, "VICReg": 0.9012}
ONE_SEED = "One seed tells no spread: that one family comes before another may be chance."
SIGNS = "Between two neighbours of a ranking, > is a difference beyond the seeds' scatter, ≈ is one within it."
WORDS = {None: "", True: ", beyond the seeds' scatter", False: ", within the seeds' scatter"}


def methods(base: ijepa.Config) -> dict[str, Any]:
    """The settings of every family around the encoder of `base`; the first is the one whose time the others get."""
    encoder, kept = base.encoder, {f.name: getattr(base, f.name) for f in fields(base)}
    return {
        "I-JEPA": base,
        "C-JEPA": cjepa.Config(**kept),
        "LeJEPA": lejepa.Config(encoder, Projector(layers=3, hidden=HEAD, out=16), weight=0.075),
        "VICReg": vicreg.Config(encoder, Projector(layers=3, hidden=HEAD, out=256)),
        "SimCLR": simclr.Config(encoder, Projector(layers=2, hidden=HEAD, out=128)),
        "MAE": mae.Config(encoder, base.predictor, (Random(ratio=0.75),)),
    }


def views(colour: bool) -> Augment:
    """Two crops of a picture, mirrored and changed in brightness, contrast and, where there is any, colour."""
    jitter = (0.4, 0.4, 0.2, 0.1) if colour else (0.4, 0.4, 0.0, 0.0)
    return Augment(flip=0.5, jitter=jitter, gray=0.2 if colour else 0.0, views=(Views(count=2, crop=(0.2, 1.0)),))


def arms() -> tuple[Arm, ...]:
    """Every family on every data set: once with the same steps, once with those that fit into I-JEPA's time."""
    found: list[Arm] = []
    for data, (recipe, train, test) in RECIPES.items():
        run = coarse(recipe())
        assert isinstance(run.method, ijepa.Config)
        here = [
            Arm(data, name, training(run, method, train, data == "CIFAR-10"), test, BUDGETS[0], figures(data, name))
            for name, method in methods(run.method).items()
        ]
        found += here + [replace(arm, setting=BUDGETS[1], pace=here[0].label) for arm in here[1:]]
    return tuple(found)


def training(run: Run, method: Any, path: str, colour: bool) -> Run:
    """The recipe with another method; with its own augmentation unless the method compares views."""
    masked = isinstance(method, ijepa.Config | mae.Config)
    augment = run.data.augment if masked else views(colour)
    data = replace(cast(Any, run.data), path=path, limit=PICTURES, augment=augment)
    # One process that also loads: its seconds are those of one worker, whatever the machine has beside it.
    return replace(
        run, method=method, data=data, length=Length(epochs=EPOCHS, batch=run.length.batch), loop=Loop(workers=0)
    )


def figures(data: str, name: str) -> Mapping[str, float]:
    """The published figure on the same data, where there is one."""
    return {"linear accuracy": PAPER[name]} if data == "CIFAR-10" and name in PAPER else {}


def speed(folder: Path) -> dict[str, float]:
    """Pictures per second of a whole training, and how many steps it had."""
    summary = json.loads((folder / "summary.json").read_text())
    batch = parse.from_yaml(folder / "config.yaml").length.batch
    # The summary rounds to tenths of a second.
    return {"images/s": summary["steps"] * batch / max(summary["seconds"], 0.1), "steps": float(summary["steps"])}


def says(scores: Scores) -> list[str]:
    """Who comes first per step and per second, the rankings, what 1 % of the labels changes, speed and memory."""
    found = [SIGNS if seeds(scores) > 1 else ONE_SEED]
    for data in RECIPES:
        both = {budget: contenders(scores.arms, data, budget) for budget in BUDGETS}
        for budget, rivals in both.items():
            first = "; ".join(f"by {word} {leaders(scores, rivals, metric)}" for metric, word in METRICS.items())
            ranked = [f"{word}: {ranking(scores, rivals, metric)}" for metric, word in METRICS.items()]
            lines = [f"first comes {first}", *ranked, *claimed(scores, rivals), *few(scores, rivals)]
            found += [f"{data}, {budget}, {line}." for line in lines]
        found += [f"{data}: {line}." for line in (spent(scores, both[BUDGETS[1]]), costs(scores, both[BUDGETS[0]]))]
    return found


def seeds(scores: Scores) -> int:
    """How many seeds the scores are of."""
    return len(scores.values[scores.arms[0].label, LINEAR])


def contenders(arms: Sequence[Arm], data: str, budget: str) -> list[Arm]:
    """The six to be compared; the one that sets the time takes part in both budgets."""
    here = [arm for arm in arms if arm.data == data]
    return [arm for arm in here if arm.setting == budget or arm is here[0]]


def sorted_by(scores: Scores, arms: Sequence[Arm], metric: str) -> list[Arm]:
    """The arms, the highest mean first."""
    return sorted(arms, key=lambda arm: -fmean(scores.values[arm.label, metric]))


def ranking(scores: Scores, arms: Sequence[Arm], metric: str) -> str:
    """All arms with their means, such as "VICReg 45.0 % > MAE 43.1 % ≈ I-JEPA 42.9 %"; commas for one seed."""
    ordered = sorted_by(scores, arms, metric)
    named = [f"{arm.name} {100 * fmean(scores.values[arm.label, metric]):.1f} %" for arm in ordered]
    signs = {None: ", ", True: " > ", False: " ≈ "}
    between = [signs[scores.gain(lower, upper, metric).beyond_spread] for upper, lower in pairwise(ordered)]
    return named[0] + "".join(sign + name for sign, name in zip(between, named[1:], strict=True))


def leaders(scores: Scores, arms: Sequence[Arm], metric: str) -> str:
    """The first by a metric, and who is not behind it by more than the seeds scatter."""
    first, *others = sorted_by(scores, arms, metric)
    level = [arm.name for arm in others if scores.gain(arm, first, metric).beyond_spread is False]
    return first.name + (f" (level with {' and '.join(level)})" if level else "")


def claimed(scores: Scores, arms: Sequence[Arm]) -> list[str]:
    """The two differences that the papers report, here."""
    named = {arm.name: arm for arm in arms}
    pairs = (("MAE", "I-JEPA"), ("I-JEPA", "C-JEPA"))
    gains = [(low, high, scores.gain(named[low], named[high], LINEAR)) for low, high in pairs]
    return [f"linear probe: {high} beside {low} {gain}{WORDS[gain.beyond_spread]}" for low, high, gain in gains]


def few(scores: Scores, arms: Sequence[Arm]) -> list[str]:
    """What 1 % of the labels prefers, against the order by all labels; both by more than the seeds scatter."""
    if seeds(scores) < 2:
        return []
    found = []
    for best in arms:
        turned = [arm for arm in arms if ahead(scores, best, arm, FEW) and ahead(scores, arm, best, LINEAR)]
        points = [f"{arm.name} ({100 * scores.gain(arm, best, FEW).mean:+.1f} points)" for arm in turned]
        if points:
            found.append(f"against all labels, 1 % of them puts {best.name} before {' and '.join(points)}")
    return found or ["1 % of the labels puts no pair in another order than all labels do, as far as the seeds tell"]


def ahead(scores: Scores, first: Arm, second: Arm, metric: str) -> bool:
    """Whether `first` exceeds `second` by more than the seeds scatter."""
    gain = scores.gain(second, first, metric)
    return bool(gain.beyond_spread) and gain.mean > 0


def spent(scores: Scores, arms: Sequence[Arm]) -> str:
    """How equal the seconds came out."""
    own, *others = (fmean(scores.values[arm.label, "seconds"]) for arm in arms)
    return f"for equal seconds {arms[0].name} took {own:,.0f} s, the others {min(others):,.0f} to {max(others):,.0f} s"


def costs(scores: Scores, arms: Sequence[Arm]) -> str:
    """Speed and memory of every family, the fastest first."""
    value = {(arm.name, m): fmean(scores.values[arm.label, m]) for arm in arms for m in ("images/s", MEMORY)}
    return "pictures per second, and memory of a step, " + "; ".join(
        f"{arm.name} {value[arm.name, 'images/s']:,.0f}, {value[arm.name, MEMORY]:,.0f} MiB"
        for arm in sorted_by(scores, arms, "images/s")
    )


STUDY = Study(
    title="Six families, one encoder",
    source=(
        "Mo & Tong 2024, arXiv:2410.19560, table 1 (ViT-B/16 on ImageNet, linear probe, one run; MAE 1600 epochs, the "
        "others 600). LeJEPA's and VICReg's figures in the table: arXiv:2602.03604 (ResNet-18, 300 epochs of all of "
        "CIFAR-10)"
    ),
    claim=(
        "To predict representations is worth more than to reconstruct pixels, and terms against collapse add to it: "
        "MAE 68.0 %, I-JEPA 72.9 %, C-JEPA 73.7 %. Beside them stand the families that compare views of a picture, at "
        "equal steps and with the steps that fit into I-JEPA's seconds."
    ),
    arms=arms(),
    says=says,
    kinds=("knn", "linear", "lowshot"),
    extra=speed,
    options={"lowshot.fractions": (0.01,)},
    baselines=True,
)
