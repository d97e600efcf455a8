from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from jepakit.nn import CNN, ENCODERS, MLP, Encoder, EncoderConfig, Keypoints, ResNet, ViT, union, vit
from jepakit.nn.patch import PatchEmbed, check_patch, patches
from jepakit.types import Signal, take

CASES = {
    "vit-image": (ViT(patch=(4, 4), width=16, depth=2, heads=2), Signal(3, (16, 24))),
    "vit-video": (ViT(patch=(2, 4, 4), width=16, depth=2, heads=2), Signal(1, (4, 8, 12))),
    "vit-series": (ViT(patch=(5,), width=16, depth=2, heads=2), Signal(2, (60,))),
    "mlp-series": (MLP(patch=(10,), width=8), Signal(2, (60,))),
    "mlp-image": (MLP(patch=(4, 6), width=8), Signal(2, (12, 12))),
    "cnn-image": (CNN(patch=(5, 8), width=8, channels=(4, 6)), Signal(3, (15, 24))),
    "cnn-series": (CNN(patch=(10,), width=8, channels=(4,)), Signal(2, (60,))),
    "cnn-video": (CNN(patch=(2, 4, 4), width=8, channels=(4, 4)), Signal(1, (4, 8, 12))),
    "keypoints-image": (Keypoints(patch=(6, 6), points=4, kernel=3, stride=2), Signal(2, (12, 18))),
    "keypoints-video": (Keypoints(patch=(1, 8, 6), points=4, kernel=3, stride=2), Signal(1, (4, 8, 12))),
}


@pytest.fixture(params=CASES)
def case(request):
    cfg, signal = CASES[request.param]
    torch.manual_seed(0)
    encoder = cfg.build(signal)
    for p in encoder.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return encoder, torch.randn(2, signal.channels, *signal.size)


def tokens(encoder):
    return torch.tensor(encoder.grid).prod().item()


def some(encoder, k, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(tokens(encoder), generator=g)[:k] for _ in range(2)])


def test_one_token_per_patch(case):
    encoder, x = case
    assert encoder(x).shape == (2, tokens(encoder), encoder.dim)


def test_keeping_all_patches_in_order_changes_nothing(case):
    encoder, x = case
    everything = torch.arange(tokens(encoder)).expand(2, -1)
    assert_close(encoder(x, keep=everything), encoder(x), atol=1e-6, rtol=0)


def test_pixels_of_hidden_patches_leave_every_bit_unchanged(case):
    encoder, x = case
    keep = some(encoder, 4)
    hidden = torch.ones(2, tokens(encoder), dtype=torch.bool).scatter_(1, keep, False)
    cells = hidden.reshape(2, 1, *encoder.grid)
    for axis, length in enumerate(encoder.patch, 2):
        cells = cells.repeat_interleave(length, axis)
    changed = torch.where(cells, torch.full_like(x, 1e3), x)
    assert not torch.equal(x, changed)
    assert torch.equal(encoder(x, keep=keep), encoder(changed, keep=keep))


def test_reading_some_tokens_equals_indexing_the_full_output(case):
    encoder, x = case
    read = some(encoder, 3)
    assert_close(encoder(x, read=read), take(encoder(x), read), atol=1e-6, rtol=1e-6)
    keep, inner = some(encoder, 5), torch.tensor([[4, 0], [2, 2]])
    assert_close(encoder(x, keep=keep, read=inner), take(encoder(x, keep=keep), inner), atol=1e-6, rtol=1e-6)


def test_a_kept_patch_is_the_patch_at_its_place(case):
    encoder, x = case
    keep = some(encoder, 4)
    assert torch.equal(patches(x, encoder.patch, keep).flatten(2), take(patches(x, encoder.patch).flatten(2), keep))


def test_reading_the_union_finds_every_target_and_no_token_twice(case):
    encoder, x = case
    index = torch.stack([some(encoder, 3, seed) for seed in (1, 2)], 1)
    read, where = union(index, tokens(encoder))
    assert read.shape[1] == max(len(sample.unique()) for sample in index)
    assert all(len(sample.unique()) == len(sample) for sample in read)
    assert_close(take(encoder(x, read=read), where), take(encoder(x), index), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["vit-image", "vit-video", "vit-series"])
def test_recomputing_activations_gives_the_same_gradients(name):
    cfg, signal = CASES[name]
    encoder, x = cfg.build(signal), torch.randn(2, signal.channels, *signal.size)
    gradients = []
    for recompute in (False, True):
        encoder.checkpoint_activations = recompute
        encoder.zero_grad()
        encoder(x, keep=some(encoder, 5), read=torch.tensor([[0, 1], [4, 2]])).square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("name", "size"), [("vit-image", (8, 40)), ("vit-video", (2, 12, 4)), ("mlp-series", (20,))])
def test_an_input_may_have_another_size_than_the_signal(name, size):
    cfg, signal = CASES[name]
    torch.manual_seed(0)
    encoder = cfg.build(signal)
    torch.manual_seed(0)
    native = cfg.build(replace(signal, size=size))
    x = torch.randn(2, signal.channels, *size)
    assert torch.equal(encoder(x), native(x))


