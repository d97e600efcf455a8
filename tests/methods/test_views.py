"""Methods that compare views: what each loss says, views of several sizes, views chosen where none are asked for."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import torch.nn.functional as F
from torch import Tensor

from jepakit import losses, methods, testing
from jepakit.core import distributed
from jepakit.data.images import synthetic
from jepakit.data.images.augment import Augment, Views
from jepakit.methods import cjepa, ijepa, lejepa, simclr, vicreg
from jepakit.methods.base import Method
from jepakit.methods.joint import JointEmbedding
from jepakit.nn.heads import Projector
from jepakit.run.settings import Length, Run
from jepakit.training import resolve, session
from jepakit.types import Batch, Rng, Signal

SIGNAL = Signal(3, (16, 16), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2), views=5)
NAMES = ["lejepa", "simclr", "vicreg"]


@pytest.fixture
def batch() -> Batch:
    """Two views of the signal's size and three of half of it."""
    whole = testing.example(replace(SIGNAL, views=2))
    local = testing.example(replace(SIGNAL, size=(8, 8), views=3))
    return replace(whole, views=(*whole.views, *local.views))


def build(name: str, **changes: Any) -> JointEmbedding:
    built = methods.build(replace(methods.load(name).Config.tiny(SIGNAL), **changes), SIGNAL)
    assert isinstance(built, JointEmbedding)
    return built


def embeddings(method: JointEmbedding, batch: Batch) -> Tensor:
    """Each view by itself: encoded, averaged over its tokens, projected with the others."""
    views = [group[:, v] for group in batch.views for v in range(group.shape[1])]
    return method.projector(torch.stack([method.encoder(method.normalize(x)).mean(1) for x in views]))


@pytest.mark.parametrize("name", NAMES)
def test_views_of_several_sizes_are_embedded_one_by_one_in_their_order(name: str, batch: Batch) -> None:
    method = build(name)
    torch.testing.assert_close(method.embed(batch), embeddings(method, batch))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_reads_the_views_alone(name: str, batch: Batch) -> None:
    method = build(name)
    loss = method.loss(batch, Rng(0)).total
    assert torch.equal(method.loss(replace(batch, x=1 - batch.x), Rng(0)).total, loss)
    other = (batch.views[0].roll(1, 0), *batch.views[1:])
    assert not torch.equal(method.loss(replace(batch, views=other), Rng(0)).total, loss)


def test_vicreg_weighs_its_three_terms_over_all_views(batch: Batch) -> None:
    method = build("vicreg", sim=2.0, std=3.0, cov=4.0)
    plain = losses.vicreg(embeddings(method, batch))
    expected = {k: w * plain[k] for k, w in (("invariance", 2), ("variance", 3), ("covariance", 4))}
    torch.testing.assert_close(dict(method.loss(batch, Rng(0)).loss), expected)


def test_lejepa_compares_every_view_with_the_mean_of_the_global_ones(batch: Batch) -> None:
    method = build("lejepa", weight=0.25)
    z = embeddings(method, batch)
    found = method.loss(batch, Rng(4)).loss
    torch.testing.assert_close(found["invariance"], 0.75 * (z - (z[0] + z[1]) / 2).square().mean())
    along = losses.unit_directions(8, 64, Rng(4).fork("directions"))
    torch.testing.assert_close(found["sigreg"], 0.25 * torch.stack([losses.sigreg(v, along) for v in z]).mean())


