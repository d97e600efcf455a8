import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from jepakit.core.draws import uniform_draws
from jepakit.data.images.augment import BOX_DRAWS, PHOTO_DRAWS, Augment, centre_box, change_colours, place_box
from jepakit.data.images.box import Box
from jepakit.types import Rng


def draws(n, width):
    return uniform_draws(Rng(0), np.arange(n, dtype=np.int64), width)


@pytest.mark.parametrize("shape", [(300, 400), (64, 1000), (3, 3), (1, 50)])
def test_boxes_lie_inside_the_image_whatever_its_shape(shape):
    for u in draws(500, BOX_DRAWS).tolist():
        box = place_box(u, *shape, (224, 224), (0.3, 1.0), (3 / 4, 4 / 3), 0.5)
        assert 0 <= box.left < box.left + box.width <= shape[1]
        assert 0 <= box.top < box.top + box.height <= shape[0]


def test_boxes_cover_the_areas_and_aspects_asked_for_and_reach_every_corner():
    boxes = np.array(
        [place_box(u, 1000, 1000, (64, 64), (0.1, 0.4), (0.5, 2.0), 0.25) for u in draws(4000, BOX_DRAWS).tolist()]
    )
    area, aspect = boxes[:, 2] * boxes[:, 3] / 1e6, np.log(boxes[:, 2] / boxes[:, 3])
    assert area.min() == pytest.approx(0.1, abs=0.003)
    assert area.max() == pytest.approx(0.4, abs=0.003)
    assert area.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(aspect).max() == pytest.approx(np.log(2), abs=0.01)
    assert aspect.mean() == pytest.approx(0, abs=0.03)
    assert boxes[:, 4].mean() == pytest.approx(0.25, abs=0.03)
    assert boxes[:, :2].min() < 10
    assert (boxes[:, 0] + boxes[:, 2]).max() > 990


def test_no_crop_and_no_change_of_aspect_is_the_centre_crop():
    u = [0.5] * BOX_DRAWS
    assert place_box(u, 40, 40, (8, 8), (1.0, 1.0), (1.0, 1.0), 0.0) == Box(0, 0, 40, 40) == centre_box(40, 40, (8, 8))
    assert place_box(u, 40, 60, (8, 8), (1.0, 1.0), (1.0, 1.0), 0.0) == centre_box(40, 60, (8, 8)) == Box(10, 0, 40, 40)
    assert centre_box(40, 60, (8, 16)) == Box(0, 5, 60, 30)


def test_photometric_changes_keep_pixels_in_range_and_depend_on_each_row_alone():
    x = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    cfg = Augment(jitter=(0.8, 0.8, 0.8, 0.2), gray=0.5, blur=0.5, solarize=0.5)
    u = draws(8, PHOTO_DRAWS)
    y = change_colours(x, u, cfg)
    assert y.min() >= 0
    assert y.max() <= 1
    assert_close(torch.cat([change_colours(x[:3], u[:3], cfg), change_colours(x[3:], u[3:], cfg)]), y)
    assert not torch.equal(y, x)


def test_a_single_large_picture_changes_to_the_bit_as_in_a_batch_however_many_threads_there_are():
    x = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    cfg = Augment(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=1.0, gray=0.5, blur=0.5, solarize=0.5)
    u, threads = draws(3, PHOTO_DRAWS), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole = change_colours(x, u, cfg)
        alone = torch.cat([change_colours(x[k : k + 1], u[k : k + 1], cfg) for k in range(3)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, whole)


def test_probabilities_of_one_and_zero_do_what_they_say():
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    u = draws(4, PHOTO_DRAWS)
    gray = change_colours(x, u, Augment(gray=1.0))
    assert_close(gray[:, 0], gray[:, 2])
    assert_close(change_colours(x, u, Augment(solarize=1.0)), torch.where(x >= 0.5, 1 - x, x))
    blurred = change_colours(x, u, Augment(blur=1.0))
    assert (blurred.var((2, 3)) <= x.var((2, 3))).all()
    assert (blurred.var((2, 3)) < 0.5 * x.var((2, 3))).any()
    assert torch.equal(change_colours(x, u, Augment(jitter=(0.5, 0.0, 0.0, 0.0), jitter_prob=0.0)), x)


def test_brightness_and_contrast_scale_about_black_and_the_mean():
    x = 0.25 + 0.25 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    u = np.full((1, PHOTO_DRAWS), 0.75)
    u[:, 4] = 0
    assert_close(change_colours(x, u, Augment(jitter=(0.8, 0.0, 0.0, 0.0))), x * 1.4)
    y = change_colours(x, u, Augment(jitter=(0.0, 0.8, 0.0, 0.0)))
    assert_close(y.std(), x.std() * 1.4, rtol=0.05, atol=0)


def test_colour_changes_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="need 3 channels but the data have 13"):
        Augment(gray=0.2).check(13)
    Augment(jitter=(0.4, 0.4, 0.0, 0.0), blur=0.5).check(13)


@pytest.mark.parametrize("wrong", [{"crop": (0.0, 1.0)}, {"crop": (0.9, 0.3)}, {"aspect": (0.0, 1.0)}, {"flip": 1.5}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=r"give|probability"):
        Augment(**wrong)


@pytest.mark.slow
def test_importing_the_data_package_imports_neither_kornia_nor_pyarrow_nor_torchvision():
    code = "import sys, jepakit.data; print(sorted({'kornia', 'pyarrow', 'torchvision', 'sklearn'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