@pytest.mark.parametrize("patch", [(4,), (2, 3), (2, 2, 3)])
def test_the_patch_embedding_is_the_convolution_whose_weight_it_flattens(patch):
    embed = PatchEmbed(3, patch, 7)
    x = torch.randn(2, 3, *[2 * p for p in patch])
    conv = (torch.conv1d, torch.conv2d, torch.conv3d)[len(patch) - 1]
    expected = conv(x, embed.proj.weight.reshape(7, 3, *patch), embed.proj.bias, stride=patch)
    assert_close(embed(x), expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ViT(patch=(16,)).build(Signal(3, (32, 48))),
            r"1 axes but the signal has size \(32, 48\).*patch=\(16, 16",
        ),
        (
            lambda: ViT(patch=(16, 16)).build(Signal(3, (32, 50))),
            r"does not divide size \(32, 50\).*\(32, 64\).*\(16, 2\)",
        ),
        (
            lambda: ViT(patch=(64, 64)).build(Signal(3, (32, 32))),
            r"does not divide size \(32, 32\); use size \(64, 64\)",
        ),
        (lambda: check_patch(16), r"patch 16 is one length; give one per axis.*\(16, 16\)"),
        (lambda: ViT(patch=(0, 4)), "positive whole lengths"),
        (lambda: ViT(width=192, heads=5), "heads 5 does not divide width 192; use e.g. 4 or 6 heads"),
        (
            lambda: ViT(patch=(16, 16), width=90, heads=3).build(Signal(3, (32, 32))),
            "width 90 .* use a multiple of 4, e.g. 88",
        ),
        (lambda: MLP(patch=(3,)).build(Signal(1, (10,))), "does not divide"),
        (lambda: CNN(patch=(3, 3)).build(Signal(1, (10,))), "2 axes but the signal has size"),
        (lambda: vit("hugo"), "Did you mean 'huge'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs_and_says_what_would(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_input_the_patch_does_not_divide_is_refused():
    encoder, _ = CASES["vit-image"][0].build(Signal(3, (16, 16))), None
    with pytest.raises(ValueError, match="does not divide size"):
        encoder(torch.randn(1, 3, 16, 18))


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_tiny", 5.49), ("vit_small", 21.59), ("vit_base", 85.65), ("vit_large", 303.1)]
)
def test_the_published_sizes_have_the_published_number_of_weights(name, millions):
    with torch.device("meta"):
        encoder = ENCODERS.load(name).build(Signal(3, (224, 224)))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_named_encoder_builds_an_encoder(name):
    config = ENCODERS.load(name)
    config = config if getattr(config, "patch", (8, 8)) else replace(config, patch=(4, 4))
    assert isinstance(config, EncoderConfig)
    with torch.device("meta"):
        size = (4, 64, 64) if name == "frames" else tuple(8 * p for p in getattr(config, "patch", (8, 8)))
        config = replace(config, encoder=replace(config.encoder, patch=(8, 8))) if name == "frames" else config
        assert isinstance(config.build(Signal(3, size)), Encoder)


def test_plain_and_fused_attention_agree_in_half_precision():
    torch.manual_seed(0)
    encoder = CASES["vit-image"][0].build(Signal(3, (16, 24)))
    x = torch.randn(2, 3, 16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        trained = encoder(x)
        with torch.no_grad():
            inferred = encoder(x)
    assert_close(trained.detach(), inferred, atol=3e-2, rtol=0)
    assert_close(trained.detach().float(), encoder(x).detach(), atol=5e-2, rtol=0)


def test_an_encoder_first_run_for_inference_can_be_trained_afterwards():
    encoder = ViT(patch=(2, 2), width=8, depth=1, heads=1).build(Signal(1, (6, 14)))
    x = torch.randn(1, 1, 6, 14)
    with torch.inference_mode():
        encoder(x)
    encoder(x)[..., 0].sum().backward()
    assert encoder.patch_embed.proj.weight.grad is not None
    assert encoder.patch_embed.proj.weight.grad.any()


def test_xavier_weights_have_the_variance_of_their_own_shape_and_normal_ones_of_two_hundredths() -> None:
    signal = Signal(3, (16, 16))
    blocks = ViT(patch=(4, 4), width=96, depth=2, heads=2, init="xavier").build(signal).blocks
    normal = ViT(patch=(4, 4), width=96, depth=2, heads=2).build(signal).blocks
    # q, k and v are drawn as three matrices (96, 96), not as one (288, 96).
    for weight, width in ((blocks[0].attn.qkv.weight, 96 + 96), (blocks[0].mlp.fc1.weight, 96 + 384)):
        assert weight.std().item() == pytest.approx((2 / width) ** 0.5, rel=0.03)
    assert normal[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)


def weight_gradients(encoder: Encoder, x: torch.Tensor, half: bool) -> list[torch.Tensor]:
    # What is not written to holds what was there before.
    for cells in (1_000, 10_000, 100_000):
        torch.full((cells,), torch.nan)
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        s = encoder(x)
    (s.float() * torch.linspace(-1, 1, s.numel()).reshape(s.shape)).sum().backward()
    return [m.weight.grad.clone() for m in encoder.modules() if hasattr(m, "stride")]


NARROW = {
    "one cell": (CNN((1,), 8, (32, 64)), (4,)),
    "two by one": (CNN((4, 2), 8, (8, 32, 64)), (8, 4)),
    "a column": (CNN((6, 2), 8, (8, 32, 64)), (6, 4)),
    "a volume": (CNN((4, 2, 2), 8, (8, 32, 64)), (4, 4, 4)),
    "two cells deep": (ResNet(8, (1, 1, 1)), (8, 8, 8)),
}


@pytest.mark.parametrize("name", NARROW)
def test_in_bfloat16_the_weights_of_convolutions_get_their_gradient_on_any_side(name):
    cfg, size = NARROW[name]
    torch.manual_seed(0)
    encoder = cfg.build(Signal(3, size))
    x = torch.randn(12, 3, *size)
    for _ in range(3):
        for found, exact in zip(weight_gradients(encoder, x, True), weight_gradients(encoder, x, False), strict=True):
            assert (found - exact).norm() < 0.2 * exact.norm()
