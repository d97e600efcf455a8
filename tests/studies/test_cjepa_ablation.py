"""The study `cjepa-ablation`: trainings are what they are called, all can begin, and its sentences follow scores."""

import dataclasses
from typing import Any

import pytest
import torch

from jepakit import methods, studies
from jepakit.data.images import arrays, files, synthetic
from jepakit.data.images.augment import Augment, Views
from jepakit.masks.multiblock import MultiBlock
from jepakit.masks.random import Random
from jepakit.masks.semantic import Semantic
from jepakit.methods import cjepa
from jepakit.recipes import load_recipe
from jepakit.studies.cjepa import cjepa_ablation
from jepakit.studies.study import Arm, Scores
from jepakit.types import Batch, Rng, Signal

STUDY = cjepa_ablation.STUDY
ARMS = {(arm.name, arm.setting): arm for arm in STUDY.arms}
WHOLE = ARMS["C-JEPA", ""].run


def changes(arm: Arm) -> dict[str, Any]:
    """By dotted key, how an arm differs from C-JEPA as it is, or for an I-JEPA from I-JEPA."""
    base = ARMS[arm.name, ""].run
    found = {}
    for section in ("method", "data", "optim", "length", "loop", "evals", "seed"):
        new, old = getattr(arm.run, section), getattr(base, section)
        if dataclasses.is_dataclass(new):
            keys = [f.name for f in dataclasses.fields(new)]
            found |= {f"{section}.{k}": getattr(new, k) for k in keys if getattr(new, k) != getattr(old, k)}
        elif new != old:
            found[section] = new
    return found


CROP = WHOLE.data.augment
EXPECTED = {
    "invariance alone": {"method.std": 0.0, "method.cov": 0.0},
    "variance alone": {"method.sim": 0.0, "method.cov": 0.0},
    "covariance alone": {"method.sim": 0.0, "method.std": 0.0},
    "variance and covariance": {"method.sim": 0.0},
    "b_vic 0.0001": {"method.b_vic": 1e-4},
    "b_vic 0.01": {"method.b_vic": 1e-2},
    "b_vic 0.1": {"method.b_vic": 1e-1},
    "pairs context-target": {"method.pairs": "context-target"},
    "pairs views": {
        "method.pairs": "views",
        "data.augment": dataclasses.replace(CROP, views=(Views(),)),
    },
    "masks block": {"method.masks": (MultiBlock(num_targets=1),)},
    "masks semantic": {"method.masks": (Semantic(),)},
    "augmentation none": {"data.augment": Augment(crop=(1.0, 1.0), aspect=(1.0, 1.0))},
    "contrast 0.1": {"data.contrast": 0.1},
}


@pytest.mark.parametrize("arm", STUDY.arms, ids=lambda arm: arm.label)
def test_a_training_differs_from_its_method_by_what_its_name_says(arm: Arm) -> None:
    found = changes(arm)
    if arm.setting == "masks random":
        assert found == {"method.masks": (Random(num_targets=1 if arm.name == "I-JEPA" else 4),)}
    elif arm.setting in ("augmentation crop and colour", "augmentation extreme"):
        assert list(found) == ["data.augment"]
        assert found["data.augment"].changes_colours
    else:
        assert found == EXPECTED.get(arm.setting, {})
    assert bool(arm.setting) == bool(found)


def test_the_study_is_found_by_its_name_with_dashes() -> None:
    assert studies.load("cjepa-ablation") is STUDY


def test_the_whole_has_the_published_weights_and_the_recipes_settings() -> None:
    recipe: Any = load_recipe("cifar10-ijepa")
    base = ARMS["I-JEPA", ""].run
    smaller = dataclasses.replace(recipe.method.encoder, patch=(8, 8), width=96, depth=3, heads=3)
    assert base.method == dataclasses.replace(recipe.method, encoder=smaller, target_blocks=3)
    assert base.data.augment == recipe.data.augment
    assert base.optim == dataclasses.replace(recipe.optim, lr=2e-3)
    assert base.data.limit == 10_000
    kept = {f.name: getattr(WHOLE.method, f.name) for f in dataclasses.fields(type(base.method))}
    assert type(base.method)(**kept) == base.method
    published = cjepa.Config()
    for key in ("b_vic", "sim", "std", "cov", "pairs"):
        assert getattr(WHOLE.method, key) == getattr(published, key)
    assert (published.b_vic, published.sim, published.std, published.cov) == (0.001, 25.0, 25.0, 1.0)


