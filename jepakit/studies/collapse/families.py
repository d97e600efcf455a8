"""Study: I-JEPA, C-JEPA, LeJEPA, VICReg, SimCLR and MAE with the same encoder, at equal steps and at equal time.

The encoder is the vision transformer of the recipes `cifar10-ijepa` and `fashion-ijepa` on a grid of 4 × 4 patches.
The optimiser (at a learning rate of 2e-3), the batch of 64 and I-JEPA's settings also come from these recipes. All
methods train for 4 epochs on 10,000 pictures (`data.limit`). Methods that predict use the recipe's augmentation;
methods that compare views use two crops, mirrored and changed in colour. Equal time means as many steps as fit into
I-JEPA's time, by a pace measured on this machine, loading included.

These settings differ from the recipes: the heads of LeJEPA, VICReg and SimCLR are 512 wide, four times the encoder,
just as VICReg's 8192 are four times a ResNet-50's features; LeJEPA's weight is that of its small example, 0.02 for 256
samples, applied to 64. Nothing was tuned. The probes are fitted to the same 10,000 pictures, on the mean of all tokens.
Methods that compare views train this mean; methods that predict train each token. 1 % of the labels are about 100.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from ...data.images.augment import Augment, Views
from ...masks.random import Random
from ...methods import cjepa, ijepa, lejepa, mae, simclr, vicreg
from ...nn.heads import Projector
from ...run import parse
from ...run.settings import Length, Loop, Run
from ..cells import cells_of
from ..claims import Better, Numbers, Ranking, Statement
from ..coarse import RECIPES, coarsen_recipe
from ..study import HOLDS_VERDICT, MEMORY_METRIC, Arm, Scores, Study

PICTURES, EPOCHS, HEAD = 10_000, 4.0, 512
BUDGETS = ("equal steps", "equal seconds")
FEW_LABELS = "lowshot accuracy with 1 % of the labels"
LINEAR_ACCURACY = "linear accuracy"
METRICS = ("knn accuracy", LINEAR_ACCURACY, FEW_LABELS)
PAPER_ACCURACY = {"LeJEPA": 0.9102, "VICReg": 0.9012}


def family_settings(base: ijepa.Config) -> dict[str, Any]:
    """The settings of every family with the encoder of `base`; the first family's time is the budget of the others."""
    encoder, kept = base.encoder, {f.name: getattr(base, f.name) for f in fields(base)}
    return {
        "I-JEPA": base,
        "C-JEPA": cjepa.Config(**kept),
        "LeJEPA": lejepa.Config(encoder, Projector(layers=3, hidden=HEAD, out=16), weight=0.075),
        "VICReg": vicreg.Config(encoder, Projector(layers=3, hidden=HEAD, out=256)),
        "SimCLR": simclr.Config(encoder, Projector(layers=2, hidden=HEAD, out=128)),
        "MAE": mae.Config(encoder, base.predictor, (Random(ratio=0.75),)),
    }


def two_views(colour: bool) -> Augment:
    """Two crops of a picture, mirrored and changed in brightness, contrast and, with `colour`, hue and saturation."""
    jitter = (0.4, 0.4, 0.2, 0.1) if colour else (0.4, 0.4, 0.0, 0.0)
    return Augment(flip=0.5, jitter=jitter, gray=0.2 if colour else 0.0, views=(Views(count=2, crop=(0.2, 1.0)),))


def arms() -> tuple[Arm, ...]:
    """Every family on every data set: once with equal steps, once with the steps that fit into I-JEPA's time."""
    found: list[Arm] = []
    for data, (recipe, train, test) in RECIPES.items():
        run = coarsen_recipe(recipe())
        assert isinstance(run.method, ijepa.Config)
        here = [
            Arm(
                data,
                name,
                training_run(run, method, train, data == "CIFAR-10"),
                test,
                BUDGETS[0],
                published_accuracy(data, name),
            )
            for name, method in family_settings(run.method).items()
        ]
        found += here + [replace(arm, setting=BUDGETS[1], pace=here[0].label) for arm in here[1:]]
    return tuple(found)


def training_run(run: Run, method: Any, path: str, colour: bool) -> Run:
    """The recipe with another method; methods that compare views get their own augmentation."""
    masked = isinstance(method, ijepa.Config | mae.Config)
    augment = run.data.augment if masked else two_views(colour)
    data = replace(cast(Any, run.data), path=path, split="all", limit=PICTURES, augment=augment)
    # One process also loads the data, so that the time does not depend on the machine's other cores.
    return replace(
        run, method=method, data=data, length=Length(epochs=EPOCHS, batch=run.length.batch), loop=Loop(workers=0)
    )


