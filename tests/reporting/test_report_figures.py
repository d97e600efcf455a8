"""The figures of the report: what is drawn is what was given."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit import methods
from jepakit.data.images import files
from jepakit.masks import random
from jepakit.methods import ijepa
from jepakit.nn import ViT
from jepakit.nn.predictor import Predictor
from jepakit.reporting import atlas, charts, figures, pictures
from jepakit.reporting.records import Record
from jepakit.reporting.samples import (
    affordable_images,
    draw_masks,
    mark_tokens,
    read_chunks,
    received_attention,
    with_attention,
)
from jepakit.types import Masks, Rng, Signal

TINY = ijepa.Config(
    encoder=ViT(patch=(8, 8), width=32, depth=2, heads=2), predictor=Predictor(width=32, depth=1, heads=2)
)


def points(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline class="c[^>]*data-name[^>]*points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in line.split())] for line in found]


def test_a_chart_puts_values_where_its_axes_say() -> None:
    (line,) = points(
        charts.line_chart([charts.Line("l", np.array([0.0, 50.0, 100.0]), np.array([0.0, 1.0, 4.0]))], "l")
    )
    xs, ys = zip(*line, strict=True)
    assert xs == (charts.LEFT, (charts.LEFT + charts.WIDTH - charts.RIGHT) / 2, charts.WIDTH - charts.RIGHT)
    assert ys[0] == charts.HEIGHT - charts.BOTTOM
    assert (ys[0] - ys[1]) * 4 == pytest.approx(ys[0] - ys[2], abs=0.4)


def test_on_a_logarithmic_axis_equal_ratios_are_equal_steps() -> None:
    line = charts.Line("l", np.arange(4.0), np.array([1.0, 10.0, 100.0, 1000.0]))
    ((_, a), (_, b), (_, c), (_, d)) = points(charts.line_chart([line], "l", log_y=True))[0]
    assert a - b == pytest.approx(b - c, abs=0.2) == pytest.approx(c - d, abs=0.2)


def test_values_that_are_not_finite_break_the_curve_and_are_counted_in_its_text() -> None:
    line = charts.Line("loss", np.arange(5.0), np.array([3.0, 2.0, math.nan, math.inf, 1.0]))
    svg = charts.line_chart([line], "l")
    assert [len(p) for p in points(svg)] == [2, 1]
    assert svg.count("<circle") == 1
    assert figures.describe_line(line) == "loss: 3 at step 0, 1 at step 4, 2 values not finite."


def test_a_single_value_is_a_dot_in_the_middle_of_its_axis() -> None:
    svg = charts.line_chart([charts.Line("one", np.array([1700.0]), np.array([4.0]))], "")
    low, high, _, bottom, top, _ = (float(v) for v in re.search(r'data-scale="([^"]*)"', svg)[1].split())  # type: ignore[index]
    assert (low, high, bottom, top) == (0, 3400, 0, 8)
    assert len(re.findall(r'<circle class="f0"', svg)) == 1
    assert not re.findall(
        r'<circle class="f0"', charts.line_chart([charts.Line("two", np.arange(2.0), np.ones(2))], "")
    )


def test_the_x_axis_ends_where_the_drawn_values_do() -> None:
    x, y = np.arange(1.0, 101.0), np.where(np.arange(100) < 40, 1.0, np.nan)
    for log_y in (False, True):
        svg = charts.line_chart([charts.Line("eigenvalues", x, y)], "", log_x=True, log_y=log_y)
        low, high = (float(v) for v in re.search(r'data-scale="([^"]*)"', svg)[1].split()[:2])  # type: ignore[index]
        assert (low, high) == (1.0, 40.0)


def test_what_was_logged_once_is_a_row_of_a_table_and_no_chart() -> None:
    rows = tuple({"step": k, "loss": 1.0, "metrics": {"lidar": 12.5} if k == 20 else {}} for k in (0, 10, 20))
    record = Record(Path("run"), "run", "", {}, rows, {}, {}, ())
    found = {figure.title: figure for figure in figures.curve_figures([record], ["run"])}
    assert set(found) == {"Loss", "Measured once"}
    assert "<svg" not in found["Measured once"].body
    assert "12.5" in found["Measured once"].body
    assert "step 20" in found["Measured once"].body


def test_dark_16_bit_pictures_are_stretched_and_ordinary_dark_ones_stay_dark() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    assert pictures.to_rgb(ramp * 0.06).max() == 255
    assert pictures.to_rgb(ramp * 0.5).max() == 128


def test_a_long_curve_is_thinned_to_means_and_keeps_its_end() -> None:
    x = np.arange(10_001.0)
    thin_x, thin_y = charts.thin_points(x, 2 * x, 101)
    assert len(thin_x) == 101
    assert np.allclose(thin_y, 2 * thin_x)
    assert thin_x[0] == 49.5
    assert thin_x[-1] == 10_000


@pytest.mark.parametrize("ends", [(0, 1), (0.13, 0.134), (-5, 7), (0, 300_000), (1e-6, 3e-6)])
def test_ticks_are_round_and_inside(ends: tuple[float, float]) -> None:
    ticks = charts.Axis(*map(float, ends)).tick_values()
    assert 3 <= len(ticks) <= 8
    assert all(ends[0] - 1e-9 <= t <= ends[1] + 1e-9 for t in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert round(steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9), 6) in (1, 2, 5)


def test_a_short_logarithmic_axis_has_ticks_too() -> None:
    ticks = charts.Axis(0.31, 0.42, log=True).tick_values()
    assert len(ticks) >= 3
    assert charts.Axis(0.01, 100.0, log=True).tick_values() == pytest.approx([0.01, 0.1, 1, 10, 100])


@pytest.mark.parametrize(
    ("value", "text"), [(12e3, "12k"), (0.00031, "3.1e-4"), (2e6, "2e6"), (0.5, "0.5"), (0.0, "0"), (-3.25, "-3.25")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert charts.short_number(value) == text


def test_alike_patches_get_alike_colours_across_images() -> None:
    kinds = np.array([[0, 0, 1, 2], [2, 1, 1, 0]])
    centres = np.random.default_rng(0).normal(size=(3, 6))
    colors, share = pictures.patch_colors(centres[kinds], (2, 2))
    flat = colors.reshape(8, 3)
    assert share == pytest.approx(1)
    same = (flat[:, None] == flat[None]).all(-1)
    assert (same == (kinds.reshape(8, 1) == kinds.reshape(1, 8))).all()


def test_constant_tokens_have_one_colour() -> None:
    colors, _ = pictures.patch_colors(np.ones((2, 4, 5)), (2, 2))
    assert (colors == colors[0, 0, 0]).all()


def test_neighbours_are_not_blinded_by_a_common_offset_and_leave_the_query_out() -> None:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1) + 1000
    order, cosine = pictures.nearest_rows(circle, np.array([0, 5]), 2)
    assert {*order[0]} == {1, 11}
    assert {*order[1]} == {4, 6}
    assert np.allclose(cosine, np.cos(angle[1]))


def test_coverage_counts_what_the_maskers_draw() -> None:
    (drawn,) = draw_masks(ijepa.Config(masks=(random.Random(ratio=0.5, num_targets=2),)), (4, 4), seed=3)
    assert drawn.count == 1024
    assert drawn.context + drawn.target == pytest.approx(np.ones((4, 4)))
    assert drawn.target.mean() == pytest.approx(0.5)
    assert drawn.target == pytest.approx(np.full((4, 4), 0.5), abs=0.08)
    assert drawn.examples.shape == (8, 16)


def test_cells_are_hidden_context_or_the_number_of_their_target() -> None:
    drawn = Masks(context=torch.tensor([[0, 4]]), targets=torch.tensor([[[1, 2], [2, 5]]]))
    assert mark_tokens(drawn, 7).tolist() == [[1, 2, 3, 0, 1, 3, 0]]


@pytest.mark.parametrize(("grid", "shape"), [((6,), (1, 6)), ((2, 3), (2, 3)), ((2, 3, 4), (3, 4))])
def test_coverage_can_be_drawn_on_any_grid(grid: tuple[int, ...], shape: tuple[int, int]) -> None:
    (drawn,) = draw_masks(ijepa.Config(masks=(random.Random(),)), grid, seed=0)
    assert drawn.context.shape == drawn.target.shape == shape


def test_an_unreadable_image_is_left_out_and_no_image_comes_twice(tmp_path: Path) -> None:
    for k in range(6):
        Image.new("RGB", (32, 32), (40 * k, 0, 0)).save(tmp_path / f"{k}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    source = files.Config(path=str(tmp_path), size=(32, 32)).open()
    found = list(read_chunks(source, Signal(3, (32, 32)), range(6)))
    assert [i for ids, _ in found for i in ids] == [0, 1, 3, 4, 5]
    assert [round(float(x[0, 0, 0]) * 255) for _, part in found for x in part] == [0, 40, 120, 160, 200]


def test_a_mask_picture_shows_context_clear_hidden_dark_and_targets_in_their_colours() -> None:
    layer = pictures.mask_layer(np.array([0, 1, 2, 3]), (2, 2))
    assert layer[0, 1, 3] == 0
    assert layer[0, 0, 3] > 200
    assert tuple(layer[1, 0, :3]) == pictures.BLOCK_COLORS[0]
    assert tuple(layer[1, 1, :3]) == pictures.BLOCK_COLORS[1]


def test_a_costly_encoder_sees_fewer_images_on_a_cpu() -> None:
    small = ViT(patch=(8, 8), width=32, depth=2, heads=2).build(Signal(3, (32, 32)))
    with torch.device("meta"):
        huge = ViT(patch=(14, 14), width=1280, depth=32, heads=16).build(Signal(3, (224, 224)))
    assert affordable_images(small, 600, "cpu") == 600
    assert 24 <= affordable_images(huge, 600, "cpu") < 100
    assert affordable_images(huge, 600, "cuda") == 600


def test_attention_is_clear_where_it_is_highest() -> None:
    weights = np.arange(16.0).reshape(4, 4)
    alpha = pictures.attention_layer(weights)[..., 3]
    assert alpha[3, 3] == 0
    assert alpha[0, 0] == alpha.max() > 200
    assert (np.diff(alpha.reshape(-1).astype(int)) <= 0).all()


def test_attention_received_is_that_of_the_last_block_and_sums_to_one() -> None:
    method = methods.build(TINY, Signal(3, (32, 32))).eval()
    x = torch.rand(2, 3, 32, 32, generator=Rng(0).generator())
    with torch.inference_mode():
        tokens, weights = with_attention(method, x)
        assert torch.equal(tokens, method.encode(x))
    assert weights is not None
    assert torch.allclose(weights.sum(1), torch.ones(2))
    block, inner = method.target_encoder.blocks[-1], torch.rand(1, 5, 32, generator=Rng(1).generator())
    q, k, _ = block.attn.qkv(block.norm1(inner)).reshape(1, 5, 3, 2, 16).unbind(2)
    slow = torch.zeros(5)
    for head in range(2):
        for query in range(5):
            scores = torch.stack([q[0, query, head] @ k[0, key, head] / 4 for key in range(5)])
            slow += scores.softmax(0) / 10
    assert torch.allclose(received_attention(block, inner)[0], slow, atol=1e-6)


@pytest.mark.parametrize(("n", "how"), [(20, "PCA"), (90, "t-SNE")])
def test_the_map_keeps_groups_together_and_is_the_same_every_time(n: int, how: str) -> None:
    group = np.arange(n) % 2
    features = np.random.default_rng(0).normal(size=(n, 8)) * 0.1 + np.outer(group, np.ones(8))
    spots, found = atlas.place_points(features)
    assert found == how
    assert np.array_equal(spots, atlas.place_points(features)[0])
    assert spots.min() == 0
    assert spots.max() == 1
    near = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + np.eye(n) * 9
    assert (group[near.argmin(1)] == group).mean() > 0.95


def test_a_dot_has_the_colour_of_its_class_and_none_without_one() -> None:
    figure = atlas.embedding_map(np.eye(4), None, list("abcd"), ["owl", "", "cat", "owl"])
    assert re.findall(r'<circle class="(\w+)"', figure.body) == ["k1", "bare", "k0", "k1"]


def test_collapsed_features_still_give_a_map() -> None:
    figure = atlas.embedding_map(np.ones((60, 4)), None, [str(k) for k in range(60)], [""] * 60)
    assert figure.body.count("<circle") == 60


def test_each_thumbnail_lies_where_its_number_says() -> None:
    thumbs = [np.full((8, 8, 3), k, np.uint8) for k in range(40)]
    sheet = atlas.thumbnail_sheet(thumbs)
    side, columns = atlas.SPRITE_SIDE, atlas.SPRITE_COLUMNS
    assert all((sheet[k // columns * side, k % columns * side] == k).all() for k in range(40))


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, (51, 51, 51)), (2, (77, 77, 77)), (3, (51, 102, 153)), (13, (51, 102, 153))]
)
def test_any_number_of_channels_becomes_a_picture(channels: int, expected: tuple[int, int, int]) -> None:
    x = np.stack([np.full((4, 4), 0.2 * (c + 1) if c < 3 else 1.0) for c in range(channels)])[None]
    assert tuple(int(v) for v in pictures.to_rgb(x)[0, 0, 0]) == expected