@pytest.mark.parametrize("decoupled", [False, True])
def test_simclr_is_the_mean_over_all_pairs_of_views(batch: Batch, decoupled: bool) -> None:
    method = build("simclr", temperature=0.3, decoupled=decoupled)
    pairs = [losses.info_nce(a, b, 0.3, decoupled) for a, b in combinations(embeddings(method, batch), 2)]
    found = method.loss(batch, Rng(0))
    torch.testing.assert_close(found.total, torch.stack(pairs).mean())
    assert found.compared is not None
    for rows, z in zip(found.compared, embeddings(method, batch), strict=False):
        torch.testing.assert_close(rows, F.normalize(z.detach(), dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_energy_is_zero_for_equal_samples_and_the_methods_distance_for_others(name: str, batch: Batch) -> None:
    method = build(name).eval()
    a, b = (method.projector(method.encode(x).mean(1)) for x in (batch.x, batch.x.roll(1, 0)))
    distance = 1 - F.cosine_similarity(a, b) if name == "simclr" else (a - b).square().mean(1)
    torch.testing.assert_close(method.energy(batch.x, batch.x.roll(1, 0)), distance)
    torch.testing.assert_close(method.energy(batch.x, batch.x), torch.zeros(len(batch)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [*NAMES, "cjepa"])
def test_a_single_view_is_refused(name: str) -> None:
    one = replace(SIGNAL, views=1)
    cfg = methods.load(name).Config.tiny(one)
    with pytest.raises(ValueError, match=r"there is 1; set data\.augment\.views to 2 or more"):
        methods.build(replace(cfg, pairs="views") if name == "cjepa" else cfg, one)


@pytest.mark.parametrize("name", NAMES)
def test_one_sample_at_a_time_is_refused(name: str) -> None:
    build(name).check(2)
    with pytest.raises(ValueError, match=r"2 samples at a time .* not 1; raise length\.batch"):
        build(name).check(1)


def test_a_width_that_the_batch_cannot_hold_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^9000 projected features .* method\.projector\.out 597 or less"):
        build("vicreg", projector=Projector(out=9000)).check(8)


def test_a_width_that_the_batch_holds_down_is_noted_before_step_1(tmp_path: Path) -> None:
    settings = methods.load("vicreg").Config.tiny(replace(SIGNAL, size=(32, 32)))
    data = synthetic.Config(path="shapes", count=60, size=(32, 32))
    for out, noted in ((256, 1), (16, 0)):
        run = Run(replace(settings, projector=Projector(layers=2, out=out)), data, length=Length(steps=1, batch=8))
        notes = session.build_session(run, tmp_path, distributed.Dist()).notes
        assert len([note for note in notes if "comes to 0.44 at best" in note]) == noted


@pytest.mark.parametrize(
    "wrong", [{"weight": 1.5}, {"weight": -0.1}, {"directions": 0}, {"knots": 1}], ids=lambda w: next(iter(w))
)
def test_settings_of_lejepa_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give a weight from 0 to 1"):
        lejepa.Config(**wrong)


def test_a_temperature_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0; give a number above 0"):
        simclr.Config(temperature=0.0)


PICTURES = synthetic.Config("shapes", count=4).open()


def run(method: Any, augment: Augment | None = None) -> Run:
    return Run(method, synthetic.Config(augment=augment or Augment()))


@pytest.mark.parametrize("method", [vicreg.Config(), cjepa.Config(pairs="views")], ids=["vicreg", "cjepa-views"])
def test_a_method_of_views_gets_two_strong_ones_with_the_reason_where_none_are_asked_for(method: Any) -> None:
    chosen, dataset, notes = support.resolve_data(run(method), PICTURES)
    augment = chosen.data.augment
    assert augment.views == (Views(count=2),)
    assert (augment.flip, augment.gray) == (0.5, 0.2)
    assert min(augment.jitter) > 0
    assert [note.key for note in notes] == ["data.augment.views", "data.augment"]
    assert all(note.reason for note in notes)
    # Chosen once: a run that goes on, or is repeated from its own settings, has the same.
    again, _, none = support.resolve_data(chosen, dataset)
    assert (again, none) == (chosen, [])


def test_gray_pictures_get_no_change_of_colour() -> None:
    digits = synthetic.Config("digits", count=4).open()
    augment = support.resolve_data(run(vicreg.Config()), digits)[0].data.augment
    augment.check(channels=1)
    assert augment.jitter[0] > 0


def test_an_augmentation_of_ones_own_is_kept_and_only_views_are_added() -> None:
    own = Augment(crop=(0.5, 1.0), flip=0.1)
    assert support.resolve_data(run(vicreg.Config(), own), PICTURES)[0].data.augment == replace(own, views=(Views(),))
    asked = replace(own, views=(Views(count=3),))
    assert support.resolve_data(run(vicreg.Config(), asked), PICTURES)[0].data.augment == asked


@pytest.mark.parametrize("method", [ijepa.Config(), cjepa.Config()], ids=["ijepa", "cjepa"])
def test_a_method_without_views_gets_none(method: Any) -> None:
    same, _, notes = support.resolve_data(run(method), PICTURES)
    assert (same, notes) == (run(method), [])


def test_views_that_the_patch_does_not_divide_are_refused() -> None:
    asked = run(vicreg.Config(), Augment(views=(Views(), Views(count=4, size=(14, 14)))))
    method, _ = vicreg.VICReg.fit_config(asked.method, Signal(3, (32, 32)))
    with pytest.raises(
        ValueError, match=r"^data\.augment\.views\.1\.size: patch \(4, 4\) does not divide size \(14, 14\)"
    ):
        resolve.check_views(asked.data, method, (32, 32))


def test_accumulation_of_statistics_is_said() -> None:
    (note,) = resolve.micro_batch_notes(Length(batch=64, accumulate=4), vicreg.VICReg)
    assert str(note) == "length.accumulate = 4 (statistics are over 16 samples at a time, not 64)"
    assert not resolve.micro_batch_notes(Length(batch=64), vicreg.VICReg)
    assert not resolve.micro_batch_notes(Length(batch=64, accumulate=4), ijepa.IJEPA)


def test_methods_say_whether_their_loss_mixes_samples() -> None:
    mixing = {name for name in methods.METHODS.names() if methods.load(name).Method.batch_statistics}
    assert mixing >= {"cjepa", "lejepa", "simclr", "vicreg"}
    assert not mixing & {"ijepa", "mae"}
    assert not Method.batch_statistics
