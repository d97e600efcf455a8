"""Dense probes: masks beside images, segmentation against scikit-learn, J and F against hand-computed cases."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from jepakit.data import guess_kind, loader
from jepakit.data.images import files, scenes, synthetic
from jepakit.evals import probing
from jepakit.evals.kinds import dense
from jepakit.evals.metrics import films, result, segments
from jepakit.evals.runs import probe_run
from jepakit.evals.split import held_rows
from jepakit.evals.tokens import Tokens
from jepakit.methods import ijepa
from jepakit.types import Signal

SIGNAL = Signal(3, (32, 32))
SCENES = synthetic.Config("scenes", count=120)


def random_masks(*shape: int, classes: int = 4, unknown: bool = True, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    ids = rng.integers(classes, size=shape)
    return torch.from_numpy(np.where(rng.random(shape) < 0.1, 255, ids) if unknown else ids)


# --- scenes


def test_a_scene_is_three_shapes_whose_mask_follows_their_outlines() -> None:
    found = SCENES.open()
    assert isinstance(found, scenes.Scenes)
    for i in range(0, 120, 8):
        ids = set(np.unique(found.mask(i, found.native)).tolist())
        assert 0 in ids
        assert len(ids) <= 4
        assert found.label(i) + 1 in ids  # the front shape is never hidden
        picture, mask = found.raw(i), torch.from_numpy(found.mask(i, found.native))
        front = picture[:, mask == found.label(i) + 1]
        assert front.std(1).max() < 0.2  # one colour, but for the outline
    shown = np.concatenate([np.unique(found.mask(i, found.native)) for i in range(120)])
    assert set(shown.tolist()) == {0, 1, 2, 3, 4, 5}


def test_a_film_has_the_same_shapes_throughout_which_move_a_little() -> None:
    found = SCENES.open()
    for film in range(15):
        rows = np.flatnonzero(found.films == film)
        assert len(rows) == scenes.FRAMES_PER_FILM
        assert len({found.label(int(i)) for i in rows}) == 1
        for a, b in itertools.pairwise(rows):
            one, two = (found.mask(int(i), found.native) == found.label(int(a)) + 1 for i in (a, b))
            assert 0.3 < segments.jaccard(torch.from_numpy(one), torch.from_numpy(two)) <= 1
    changed = (found.masks[:-1] != found.masks[1:]).any((1, 2))
    assert changed.mean() > 0.9


def test_a_film_belongs_to_one_part_whatever_the_number_of_pictures() -> None:
    cfg = replace(SCENES, count=90, held_out=0.3)
    whole, train, test = (replace(cfg, split=part).open() for part in ("all", "train", "test"))
    assert not set(train.films) & set(test.films)
    np.testing.assert_array_equal(whole.films, np.concatenate([train.films, test.films]))
    np.testing.assert_array_equal(whole.masks, np.concatenate([train.masks, test.masks]))
    assert guess_kind("scenes")[0] == "synthetic"


# --- masks


def folder_of_films(root: Path, count: int = 4, frames: int = 3, size: int = 32) -> Path:
    """Scenes as files: a folder per film, JPEG and PNG frames, grey and palette masks."""
    found = synthetic.Config("scenes", count=count * 8, size=(size, size)).open()
    for i in range(count * 8):
        if i % 8 < frames:
            folder = root / f"film{i // 8}"
            folder.mkdir(parents=True, exist_ok=True)
            picture = (found.raw(i) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(picture).save(folder / f"{i % 8:03d}.{'png' if i % 2 else 'jpg'}", quality=95)
            mask = Image.fromarray(found.mask(i, found.native))
            if i % 3 == 0:
                mask = mask.convert("P")
                mask.putpalette([v for k in range(256) for v in (255 - k, k, 7)])
            mask.save(folder / f"{i % 8:03d}.mask.png")
    return root


def test_masks_beside_images_are_read_and_are_no_images_themselves(tmp_path: Path) -> None:
    found = files.Config(str(folder_of_films(tmp_path))).open()
    want = synthetic.Config("scenes", count=32).open()
    assert len(found) == 12
    assert found.classes == ("film0", "film1", "film2", "film3")
    for k in range(12):
        np.testing.assert_array_equal(found.mask(k, want.native), want.mask(k // 3 * 8 + k % 3, want.native))
        assert found.film(k) == f"film{k // 3}"


def test_a_mask_is_cut_as_its_image_is(tmp_path: Path) -> None:
    """A mask painted in the colours of its image ends where the image ends."""
    mask = (np.indices((40, 60)).sum(0) // 13 % 5).astype(np.uint8)
    Image.fromarray(np.stack([mask * 50] * 3, -1)).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    cfg = files.Config(str(tmp_path), size=(20, 20))
    batch = next(loader.read_stream(cfg.open(), Signal(3, (20, 20)), batch=1)).to("cpu")
    cut = cfg.open().mask(0, (20, 20))
    assert cut.shape == (20, 20)
    painted = batch.x[0, 0].numpy() * 255 / 50
    assert np.abs(painted - cut).mean() < 0.3
    assert np.corrcoef(painted.ravel(), cut.ravel())[0, 1] > 0.95


def png(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p: p.unlink(), r"film1/000.jpg has no mask; put 000.mask.png beside it, a PNG of 8-bit class ids"),
        (lambda p: png(p, np.zeros((32, 30), np.uint8)), "is 30 x 32, but its image 32 x 32; make it as large"),
        (lambda p: png(p, np.zeros((32, 32), np.uint16)), r"holds 16-bit values, .*; save ids 0 … 254 .* as a grey or"),
        (lambda p: png(p, np.zeros((32, 32, 3), np.uint8)), "holds RGB colours, not class ids of 8 bits"),
        (lambda p: p.write_bytes(b"no picture"), "cannot be read"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "cannot be read"),
    ],
)
def test_a_mask_that_is_wrong_is_one_sentence_before_anything_is_encoded(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of_films(tmp_path / "data")
    run = support.untrained_run(tmp_path / "run", files.Config(str(data), size=(32, 32)), SIGNAL)
    spoil(data / "film1" / "000.mask.png")
    monkeypatch.setattr(ijepa.IJEPA, "encode", lambda *args: pytest.fail("something was encoded"))
    with pytest.raises(ValueError, match=sentence):
        probe_run(run, ["dense"])


def test_data_without_masks_say_so(tmp_path: Path) -> None:
    run = support.untrained_run(tmp_path / "run", synthetic.Config("shapes", count=40), SIGNAL)
    with pytest.raises(ValueError, match=r"give a folder of images with a.mask.png beside each a.jpg, or .* scenes"):
        probe_run(run, ["dense"])


def test_a_class_that_only_the_test_masks_hold_is_one_sentence(tmp_path: Path) -> None:
    data, other = (folder_of_films(tmp_path / name) for name in ("data", "other"))
    mask = np.array(Image.open(other / "film0" / "000.mask.png"))
    mask[0, 0] = 77
    png(other / "film0" / "000.mask.png", mask)
    run = support.untrained_run(tmp_path / "run", files.Config(str(data), size=(32, 32)), SIGNAL)
    with pytest.raises(
        ValueError, match="the test masks hold the class 77, which the training masks lack; they hold 0"
    ):
        probe_run(run, ["dense"], str(data), str(other))


# --- segmentation


def test_mean_iou_is_scikit_learns() -> None:
    truth, pred = random_masks(5, 9, 7), random_masks(5, 9, 7, unknown=False, seed=1)
    counts = segments.overlap_counts(pred, truth, 6)  # classes 4 and 5 are nowhere
    known = truth != 255
    want = jaccard_score(truth[known], pred[known], average=None, labels=range(4))
    np.testing.assert_allclose(segments.iou(counts.sum(0))[:4], want)
    assert np.isnan(segments.iou(counts.sum(0))[4:]).all()
    assert float(segments.mean_iou(counts.sum(0))) == pytest.approx(want.mean())
    one = jaccard_score(truth[0][known[0]], pred[0][known[0]], average="macro", labels=range(4))
    assert segments.mean_iou(counts)[0] == pytest.approx(one)


def test_a_class_that_is_predicted_but_not_there_counts_as_zero() -> None:
    truth, pred = torch.zeros(1, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64)
    pred[0, 0, 0] = 2
    assert float(segments.mean_iou(segments.overlap_counts(pred, truth, 3).sum(0))) == pytest.approx((15 / 16 + 0) / 2)


def test_the_share_of_a_class_in_a_token_is_that_of_its_pixels() -> None:
    truth = random_masks(3, 8, 12)
    found = segments.class_shares(truth, 4, (2, 3))
    cells = truth.reshape(3, 2, 4, 3, 4).permute(0, 1, 3, 2, 4).reshape(3, 6, 16)
    for k in range(4):
        torch.testing.assert_close(found[..., k], (cells == k).float().mean(-1))
    torch.testing.assert_close(found.sum(-1), (cells != 255).float().mean(-1))


def told(n: int, noise: float = 0.3, seed: int = 0) -> Tokens:
    """Tokens on a 4 x 4 grid that tell the class of their patch, and masks of 8 x 8 in whole patches."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, size=(n, 4, 4))
    x = np.eye(3, 5)[ids.reshape(n, 16)] + noise * rng.normal(size=(n, 16, 5))
    masks = ids.repeat(2, 1).repeat(2, 2).astype(np.uint8)
    every = np.arange(n)
    return Tokens(x.astype(np.float16), every, np.full(n, -1), every, (4, 4), masks)


