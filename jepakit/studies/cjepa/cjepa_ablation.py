"""Study: the effect of each part of C-JEPA: its terms and weights, masks, augmentation, low-contrast data.

Every training is that of `studies/cjepa.py` on CIFAR-10 with three blocks of 96 features, for five epochs on 10,000
pictures, with one thing changed. I-JEPA has no projector, so it is not C-JEPA with zero weights; it is the row without
any term.

- terms: the weights of the other terms are 0; all three terms make the whole, at the published b_vic of 0.001
- masks: "block" has one target, so that C-JEPA has no two blocks to compare; C-JEPA's random masks have four targets
- augmentation: "crop" is the recipe's (60 % of the area or more, mirrored); all other rows use it too
- low variance: `data.contrast` 0.1 gives the normalised pixels a tenth of their deviation, in training and in probes;
  darker files would not, because the normalisation is fitted to them
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from ...data.images import files
from ...data.images.augment import Augment, Views
from ...masks.multiblock import MultiBlock
from ...masks.random import Random
from ...masks.semantic import Semantic
from ...methods import cjepa, ijepa
from ...recipes.small import NO_AUGMENTATION, cifar10_ijepa
from ...run.settings import Length, Run
from ..claims import Better, Changes, Statement
from ..coarse import coarsen_recipe
from ..study import Arm, Study

TRAIN, TEST = "cifar10/train.parquet", "cifar10/test.parquet"
LIMIT, EPOCHS = 10_000, 5.0
METRICS = ("knn accuracy", "linear accuracy")
# Table 3, ViT-B/16 after 100 epochs. Our copy does not show which of its two middle rows has 68.3 % and which 67.6 %.
PAPER_ACCURACY: Final[Mapping[str, float]] = {"I-JEPA": 0.637, "C-JEPA": 0.695}

CROP_AUGMENT = Augment(crop=(0.6, 1.0), flip=0.5)
COLOUR_AUGMENT = replace(CROP_AUGMENT, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2)
EXTREME_AUGMENT = Augment(
    crop=(0.08, 1.0), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_prob=1.0, gray=0.5, blur=0.5, solarize=0.2
)
AUGMENTS = {"none": NO_AUGMENTATION, "crop and colour": COLOUR_AUGMENT, "extreme": EXTREME_AUGMENT}

METHOD_CHANGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "": {},
    "invariance alone": {"std": 0.0, "cov": 0.0},
    "variance alone": {"sim": 0.0, "cov": 0.0},
    "covariance alone": {"sim": 0.0, "std": 0.0},
    "variance and covariance": {"sim": 0.0},
    "b_vic 0.0001": {"b_vic": 1e-4},
    "b_vic 0.01": {"b_vic": 1e-2},
    "b_vic 0.1": {"b_vic": 1e-1},
    "pairs context-target": {"pairs": "context-target"},
    "pairs views": {"pairs": "views"},
}
MASKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "I-JEPA": {"random": Random(), "block": MultiBlock(num_targets=1), "semantic": Semantic()},
    "C-JEPA": {"random": Random(num_targets=4), "semantic": Semantic()},
}


def arms() -> tuple[Arm, ...]:
    """All trainings: the two methods, then changes to C-JEPA, then changes to the data and masks of both."""
    plain = {"I-JEPA": i_jepa(), "C-JEPA": c_jepa()}
    found = [_make_arm(name, "", method) for name, method in plain.items()]
    for setting, changes in METHOD_CHANGES.items():
        views = (Views(),) if setting == "pairs views" else ()
        if setting:
            found.append(_make_arm("C-JEPA", setting, c_jepa(**changes), augment=replace(CROP_AUGMENT, views=views)))
    for name, method in plain.items():
        found += [_make_arm(name, f"masks {kind}", replace(method, masks=(m,))) for kind, m in MASKS[name].items()]
        found += [_make_arm(name, f"augmentation {kind}", method, augment=a) for kind, a in AUGMENTS.items()]
        found.append(_make_arm(name, "contrast 0.1", method, contrast=0.1))
    return tuple(found)


def i_jepa() -> ijepa.Config:
    """The recipe's I-JEPA with a smaller encoder."""
    method = coarsen_recipe(cifar10_ijepa()).method
    assert isinstance(method, ijepa.Config)
    encoder = replace(method.encoder, width=96, depth=3, heads=3)  # type: ignore[type-var]
    return replace(method, encoder=encoder, target_blocks=3)


def c_jepa(**changes: Any) -> cjepa.Config:
    """C-JEPA with the same encoder, at the published weights except for `changes`."""
    kept = {f.name: getattr(i_jepa(), f.name) for f in fields(ijepa.Config)}
    return cjepa.Config(**kept, **changes)


def _make_arm(name: str, setting: str, method: ijepa.Config, **data: Any) -> Arm:
    run = coarsen_recipe(cifar10_ijepa())
    source = files.Config(**{"path": TRAIN, "size": (32, 32), "limit": LIMIT, "augment": CROP_AUGMENT, **data})
    length = Length(epochs=EPOCHS, batch=run.length.batch)
    here: Run = replace(run, method=method, data=source, length=length)
    paper = {} if setting else {"linear accuracy": PAPER_ACCURACY[name]}
    return Arm("CIFAR-10", name, here, TEST, setting, paper)


I_JEPA, WHOLE = "CIFAR-10 · I-JEPA", "CIFAR-10 · C-JEPA"
BOTH, INVARIANCE = f"{WHOLE} · variance and covariance", f"{WHOLE} · invariance alone"
TABLE_3: Final = ((WHOLE, I_JEPA), (BOTH, I_JEPA), (INVARIANCE, I_JEPA), (WHOLE, BOTH), (WHOLE, INVARIANCE))


def claims() -> tuple[Statement, ...]:
    """Claims on the paper's ablation, and every row beside the two unchanged methods."""
    changed = [arm.label for arm in arms() if arm.setting]
    return (
        *(Better(better, worse, metric, words="Table 3") for better, worse in TABLE_3 for metric in METRICS),
        *(
            Changes(tuple(((row, metric), (base, metric)) for row in changed), words=f"{metric} beside {base}")
            for base in (WHOLE, I_JEPA)
            for metric in METRICS
        ),
    )


STUDY = Study(
    title="C-JEPA, part by part",
    source="Mo & Tong 2024, arXiv:2410.19560, table 3 (ViT-B/16, 100 epochs of ImageNet, linear probe, one run)",
    claim=(
        "Invariance alone and variance with covariance alone each help I-JEPA (from 63.7 to 68.3 and 67.6 %; our "
        "source does not say which is which), and together they help most (69.5 %)."
    ),
    arms=arms(),
    claims=claims(),
    baselines=True,
)
