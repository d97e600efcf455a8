import pytest
import torch
from torch.testing import assert_close

from jepakit.nn import Predictor
from jepakit.nn.position import sincos_positions
from jepakit.types import Masks

GRIDS = [(4, 6), (2, 3, 4), (24,)]


def setup(grid, depth=3, shared_context=False, width=16):
    torch.manual_seed(0)
    predictor = Predictor(width, depth, 2, shared_context=shared_context).build(8, grid)
    for p in predictor.parameters():
        torch.nn.init.normal_(p, std=0.2)
    cells = torch.stack([torch.randperm(24) for _ in range(3)])
    # Two blocks that overlap, so that tokens shared between blocks are exercised.
    masks = Masks(cells[:, :9], torch.stack([cells[:, 9:14], cells[:, 12:17]], 1))
    return predictor, torch.randn(3, 9, 8), masks


def slow(predictor, context, masks, grid):
    """One target block at a time through whole blocks, nothing shared or skipped."""
    position = sincos_positions(grid, predictor.width)
    outputs = []
    for m in range(masks.targets.shape[1]):
        index = masks.targets[:, m]
        known = predictor.embed(context) + position[masks.context]
        s = torch.cat([known, predictor.mask_token.expand(*index.shape, -1) + position[index]], 1)
        for block in predictor.blocks:
            s = block(s)
        outputs.append(predictor.proj(predictor.norm(s))[:, masks.context.shape[1] :])
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_predictions_and_gradients_equal_a_loop_over_target_blocks(grid, depth):
    predictor, context, masks = setup(grid, depth)
    results = []
    for forward in (lambda: predictor(context, masks), lambda: slow(predictor, context, masks, grid)):
        predictor.zero_grad()
        out = forward()
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in predictor.parameters())])
    for ours, expected in zip(*results, strict=True):
        assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shared_context", [False, True])
def test_one_target_block_does_not_see_another(shared_context):
    predictor, context, masks = setup((4, 6), shared_context=shared_context)
    alone = predictor(context, Masks(masks.context, masks.targets[:, :1]))
    assert_close(predictor(context, masks)[:, :1], alone, atol=1e-5, rtol=1e-5)


def test_a_shared_context_does_not_see_the_questions_asked_of_it():
    predictor, context, masks = setup((4, 6), shared_context=True)
    one_query = Masks(masks.context, masks.targets[:, :, :1])
    keys, handles = [], []
    for block in predictor.blocks:
        handles.append(
            block.norm1.register_forward_hook(lambda _m, _i, out: keys.append(out) if len(out) == 3 else None)
        )
    predictor(context, masks)
    predictor(context, one_query)
    assert len(keys) == 2 * len(predictor.blocks)
    assert all(torch.equal(a, b) for a, b in zip(keys[:3], keys[3:], strict=True))


def test_a_shared_context_equals_attention_under_the_mask_that_defines_it():
    predictor, context, masks = setup((4, 6), shared_context=True)
    position, index = sincos_positions((4, 6), predictor.width), masks.targets[:, 0]
    s = torch.cat([predictor.embed(context) + position[masks.context], predictor.mask_token + position[index]], 1)
    k = masks.context.shape[1]
    visible = torch.zeros(s.shape[1], s.shape[1], dtype=torch.bool)
    visible[:, :k], visible[k:, k:] = True, True
    for block in predictor.blocks:
        q, key, value = block.attn.project_qkv(block.norm1(s))
        scores = (q @ key.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)
        s = s + block.attn.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        s = s + block.mlp(block.norm2(s))
    assert_close(predictor(context, masks)[:, 0], predictor.proj(predictor.norm(s))[:, k:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared_context", [False, True])
def test_every_parameter_of_the_predictor_is_trained(shared_context):
    predictor, context, masks = setup((4, 6), shared_context=shared_context)
    predictor(context, masks).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in predictor.parameters())


@pytest.mark.parametrize("shared_context", [False, True])
def test_recomputing_activations_gives_the_same_gradients(shared_context):
    predictor, context, masks = setup((4, 6), shared_context=shared_context)
    gradients = []
    for recompute in (False, True):
        predictor.checkpoint_activations = recompute
        predictor.zero_grad()
        predictor(context, masks).square().sum().backward()
        gradients.append([p.grad.clone() for p in predictor.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_grid_of_another_input_size_moves_the_positions():
    predictor, context, masks = setup((4, 6))
    other = predictor(context, masks._replace(grid=(6, 4)))
    assert_close(other, slow(predictor, context, masks, (6, 4)), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other, predictor(context, masks))


def test_heads_that_do_not_divide_the_width_are_refused_with_some_that_do():
    with pytest.raises(ValueError, match=r"heads 5 does not divide width 384; use e\.g\. 4 or 6 heads"):
        Predictor(width=384, heads=5)


@pytest.mark.parametrize(
    ("dim", "width", "heads"), [(768, 384, 12), (192, 96, 3), (128, 64, 2), (48, 24, 1), (16, 16, 1)]
)
def test_left_open_the_width_is_half_the_encoders_and_a_head_has_32_features_or_so(dim, width, heads):
    predictor = Predictor().build(dim, (2, 2, 2))
    assert predictor.width == width
    assert predictor.blocks[0].attn.heads == heads