def test_a_linear_segmentation_finds_what_the_tokens_tell() -> None:
    found = dict(dense.evaluate(told(60, 0.4), told(30, 0.4, seed=1), dense.Config()))
    assert (found["name"], found["metric"]) == ("miou", "mean IoU")
    assert found["value"] > 0.75
    assert found["low"] < found["value"] < found["high"]
    assert len(found["per_class"]) == 3
    noise = dict(dense.evaluate(told(60, 5.0), told(30, 5.0, seed=1), dense.Config()))
    assert noise["value"] < 0.4


def test_the_regularisation_is_chosen_without_the_test_part() -> None:
    train, test, cfg = told(40, 1.5), told(20, 1.5, seed=1), dense.Config(l2=(1e-6, 1e-1, 10.0))
    foul = replace(test, masks=(test.masks + 1) % 3)
    fair, spoiled = (dict(dense.evaluate(train, part, cfg)) for part in (test, foul))
    assert fair["l2"] == spoiled["l2"] != 10.0
    assert fair["value"] > spoiled["value"]


def test_what_is_unknown_changes_nothing() -> None:
    train = told(30)
    unknown = np.arange(64).reshape(8, 8) % 7 == 0
    one = replace(train, masks=np.where(unknown, 255, train.masks).astype(np.uint8))
    assert one.classes() == {0, 1, 2}
    other = told(20, seed=1)
    spoiled = replace(other, masks=np.where(unknown, 255, other.masks).astype(np.uint8))
    assert dense.evaluate(one, spoiled, dense.Config())
    counts = segments.overlap_counts(other.truth(np.arange(20)), spoiled.truth(np.arange(20)), 3)
    assert (segments.iou(counts.sum(0)) == 1).all()
    assert counts[:, 2].sum() == 20 * (64 - unknown.sum())


