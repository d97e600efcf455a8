"""Masks of connected tokens that are alike: their shape, what they depend on, and how a method guides them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from jepakit import methods, testing
from jepakit.core.files import write_text
from jepakit.data.images import files
from jepakit.masks import MASKERS, TokenMasker, draw_masks, need_tokens
from jepakit.masks.base import Masker
from jepakit.masks.multiblock import MultiBlock
from jepakit.masks.random import Random
from jepakit.masks.semantic import Semantic, token_similarity
from jepakit.methods import cjepa, ijepa, mae
from jepakit.nn import ViT
from jepakit.nn.predictor import Predictor
from jepakit.reporting import samples
from jepakit.run import checkpoint, optim, parse, write
from jepakit.run.settings import Run
from jepakit.testing.case import SIGNALS, Case
from jepakit.testing.clauses import CLAUSES, learns_one_batch
from jepakit.types import Batch, Grid, Masks, Rng, Signal, take

GRIDS = [(5,), (30,), (3, 3), (8, 8), (6, 10), (14, 14), (2, 4, 4)]
SIGNAL = Signal(3, (32, 32), (0.5,) * 3, (0.25,) * 3)


def randoms(batch: int, grid: Grid, seed: int = 0, dim: int = 8) -> Tensor:
    """Tokens of a smooth random field and noise, so that likeness has some reason and some chance."""
    x = torch.randn(batch, math.prod(grid), dim, generator=Rng(seed).generator())
    return x + 0.5 * x.roll(1, 1)


def halves(batch: int, grid: tuple[int, int], noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Which half (B, N) each token lies in, split at a column of each sample's own, and tokens that tell it noisily."""
    column = torch.arange(math.prod(grid)) % grid[1]
    split = 2 + torch.arange(batch)[:, None] % (grid[1] - 3)
    side = (column >= split).long()
    tokens = torch.randn(2, 16, generator=Rng(7).generator())[side]
    return side, tokens + noise * torch.randn(tokens.shape, generator=Rng(8).generator())


def connected(cluster: list[int], grid: Grid) -> bool:
    """A second path: flood-fill from the first token over cells that differ by 1 along one axis."""
    cells = {tuple(int(c) for c in np.unravel_index(token, grid)) for token in cluster}
    waiting, reached = [min(cells)], {min(cells)}
    while waiting:
        cell = waiting.pop()
        for axis in range(len(grid)):
            for step in (-1, 1):
                other = (*cell[:axis], cell[axis] + step, *cell[axis + 1 :])
                if other in cells - reached:
                    reached.add(other)
                    waiting.append(other)
    return reached == cells


def crossing(masks: Masks, side: Tensor) -> float:
    """The share of targets that lie on both sides."""
    right = side.gather(1, masks.targets.flatten(1)).reshape(masks.targets.shape)
    return float((right.amin(2) != right.amax(2)).float().mean())


def every_rule(masks: Masks, grid: Grid, masker: Semantic, connects: bool = True) -> None:
    batch, count, size = masks.targets.shape
    context = masks.context.shape[1]
    assert count == masker.num_targets
    assert context == math.prod(grid) - count * size > 0
    seen = torch.zeros(batch, math.prod(grid), dtype=torch.int64).scatter_(1, masks.context, 1)
    assert (seen.sum(1) == context).all(), "a token comes twice in a context"
    assert not seen.gather(1, masks.targets.flatten(1)).any(), "a token is context and target"
    assert (masks.targets.diff() > 0).all(), "a token comes twice in a target"
    if connects:
        assert all(connected(block.tolist(), grid) for block in masks.targets.flatten(0, 1))


@pytest.mark.parametrize("grid", GRIDS)
def test_targets_are_connected_of_one_size_and_apart_from_a_context_that_is_never_empty(grid: Grid) -> None:
    for step in range(8):
        masks = Semantic().guided(grid, randoms(6, grid, step), Rng(1, step))
        every_rule(masks, grid, Semantic())


@settings(max_examples=60, deadline=None)
@given(
    grid=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    masker=st.builds(
        Semantic,
        num_targets=st.integers(1, 5),
        target_scale=st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98)).map(lambda t: (min(t), max(t))),
    ),
    seed=st.integers(0, 99),
)
def test_what_check_accepts_always_ends_with_a_context(grid: Grid, masker: Semantic, seed: int) -> None:
    try:
        masker.check(grid)
    except ValueError:
        return
    for step in range(2):
        every_rule(masker.guided(grid, randoms(3, grid, seed), Rng(seed, step)), grid, masker)


def test_targets_fill_the_range_of_scales_one_size_per_step() -> None:
    sizes = [Semantic()((10, 10), 2, Rng(0, step)).targets.shape[2] for step in range(100)]
    assert set(sizes) == set(range(15, 20))


def test_targets_follow_the_boundary_of_a_picture_of_two_halves_and_blocks_do_not() -> None:
    grid, batch, steps = (8, 8), 60, range(4)
    side, tokens = halves(batch, grid)
    follow = [crossing(Semantic().guided(grid, tokens, Rng(0, s)), side) for s in steps]
    for blind in (Semantic(), MultiBlock()):
        assert sum(follow) < 0.3 * sum(crossing(blind(grid, batch, Rng(0, s)), side) for s in steps)


