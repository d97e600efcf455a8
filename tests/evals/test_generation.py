"""What is measured of completed samples: by hand, by formula, and what it must not depend on."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from jepakit.evals.metrics.generation import Tally, gradient_energy, ssim, ssim_map, tally_completions

RIGHT = torch.zeros(12, 8, dtype=torch.bool)
RIGHT[:, 4:] = True


def pictures(count: int = 3, channels: int = 2, seed: int = 0) -> Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.uniform(0, 1, (count, channels, 12, 8)))


def by_formula(x: np.ndarray, y: np.ndarray, row: int, column: int) -> float:
    """The similarity of two pictures (H, W) around one pixel, term by term."""
    weight, a, b = [], [], []
    for i in range(max(0, row - 5), min(x.shape[0], row + 6)):
        for j in range(max(0, column - 5), min(x.shape[1], column + 6)):
            weight.append(math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * 1.5**2)))
            a.append(x[i, j])
            b.append(y[i, j])
    w, a, b = np.array(weight) / sum(weight), np.array(a), np.array(b)
    m_a, m_b = (w * a).sum(), (w * b).sum()
    var_a, var_b, cov = (w * (a - m_a) ** 2).sum(), (w * (b - m_b) ** 2).sum(), (w * (a - m_a) * (b - m_b)).sum()
    luminance = (2 * m_a * m_b + 1e-4) / (m_a**2 + m_b**2 + 1e-4)
    return luminance * (2 * cov + 9e-4) / (var_a + var_b + 9e-4)


def test_the_similarity_is_the_formula_at_every_pixel() -> None:
    x, y = pictures(1, 1)[0, 0].numpy(), pictures(1, 1, seed=1)[0, 0].numpy()
    found = ssim_map(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])[0]
    expected = [[by_formula(x, y, i, j) for j in range(8)] for i in range(12)]
    assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_the_similarity_is_one_of_a_picture_itself_and_falls_with_noise() -> None:
    x = pictures().float()
    assert_close(ssim(x, x), torch.ones(3), rtol=0, atol=1e-5)
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=x.shape)).float()
    levels = [float(ssim(x, x + sigma * noise).mean()) for sigma in (0.0, 0.05, 0.2, 1.0)]
    assert levels == sorted(levels, reverse=True)
    assert_close(ssim(x, x + noise), ssim(x + noise, x))


def test_sharpness_is_one_of_the_truth_and_below_one_of_a_blur() -> None:
    true = pictures()
    assert tally_completions(true, true, RIGHT).sharpness == pytest.approx(1)
    blur = torch.nn.functional.avg_pool2d(true, 3, 1, 1, count_include_pad=False)
    assert tally_completions(blur, true, RIGHT).sharpness < 0.5
    assert math.isnan(tally_completions(true, torch.ones_like(true), RIGHT).sharpness)


def test_gradients_are_taken_between_hidden_values_alone() -> None:
    x = pictures()
    part = x[..., 4:].numpy()
    expected = (np.diff(part, axis=2) ** 2).sum((1, 2, 3)) + (np.diff(part, axis=3) ** 2).sum((1, 2, 3))
    assert_close(gradient_energy(x, RIGHT), torch.from_numpy(expected))


def test_the_numbers_of_parts_add_up_to_those_of_the_whole() -> None:
    made, true = pictures(5), pictures(5, seed=1)
    whole, parts = tally_completions(made, true, RIGHT), Tally()
    for part in (slice(0, 2), slice(2, 5)):
        parts = parts.plus(tally_completions(made[part], true[part], RIGHT))
    assert parts.items == whole.items == 5
    assert list(parts.numbers().values()) == pytest.approx(list(whole.numbers().values()))
    assert whole.mse == pytest.approx(float(((made - true)[..., 4:] ** 2).mean()))


def test_error_and_sharpness_are_those_of_what_was_hidden() -> None:
    made, true = pictures(), pictures(seed=1)
    other = made.clone()
    other[..., :4] = 0
    a, b = tally_completions(made, true, RIGHT), tally_completions(other, true, RIGHT)
    assert (a.mse, a.sharpness) == (b.mse, b.sharpness)


def test_what_is_no_picture_in_zero_to_one_has_no_similarity() -> None:
    assert "ssim" in tally_completions(pictures(), pictures(), RIGHT).numbers()
    assert "ssim" not in tally_completions(5 * pictures(), 5 * pictures(), RIGHT).numbers()
    series = pictures()[:, :, :, 0]
    assert "ssim" not in tally_completions(series, series, RIGHT[:, 5]).numbers()


def test_the_similarity_of_a_clip_is_that_of_its_hidden_frames() -> None:
    made, true = pictures(6).reshape(2, 3, 2, 12, 8).transpose(1, 2), pictures(6, seed=1).reshape(2, 3, 2, 12, 8)
    true = true.transpose(1, 2)
    hidden = (torch.arange(3) > 0)[:, None, None].expand(3, 12, 8)
    frames = [float(ssim(made[:, :, t], true[:, :, t]).mean()) for t in (1, 2)]
    assert tally_completions(made, true, hidden).ssim == pytest.approx(sum(frames) / 2)