def test_the_interval_covers_what_another_draw_of_pictures_would_say() -> None:
    """Of 95 % intervals from 40 pictures each, most hold the value over very many."""
    rng = np.random.default_rng(0)
    hits = rng.binomial(64, 0.6, size=(4000, 1))
    counts = np.stack([hits, np.full_like(hits, 64), np.full_like(hits, 64)], 1)
    truth = float(segments.mean_iou(counts.sum(0)))
    inside = []
    for part in counts.reshape(100, 40, 3, 1):
        drawn = np.tensordot(result.bootstrap_counts(40), part, axes=1)
        low, high = result.bootstrap_interval(float(segments.mean_iou(part.sum(0))), segments.mean_iou(drawn))
        inside.append(low <= truth <= high)
    assert 0.85 < np.mean(inside) < 1


# --- J and F


def square(at: int, side: int = 10, size: int = 40) -> torch.Tensor:
    region = torch.zeros(size, size, dtype=torch.bool)
    region[15 : 15 + side, at : at + side] = True
    return region


def test_j_and_f_of_identical_regions_are_one_and_of_distant_ones_zero() -> None:
    assert segments.jaccard(square(5), square(5)) == segments.contour_accuracy(square(5), square(5)) == 1
    assert segments.jaccard(square(2), square(28)) == segments.contour_accuracy(square(2), square(28)) == 0
    empty = torch.zeros(40, 40, dtype=torch.bool)
    assert segments.jaccard(empty, empty) == segments.contour_accuracy(empty, empty) == 1
    assert segments.jaccard(square(5), empty) == segments.contour_accuracy(square(5), empty) == 0


