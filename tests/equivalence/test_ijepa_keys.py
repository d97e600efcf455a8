"""A file with the released I-JEPA keys loads, and the networks compute what its layout means."""

import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from torch.testing import assert_close

from jepakit.nn import Predictor, ViT
from jepakit.nn.position import sincos_positions
from jepakit.types import Masks, Signal

D, WIDTH, DEPTH, HEADS, PATCH, GRID = 16, 12, 2, 2, 4, (4, 4)
N = GRID[0] * GRID[1]


def block_shapes(prefix, d):
    shapes = {}
    for i in range(DEPTH):
        for norm in ("norm1", "norm2"):
            shapes |= {f"{prefix}.{i}.{norm}.weight": (d,), f"{prefix}.{i}.{norm}.bias": (d,)}
        for name, rows, columns in (
            ("attn.qkv", 3 * d, d),
            ("attn.proj", d, d),
            ("mlp.fc1", 4 * d, d),
            ("mlp.fc2", d, 4 * d),
        ):
            shapes |= {f"{prefix}.{i}.{name}.weight": (rows, columns), f"{prefix}.{i}.{name}.bias": (rows,)}
    return shapes


ENCODER = {
    "pos_embed": (1, N, D),
    "patch_embed.proj.weight": (D, 3, PATCH, PATCH),
    "patch_embed.proj.bias": (D,),
    **block_shapes("blocks", D),
    "norm.weight": (D,),
    "norm.bias": (D,),
}
PREDICTOR = {
    "mask_token": (1, 1, WIDTH),
    "predictor_pos_embed": (1, N, WIDTH),
    "predictor_embed.weight": (WIDTH, D),
    "predictor_embed.bias": (WIDTH,),
    **block_shapes("predictor_blocks", WIDTH),
    "predictor_norm.weight": (WIDTH,),
    "predictor_norm.bias": (WIDTH,),
    "predictor_proj.weight": (D, WIDTH),
    "predictor_proj.bias": (D,),
}


def released(shapes):
    g = torch.Generator().manual_seed(0)
    file = {name: 0.3 * torch.randn(shape, generator=g) for name, shape in shapes.items()}
    for name in file:
        if name.endswith("pos_embed"):
            file[name] = sincos_positions(GRID, file[name].shape[-1], "column-row")[None]
    return file


def ours(file):
    """The released names and shapes as ours: no positions, a flat patch embedding, no prefix in the predictor."""
    state = {k.removeprefix("predictor_"): v for k, v in file.items() if not k.endswith("pos_embed")}
    if "patch_embed.proj.weight" in state:
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    return state


def block(f, name, x):
    d, hd = x.shape[-1], x.shape[-1] // HEADS
    h = layer_norm(x, (d,), f[f"{name}.norm1.weight"], f[f"{name}.norm1.bias"], 1e-6)
    q, k, v = linear(h, f[f"{name}.attn.qkv.weight"], f[f"{name}.attn.qkv.bias"]).split(d, -1)
    heads = []
    for i in range(HEADS):
        part = slice(i * hd, (i + 1) * hd)
        scores = torch.exp(q[..., part] @ k[..., part].mT / hd**0.5)
        heads.append(scores / scores.sum(-1, keepdim=True) @ v[..., part])
    x = x + linear(torch.cat(heads, -1), f[f"{name}.attn.proj.weight"], f[f"{name}.attn.proj.bias"])
    h = layer_norm(x, (d,), f[f"{name}.norm2.weight"], f[f"{name}.norm2.bias"], 1e-6)
    h = gelu(linear(h, f[f"{name}.mlp.fc1.weight"], f[f"{name}.mlp.fc1.bias"]))
    return x + linear(h, f[f"{name}.mlp.fc2.weight"], f[f"{name}.mlp.fc2.bias"])


def encode(f, x, keep):
    s = conv2d(x, f["patch_embed.proj.weight"], f["patch_embed.proj.bias"], stride=PATCH).flatten(2).mT + f["pos_embed"]
    s = torch.stack([sample[index] for sample, index in zip(s, keep, strict=True)])
    for i in range(DEPTH):
        s = block(f, f"blocks.{i}", s)
    return layer_norm(s, (D,), f["norm.weight"], f["norm.bias"], 1e-6)


def predict(f, s, context, target):
    pos = f["predictor_pos_embed"][0]
    known = linear(s, f["predictor_embed.weight"], f["predictor_embed.bias"]) + pos[context]
    s = torch.cat([known, f["mask_token"] + pos[target]], 1)
    for i in range(DEPTH):
        s = block(f, f"predictor_blocks.{i}", s)
    s = layer_norm(s, (WIDTH,), f["predictor_norm.weight"], f["predictor_norm.bias"], 1e-6)
    return linear(s, f["predictor_proj.weight"], f["predictor_proj.bias"])[:, context.shape[1] :]


def test_the_released_ijepa_keys_load_strictly_and_mean_the_same_computation():
    encoder = ViT((PATCH, PATCH), D, DEPTH, HEADS).build(Signal(3, (PATCH * GRID[0], PATCH * GRID[1])))
    predictor = Predictor(WIDTH, DEPTH, HEADS).build(D, GRID)
    file, predictor_file = released(ENCODER), released(PREDICTOR)
    encoder.load_state_dict(ours(file))
    predictor.load_state_dict(ours(predictor_file))

    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, *[PATCH * n for n in GRID], generator=g)
    cells = torch.stack([torch.randperm(N, generator=g) for _ in range(2)])
    masks = Masks(cells[:, :6], torch.stack([cells[:, 6:10], cells[:, 9:13]], 1))

    s = encoder(x, keep=masks.context)
    assert_close(s, encode(file, x, masks.context), atol=2e-5, rtol=2e-5)
    expected = torch.stack([predict(predictor_file, s, masks.context, masks.targets[:, m]) for m in range(2)], 1)
    assert_close(predictor(s, masks), expected, atol=2e-5, rtol=2e-5)


def test_tokens_that_hardly_vary_are_normalised_with_an_epsilon_of_a_millionth():
    block = ViT((PATCH, PATCH), D, 1, HEADS).build(Signal(3, (8, 8))).blocks[0]
    predictor = Predictor(WIDTH, 1, HEADS).build(D, GRID)
    for norm in (block.norm1, block.norm2, predictor.norm, predictor.blocks[0].norm1):
        x = 1e-3 * torch.randn(5, norm.weight.shape[0])
        expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        assert_close(norm(x), expected, atol=1e-5, rtol=1e-4)