@pytest.mark.parametrize("arm", STUDY.arms, ids=lambda arm: arm.label)
def test_every_training_can_begin(arm: Arm) -> None:
    count = sum(group.count for group in arm.run.data.augment.views)
    method = methods.build(arm.run.method, Signal(3, (32, 32), views=count, classes=10))
    method.check(arm.run.length.batch)
    x = torch.rand(8, 3, 32, 32, generator=Rng(0).generator())
    terms = method.loss(Batch(x, views=(torch.stack([x, x.flip(-1)], 1),) if count else ()), Rng(0))
    terms.total.backward()
    cfg: Any = arm.run.method
    weights = {"invariance": cfg.sim, "variance": cfg.std, "covariance": cfg.cov} if arm.name == "C-JEPA" else {}
    acting = {name for name, value in terms.loss.items() if value != 0}
    assert acting == {"prediction"} | {name for name, weight in weights.items() if weight}


@pytest.mark.parametrize("kind", [files, arrays, synthetic])
def test_contrast_is_the_deviation_of_normalised_samples(kind: Any) -> None:
    cfg = synthetic.Config(path="shapes", count=256)
    dataset = cfg.open()
    ordinary, pale = (dataset.with_config(dataclasses.replace(cfg, contrast=c)).signal() for c in (1.0, 0.1))
    x = torch.stack([dataset.raw(i) for i in range(256)])
    for signal, expected in ((ordinary, 1.0), (pale, 0.1)):
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (signal.mean, signal.std))
        normal = (x - mean) / std
        torch.testing.assert_close(normal.std((0, 2, 3)), torch.full((3,), expected), rtol=1e-3, atol=0.0)
        torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), rtol=0.0, atol=1e-4)
    assert kind.Config().contrast == 1.0
    with pytest.raises(ValueError, match=r"contrast is 0; give a factor above 0"):
        kind.Config(contrast=0.0)


def test_the_paper_has_figures_of_the_baseline_and_the_whole_alone() -> None:
    paper = {key: dict(arm.paper) for key, arm in ARMS.items() if arm.paper}
    assert paper == {("I-JEPA", ""): {"linear accuracy": 0.637}, ("C-JEPA", ""): {"linear accuracy": 0.695}}


def test_what_is_said_follows_the_scores() -> None:
    def scores(**changed: list[float]) -> Scores:
        given = {label: [0.50, 0.51, 0.49] for label in (arm.label for arm in STUDY.arms)} | changed
        return Scores({(k, m): v for k, v in given.items() for m in ("knn accuracy", "linear accuracy")}, STUDY.arms)

    label = ARMS["C-JEPA", ""].label
    better = STUDY.sentences(scores(**{label: [0.55, 0.561, 0.542]}))
    worse = STUDY.sentences(scores(**{label: [0.45, 0.461, 0.442]}))
    whole = "Table 3: CIFAR-10: C-JEPA has a higher"
    assert any(s.startswith(f"{whole} knn accuracy than I-JEPA: holds, ") and "+5.1 ± 0.1 points" in s for s in better)
    told = [s for s in worse if s.startswith(f"{whole} linear accuracy than I-JEPA: does not hold, ")]
    assert ["-4.9 ± 0.1 points over 3 seeds" in s for s in told] == [True]
    less, level = better[-4].partition("less: ")[2].split("; not told apart: ")
    assert "I-JEPA · masks semantic 50.0 ± 1.0 % (-5.1 ± 0.1 points)" in less
    assert level == "nothing."
    assert "I-JEPA · masks semantic 50.0 ± 1.0 % (+0.0 ± 0.0 points)" in better[-2].partition("not told apart: ")[2]
    assert len(better) == 10 + 4