@pytest.mark.parametrize("shift", [1, 3, 7])
def test_j_of_a_shifted_square_is_its_closed_form(shift: int) -> None:
    assert segments.jaccard(square(5), square(5 + shift)) == pytest.approx((10 - shift) / (10 + shift))


def test_f_of_a_shifted_square_is_its_closed_form() -> None:
    """The outline of 10 x 10 pixels is the border of 11 x 11: 40 pixels, of which the near ones are counted by hand."""
    region, tolerance = square(5), 0.008  # of 40 x 40: within one pixel
    assert int(segments.region_outline(region).sum()) == 40
    assert segments.contour_accuracy(region, square(6), tolerance) == 1.0  # one pixel off is within the tolerance
    # Shifted by 3: of 11 pixels of the top 8 lie on the other's and 1 beside its end, the same at the bottom; of the 9
    # of each side those next to the other's top and bottom are near, on one side only.
    assert segments.contour_accuracy(region, square(8), tolerance) == pytest.approx((9 + 9 + 2) / 40)


def test_an_outline_at_the_border_of_the_picture_is_none() -> None:
    everything = torch.ones(6, 6, dtype=torch.bool)
    assert not segments.region_outline(everything).any()
    half = everything.clone()
    half[:, 3:] = False
    assert segments.region_outline(half).sum() == 6


def film_tokens(shifts: list[int], noise: float = 0.0) -> Tokens:
    """One film of a square of 2 x 2 tokens that jumps along an 8 x 8 grid, in tokens that tell object from ground."""
    masks = np.zeros((len(shifts), 16, 16), np.uint8)
    for frame, at in enumerate(shifts):
        masks[frame, 4:8, 2 * at : 2 * at + 4] = 3
    told = masks[:, ::2, ::2].reshape(len(shifts), 64) == 3
    x = np.where(told[..., None], [1.0, 0.1], [0.1, 1.0]) + noise * np.random.default_rng(0).normal(
        size=(*told.shape, 2)
    )
    every = np.arange(len(shifts))
    return Tokens(
        x.astype(np.float16), every, np.full(len(shifts), -1), every, (8, 8), masks, np.zeros(len(shifts), int)
    )


RULE = films.Rule(k=4, context=7, radius=12, temperature=0.1)


def test_labels_follow_tokens_that_stay_alike() -> None:
    (score,) = films.object_scores(film_tokens([0, 1, 2, 4]), RULE)
    # At a corner of the square the interpolated share is 9 / 16, beside it at most 1 / 4.
    assert score.j == score.f == 1.0


def test_labels_do_not_follow_noise() -> None:
    (score,) = films.object_scores(film_tokens([0, 1, 2, 4], noise=50.0), RULE)
    assert score.j < 0.4