def published_accuracy(data: str, name: str) -> Mapping[str, float]:
    """The published figure on the same data, if there is one."""
    return {"linear accuracy": PAPER_ACCURACY[name]} if data == "CIFAR-10" and name in PAPER_ACCURACY else {}


def training_speed(folder: Path) -> dict[str, float]:
    """Pictures per second over a whole training, and its number of steps."""
    summary = json.loads((folder / "summary.json").read_text())
    batch = parse.from_yaml(folder / "config.yaml").length.batch
    # The summary rounds to tenths of a second.
    return {"images/s": summary["steps"] * batch / max(summary["seconds"], 0.1), "steps": float(summary["steps"])}


def claims() -> Iterator[Statement]:
    """Claims on the order of the families by every probe, two differences reported in papers, speed and memory."""
    for data in RECIPES:
        for budget in BUDGETS:
            rivals = {arm.name: arm.label for arm in compared_arms(arms(), data, budget)}
            for metric in METRICS:
                yield Ranking(cells_of([*rivals.values()], metric))
            for better, worse in (("I-JEPA", "MAE"), ("C-JEPA", "I-JEPA")):
                yield Better(rivals[better], rivals[worse], LINEAR_ACCURACY)
        for budget, metrics in zip(BUDGETS, (("images/s", MEMORY_METRIC), ("seconds",)), strict=True):
            rows = tuple(arm.label for arm in compared_arms(arms(), data, budget))
            yield Numbers(rows, metrics, words=f"{data}, cost at {budget}")


def conclusions(scores: Scores) -> list[str]:
    """Sentences on pairs that 1 % of the labels orders differently from all labels, beyond the scatter of the seeds."""
    pairs = [(data, budget) for data in RECIPES for budget in BUDGETS]
    return [
        f"{data}, {budget}, {few_labels(scores, compared_arms(scores.arms, data, budget))}." for data, budget in pairs
    ]


def compared_arms(arms: Sequence[Arm], data: str, budget: str) -> list[Arm]:
    """The six arms to compare under a budget; the arm that sets the time appears in both budgets."""
    here = [arm for arm in arms if arm.data == data]
    return [arm for arm in here if arm.setting == budget or arm is here[0]]


def few_labels(scores: Scores, arms: Sequence[Arm]) -> str:
    """The pairs that 1 % of the labels orders differently from all labels."""
    found = []
    for best in arms:
        turned = [
            arm
            for arm in arms
            if is_ahead(scores, best, arm, FEW_LABELS) and is_ahead(scores, arm, best, LINEAR_ACCURACY)
        ]
        if points := [f"{arm.name} ({100 * scores.gain(arm, best, FEW_LABELS).mean:+.1f} points)" for arm in turned]:
            found.append(f"{best.name} before {' and '.join(points)}")
    if found:
        return f"against all labels, 1 % of them puts {'; '.join(found)}"
    return "1 % of the labels orders no pair differently from all labels, within the scatter of the seeds"


def is_ahead(scores: Scores, first: Arm, second: Arm, metric: str) -> bool:
    """Whether `first` exceeds `second` by more than the scatter of the seeds."""
    return scores.gain(second, first, metric).verdict == HOLDS_VERDICT


STUDY = Study(
    title="Six families, one encoder",
    source=(
        "Mo & Tong 2024, arXiv:2410.19560, table 1 (ViT-B/16 on ImageNet, linear probe, one run; MAE 1600 epochs, the "
        "others 600). LeJEPA's and VICReg's figures in the table: arXiv:2602.03604 (ResNet-18, 300 epochs of all of "
        "CIFAR-10)"
    ),
    claim=(
        "Predicting representations is worth more than reconstructing pixels, and terms against collapse help further: "
        "MAE 68.0 %, I-JEPA 72.9 %, C-JEPA 73.7 %. The study adds the families that compare views of a picture, at "
        "equal steps and with the steps that fit into I-JEPA's seconds."
    ),
    arms=arms(),
    claims=tuple(claims()),
    conclusions=conclusions,
    kinds=("knn", "linear", "lowshot"),
    run_metrics=training_speed,
    options={"lowshot.fractions": (0.01,)},
    baselines=True,
)