def test_a_target_takes_from_another_only_where_nothing_else_is_left() -> None:
    # Half a row of equal tokens for each: they fill it exactly, whoever begins where.
    for step in range(10):
        masks = Semantic(num_targets=2, target_scale=(0.3, 0.3)).guided((8, 8), randoms(8, (8, 8)), Rng(0, step))
        shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in masks.targets]
        assert sum(shared) <= 0.05 * masks.targets.numel()


def test_without_tokens_targets_are_blobs_that_fill_the_box_around_them() -> None:
    every_rule(Semantic()((14, 14), 32, Rng(0)), (14, 14), Semantic())
    blobs = Semantic(num_targets=1)((14, 14), 32, Rng(0)).targets
    sides = torch.stack([blobs // 14, blobs % 14])
    box = (sides.amax(-1) - sides.amin(-1) + 1).prod(0)
    assert float(box.float().mean()) < 1.5 * blobs.shape[2]


def test_masks_depend_on_rng_and_on_their_own_tokens_alone() -> None:
    grid, tokens, before = (8, 8), randoms(4, (8, 8)), torch.get_rng_state()
    first, again, other = (Semantic().guided(grid, tokens, Rng(0, step)) for step in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first[:2], again[:2]))
    assert first.targets.shape != other.targets.shape or not torch.equal(first.targets, other.targets)
    changed = tokens.clone()
    changed[0] = randoms(1, grid, seed=9)[0]
    moved = Semantic().guided(grid, changed, Rng(0, 1))
    assert not torch.equal(moved.targets[0], first.targets[0])
    assert torch.equal(moved.targets[1:], first.targets[1:])
    assert torch.equal(moved.context[1:], first.context[1:])


def test_neither_the_scale_of_the_tokens_nor_what_they_have_in_common_matters() -> None:
    grid, tokens = (8, 8), randoms(4, (8, 8)).double()
    first = Semantic().guided(grid, tokens, Rng(0))
    assert all(map(torch.equal, first[:2], Semantic().guided(grid, 50.0 * tokens + 3.0, Rng(0))[:2]))


def test_a_sample_has_the_same_mask_however_the_batch_is_split() -> None:
    grid, tokens = (8, 8), randoms(12, (8, 8)).double()
    whole = Semantic().guided(grid, tokens, Rng(0, 7))
    parts = [Semantic().guided(grid, tokens[k : k + 4], Rng(0, 7, offset=k, total=12)) for k in (0, 4, 8)]
    assert torch.equal(torch.cat([p.context for p in parts]), whole.context)
    assert torch.equal(torch.cat([p.targets for p in parts]), whole.targets)


def test_likeness_is_the_cosine_of_centred_tokens_in_full_precision() -> None:
    tokens = randoms(2, (3, 3)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = token_similarity(tokens)
    assert found.dtype == torch.float32
    for sample, expected in zip(found, tokens.float(), strict=True):
        centred = (expected - expected.mean(0)).numpy()
        length = np.linalg.norm(centred, axis=1)
        np.testing.assert_allclose(sample.numpy(), centred @ centred.T / np.outer(length, length), atol=1e-5)


@pytest.mark.parametrize(
    ("masker", "grid", "words"),
    [
        (Semantic(), (2, 2), r"grid \(2, 2\) is too small: 4 targets of 1 tokens leave no context of its 4.*patch"),
        (Semantic(target_scale=(0.1, 0.3)), (8, 8), "4 targets of 19 tokens.*target_scale below 0.3"),
        (Semantic(num_targets=0), (8, 8), "num_targets is 0; give at least 1"),
        (Semantic(target_scale=(0.3, 0.2)), (8, 8), r"target_scale is \(0.3, 0.2\)"),
        (Semantic(target_scale=(0.0, 0.2)), (8, 8), "0 < low <= high < 1"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(masker: Semantic, grid: Grid, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        masker.check(grid)
    with pytest.raises(ValueError, match=words):
        masker(grid, 2, Rng(0))


def test_only_maskers_that_read_tokens_are_shown_any() -> None:
    grid, tokens = (8, 8), randoms(4, (8, 8))
    drawn = draw_masks((Random(), Semantic()), grid, 4, Rng(3), tokens=tokens)
    plain = draw_masks((Random(), Semantic()), grid, 4, Rng(3))
    assert all(map(torch.equal, drawn[0][:2], plain[0][:2]))
    assert not torch.equal(drawn[1].targets, plain[1].targets)
    assert isinstance(MASKERS.load("semantic"), Masker | TokenMasker)
    assert need_tokens([Random(), Semantic()])
    assert not need_tokens([Random(), MultiBlock()])


def small(kind: Any, **changes: Any) -> Any:
    """A method on 8 x 8 tokens, with semantic masks."""
    head = Predictor(width=16, depth=1, heads=2)
    networks = {"decoder": head} if kind is mae else {"predictor": head}
    encoder = ViT(patch=(4, 4), width=32, depth=2, heads=2, init="xavier")
    return methods.build(kind.Config(encoder=encoder, masks=(Semantic(),), **networks, **changes), SIGNAL)


@pytest.mark.parametrize("changes", [{}, {"target_blocks": 2}])
@pytest.mark.parametrize("kind", [ijepa, cjepa])
def test_the_target_encoder_runs_once_and_its_tokens_guide_the_masks(kind: Any, changes: dict[str, int]) -> None:
    method, x, calls = small(kind, **changes), torch.rand(4, 3, 32, 32, generator=Rng(2).generator()), []
    method.target_encoder.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    drawn, targets = method.hide(x, Rng(5))
    assert len(calls) == 1
    (expected,) = draw_masks(method.cfg.masks, (8, 8), 4, Rng(5), tokens=method.whole(x))
    assert all(map(torch.equal, drawn[0][:2], expected[:2]))
    torch.testing.assert_close(targets[0], take(method.whole(x), expected.targets))
    assert not targets[0].requires_grad
    calls.clear()
    terms = method.loss(Batch(x), Rng(5))
    assert len(calls) == 1
    terms.total.backward()
    assert all(p.grad is None for p in method.target_encoder.parameters())


@pytest.mark.parametrize("kind", [ijepa, cjepa, mae])
def test_an_encoder_that_was_not_trained_already_guides_masks_along_the_edge_of_a_picture(kind: Any) -> None:
    side, _ = halves(48, (8, 8))
    x = side.reshape(48, 1, 8, 8).float().repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    method = small(kind)
    drawn = method.hide(Batch(x), Rng(0))[0] if kind is mae else method.hide(x, Rng(0))[0][0]
    assert crossing(drawn, side) < 0.3 * crossing(Semantic()((8, 8), 48, Rng(0)), side)
    assert crossing(drawn, side) < 0.3 * crossing(MultiBlock()((8, 8), 48, Rng(0)), side)


@pytest.mark.parametrize("base", [ijepa.IJEPA, mae.MAE])
def test_methods_keep_the_contract_with_semantic_masks(base: Any) -> None:
    class Guided(base):
        class Config(base.Config):
            @classmethod
            def tiny(cls, signal: Signal) -> Any:
                return replace(base.Config.tiny(signal), masks=(Semantic(num_targets=2),))

    case = Case(Guided, SIGNALS[0], testing.example(SIGNALS[0]))
    for clause in CLAUSES:
        if clause is not learns_one_batch:  # a matter of seconds, and of no masker in particular
            clause(case)


def test_a_command_line_names_them_and_a_training_uses_them(tmp_path: Path, pictures: Path) -> None:
    changes = {"encoder": {"name": "vit", "patch": [4, 4], "width": 32, "depth": 2, "heads": 2, "init": "xavier"}}
    file = support.write_settings(tmp_path, pictures, method=changes)
    flag = "[{name: semantic, num_targets: 3}]"
    shown = write.to_yaml(parse.apply_changes(parse.from_yaml(file), parse.flags_to_changes({"method.masks": flag})))
    assert yaml.safe_load(shown)["method"]["masks"] == [
        {"name": "semantic", "num_targets": 3, "target_scale": [0.15, 0.2]}
    ]
    done = support.jepa_here("train", file, "--method.masks", flag, "--length.steps", 2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert checkpoint.load_run(tmp_path / "run").run.method.masks == (Semantic(num_targets=3),)
    assert all(math.isfinite(loss) for loss in support.logged_losses(tmp_path / "run").values())


def test_the_report_draws_them_over_the_pictures_that_guided_them(tmp_path: Path, pictures: Path) -> None:
    cfg = ijepa.Config(
        encoder=ViT(patch=(4, 4), width=32, depth=2, heads=2, init="xavier"),
        predictor=Predictor(width=16, depth=1, heads=2),
        masks=(Semantic(), Random()),
    )
    source = files.Config(str(pictures), (32, 32))
    run = Run(method=cfg, data=source)
    method = methods.build(cfg, SIGNAL)
    write_text(tmp_path / "run/config.yaml", write.to_yaml(run))
    checkpoint.save_checkpoint(tmp_path / "run", 0, method, optim.build_optimizer(run.optim, method), {})
    seen = samples.look_at_run(tmp_path / "run", 16)
    semantic, blind = seen.masks
    assert (semantic.name, blind.name) == ("Semantic 0", "Random 1")
    assert (semantic.count, blind.count) == (64 * 8, 64 * 16)
    assert semantic.examples.shape == (8, 64)
    right = np.arange(64) % 8 >= np.array([int(name[0]) for name in seen.samples.names[:8]])[:, None]
    both = [[len(set(r[c == k])) == 2 for k in range(2, 6)] for r, c in zip(right, semantic.examples, strict=True)]
    assert np.mean(both) < 0.25


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixteen pictures of two flat halves; the name begins with the column of tokens at which the right one does."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(16):
        pixels = np.full((32, 32, 3), 10 + 2 * k, np.uint8)
        pixels[:, 4 * (2 + k % 5) :] = 240 - 2 * k
        Image.fromarray(pixels).save(folder / f"{2 + k % 5}-{k}.png")
    return folder