def test_what_is_too_far_away_is_not_looked_at() -> None:
    (near,) = films.object_scores(film_tokens([0, 6]), RULE._replace(radius=3))
    (far,) = films.object_scores(film_tokens([0, 6]), RULE._replace(radius=6))
    assert near.j == 0 < far.j
    close = films.neighbour_mask((2, 3), 1, torch.device("cpu"))
    assert close[0].tolist() == [True, True, False, True, True, False]


def test_frames_in_between_carry_over_what_the_first_is_too_far_for() -> None:
    part = film_tokens([0, 2, 4, 6])
    assert all(s.j > 0.5 for s in films.object_scores(part, RULE._replace(radius=3)))
    (alone,) = films.object_scores(part, RULE._replace(radius=3, context=0))
    assert alone.j < 0.6


def test_films_of_one_frame_or_without_an_object_have_no_score() -> None:
    assert not list(films.object_scores(film_tokens([3]), RULE))
    part = film_tokens([0, 1])
    assert not list(films.object_scores(replace(part, masks=np.zeros_like(part.masks)), RULE))
    with pytest.raises(ValueError, match="no film of the test part has two frames and an object"):
        list(dense._film_results([]))


def test_whole_films_are_held_out() -> None:
    part = told(40)
    part = replace(part, sequence=np.arange(40) // 4)
    held = held_rows(part)
    assert held.sum() == 8
    assert {bool(h) for h in held.reshape(10, 4).std(1)} == {False}
    with pytest.raises(ValueError, match="there is only one film"):
        probing.split_parts({"value": replace(part, sequence=np.zeros(40, int))})
    with pytest.raises(ValueError, match="l2 cannot be chosen on 40 pictures; give one value"):
        dense.choose_l2(replace(part, sequence=np.zeros(40, int)), dense.Config(), 3)


def test_masks_that_say_nothing_are_one_sentence() -> None:
    part = told(10)
    with pytest.raises(ValueError, match=r"every pixel of the masks of a part is unknown \(255\)"):
        list(dense.evaluate(part, replace(part, masks=np.full_like(part.masks, 255)), dense.Config()))


# --- from a run


def test_a_run_is_judged_on_scenes_with_both_measures_beside_both_baselines(tmp_path: Path) -> None:
    run = support.untrained_run(tmp_path / "run", replace(SCENES, split="train", held_out=0.2), SIGNAL)
    paths = probe_run(run, ["dense"], settings={"dense.films": True})
    assert [path.name for path in paths] == ["dense-miou.json", "dense-jf.json"]
    for path in paths:
        found = support.read_json(path)
        assert 0 < found["low"] <= found["value"] <= found["high"] < 1
        assert found["value"] == found["random_init"]
        assert 0 < found["raw"] < 1
        assert (found["n_train"], found["n_test"]) == (96, 24)
    miou, jf = (support.read_json(path) for path in paths)
    assert set(miou["per_class"]) <= {"0", "1", "2", "3", "4", "5"}
    assert miou["value"] == pytest.approx(np.mean(list(miou["per_class"].values())))
    assert jf["value"] == pytest.approx((jf["notes"]["J"] + jf["notes"]["F"]) / 2)


def test_pictures_with_masks_need_no_labels_and_a_single_result_keeps_its_name(tmp_path: Path) -> None:
    root = folder_of_films(tmp_path / "data", frames=8)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in root.rglob("*.*"):
        path.rename(flat / f"{path.parent.name}-{path.name}")
    run = support.untrained_run(tmp_path / "run", files.Config(str(flat), size=(32, 32)), SIGNAL)
    (only,) = probe_run(run, ["dense"], name="again", settings={"dense.l2": [1e-2], "dense.iterations": 10})
    found = support.read_json(only)
    assert found["n_train"] + found["n_test"] == 32
    assert only.name == "dense-miou-again.json"
