"""Recipes with published values: the sizes and the schedules are the paper's, and real steps run."""

import dataclasses

import numpy as np
import pytest
import support
import torch

from jepakit import api, methods, recipes
from jepakit.core import schedules
from jepakit.run import checkpoint, optim
from jepakit.studies.cjepa import cjepa_series
from jepakit.types import Batch, Rng, Signal

IMAGE = Signal(3, (224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PUBLISHED = {"imagenet-cjepa-vitb16": (600, 15), "imagenet-ijepa-vitb16": (600, 15), "imagenet-ijepa-vith14": (300, 40)}


@pytest.mark.parametrize(
    ("name", "encoder", "predictor"),
    [
        ("imagenet-cjepa-vitb16", 85.6e6, 11.2e6),
        ("imagenet-ijepa-vitb16", 85.6e6, 11.2e6),
        ("imagenet-ijepa-vith14", 630.4e6, 22.3e6),
    ],
)
def test_a_published_recipe_has_the_published_number_of_parameters(name, encoder, predictor):
    with torch.device("meta"):
        method = methods.build(recipes.load_recipe(name).method, IMAGE)
    assert sum(p.numel() for p in method.encoder.parameters()) == pytest.approx(encoder, rel=1e-3)
    assert sum(p.numel() for p in method.predictor.parameters()) == pytest.approx(predictor, rel=5e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_schedules_of_a_published_recipe_pass_through_the_published_values(name):
    run, (epochs, warm) = recipes.load_recipe(name), PUBLISHED[name]
    steps = run.length.steps
    assert steps == epochs * (1_281_167 // 2048)
    top = round(warm / epochs * (steps - 1))
    first, peak, last = (optim.learning_rate(run.optim, schedules.run_progress(k, steps)) for k in (0, top, steps - 1))
    assert (first, last) == ({15: 1e-4, 40: 2e-4}[warm], 1e-6)
    assert peak == pytest.approx(1e-3, rel=1e-3)
    assert [optim.weight_decay(run.optim, p) for p in (0.0, 1.0)] == [0.04, 0.4]
    assert [schedules.linear_schedule(p, *run.method.ema) for p in (0.0, 1.0)] == [0.996, 1.0]


def test_cjepa_differs_from_ijepa_by_the_published_terms_alone():
    run, plain = (recipes.load_recipe(f"imagenet-{name}-vitb16") for name in ("cjepa", "ijepa"))
    assert dataclasses.replace(run, method=plain.method) == plain
    shared = {f.name for f in dataclasses.fields(plain.method)}
    own = {f.name: getattr(run.method, f.name) for f in dataclasses.fields(run.method) if f.name not in shared}
    assert all(getattr(run.method, name) == getattr(plain.method, name) for name in shared)
    projector = own.pop("projector")
    assert own == {"pairs": "blocks", "b_vic": 0.001, "sim": 25.0, "std": 25.0, "cov": 1.0}
    assert (projector.layers, projector.width(768)) == (2, 768)
    with torch.device("meta"):
        method = methods.build(run.method, IMAGE)
    method.check(run.length.batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_two_real_steps_of_a_published_recipe_change_the_encoder_and_keep_the_loss_finite(name):
    # The huge encoder at full depth needs 13 GB of weights, gradients and moments; its width and heads are kept.
    run = recipes.load_recipe(name)
    shallow = dataclasses.replace(run.method.encoder, depth=min(run.method.encoder.depth, 12))
    method = methods.build(dataclasses.replace(run.method, encoder=shallow), IMAGE)
    optimizer = optim.build_optimizer(run.optim, method)
    before = method.encoder.norm.weight.clone()
    for step in range(2):
        optim.set_schedule(optimizer, run.optim, schedules.run_progress(step, 2))
        terms = method(Batch(torch.rand(2, 3, 224, 224)), Rng(0, step))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        method.after_step(schedules.run_progress(step, 2))
        assert terms.total.isfinite()
    assert not torch.equal(before, method.encoder.norm.weight)


def odd_and_unequal(path, count, seed):
    """Slow and fast waves of 20 to 25 steps with labels, NaN after their ends."""
    x, y = support.two_kinds(count, 25, seed)
    x[:, :, 20:][::3] = np.nan
    np.savez(path, x=x, y=y)
    return path


def test_the_recipe_of_labelled_series_takes_halves_of_series_of_odd_and_unequal_lengths(tmp_path):
    train, test = (odd_and_unequal(tmp_path / f"{k}.npz", 40, k) for k in range(2))
    seen = support.Recorder()
    settings = {"data.split": "all", "evals.kinds": [], "evals.report": False}
    run = tmp_path / "run"
    api.train(train, run, recipe="series-classes", steps=3, settings=settings, progress=seen)
    assert "samples are stretched from 25 to 26 steps, 2 whole patches" in seen.notes
    loaded = checkpoint.load_run(run)
    assert (loaded.method.signal.size, loaded.run.method.encoder.patch) == ((26,), (13,))
    result = support.read_json(api.probe(run, "linear", test=test))
    assert (result["settings"]["pool"], result["settings"]["l2"], result["n_test"]) == ("flat", [0.01], 40)


def test_the_study_of_labelled_series_trains_the_recipe():
    recipe = recipes.load_recipe("series-classes")
    for arm in (arm for arm in cjepa_series.STUDY.arms if arm.name == "C-JEPA"):
        half = dataclasses.replace(recipe.method.encoder, patch=(cjepa_series.SERIES_LENGTHS[arm.data] // 2,))
        assert arm.run.method == dataclasses.replace(recipe.method, encoder=half)
        assert (arm.run.optim, arm.run.length) == (recipe.optim, recipe.length)
    assert cjepa_series.STUDY.options == recipe.evals.probe_settings


@pytest.mark.parametrize("name", recipes.RECIPES.names())
def test_every_recipe_says_in_its_docstring_the_command_that_runs_it(name):
    assert f"jepa train {name}" in (recipes.RECIPES.load(name).__doc__ or "")
