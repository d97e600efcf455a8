"""How much faster is our I-JEPA training step than a plain one of the same semantics?

The plain step follows the published implementation, written here with standard PyTorch operations: a convolution embeds
all patches, then those of the context are gathered; four target blocks are separate sequences in one batched call, each
with the context repeated; every layer runs for every token. Both steps start from the same weights and see the same
images and masks, so their losses agree. Five variants run interleaved, round by round; the table shows medians, and
ratios are medians of the ratios within a round. vit_tiny/16 at 224 px, batch 16, a predictor of 6 x 384.

    python benchmarks/step.py [--rounds 7] [--threads 2]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from record import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jepakit.methods.ijepa import IJEPA, Config
from jepakit.nn import Predictor, vit
from jepakit.nn.position import sincos_positions
from jepakit.run import optim
from jepakit.types import Batch, Rng, Signal

SEED, SIZE, BATCH, GRID = 0, (224, 224), 16, (14, 14)
# Three heads: the published code gives the predictor as many as the encoder has.
ENCODER, PREDICTOR = vit("tiny"), Predictor(width=384, depth=6, heads=3)
OPTIM, DECAY = optim.Optim(), 0.996
Step = Callable[[Tensor, Rng], Tensor]


def gathered(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1) @ v
        x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class PlainEncoder(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        d = ENCODER.width
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, d, ENCODER.patch, stride=ENCODER.patch)})
        self.pos_embed = nn.Parameter(sincos_positions(GRID, d)[None].clone(), requires_grad=False)
        self.blocks = nn.ModuleList(PlainBlock(d, ENCODER.heads, fused) for _ in range(ENCODER.depth))
        self.norm = nn.LayerNorm(d, eps=1e-6)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        s = self.patch_embed["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        if keep is not None:
            s = gathered(s, keep)
        for block in self.blocks:
            s = block(s)
        return self.norm(s)


class PlainPredictor(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        d, width = ENCODER.width, PREDICTOR.width
        self.embed, self.proj = nn.Linear(d, width), nn.Linear(width, d)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(GRID, width)[None].clone(), requires_grad=False)
        self.blocks = nn.ModuleList(PlainBlock(width, PREDICTOR.heads, fused) for _ in range(PREDICTOR.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, s: Tensor, context: Tensor, targets: list[Tensor]) -> Tensor:
        pos = self.pos_embed.expand(len(s), -1, -1)
        s = self.embed(s) + gathered(pos, context)
        asked = torch.cat([gathered(pos, index) for index in targets]) + self.mask_token
        s = torch.cat([s.repeat(len(targets), 1, 1), asked], dim=1)
        for block in self.blocks:
            s = block(s)
        return self.proj(self.norm(s)[:, context.shape[1] :])


def plain_step(method: IJEPA, half: bool, fused: bool) -> Step:
    """The published step: its forward, backward, AdamW and moving average."""
    encoder, predictor = PlainEncoder(fused), PlainPredictor(fused)
    weights = {**method.encoder.state_dict(), "pos_embed": encoder.pos_embed}
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].reshape(-1, 3, *ENCODER.patch)
    encoder.load_state_dict(weights)
    predictor.load_state_dict({**method.predictor.state_dict(), "pos_embed": predictor.pos_embed})
    target = copy.deepcopy(encoder).requires_grad_(False)
    trained = [p for module in (encoder, predictor) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=OPTIM.start_lr,
        weight_decay=OPTIM.weight_decay,
    )

    def step(x: Tensor, rng: Rng) -> Tensor:
        (masks,) = method.draw(len(x), rng)
        blocks = list(masks.targets.unbind(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            with torch.no_grad():
                h = target(x)
                h = F.layer_norm(h, h.shape[-1:])
                h = torch.cat([gathered(h, index) for index in blocks])
            z = predictor(encoder(x, masks.context), masks.context, blocks)
            loss = F.smooth_l1_loss(z, h)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for q, k in zip(encoder.parameters(), target.parameters(), strict=True):
                k.mul_(DECAY).add_((1.0 - DECAY) * q)
        return loss.detach()

    return step


def our_step(method: IJEPA, half: bool) -> Step:
    """jepakit's training step, which draws the same masks itself."""
    method = copy.deepcopy(method)
    optimizer = optim.build_optimizer(OPTIM, method)

    def step(x: Tensor, rng: Rng) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = method.loss(Batch(x), rng).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(0.0)
        return loss.detach()

    return step


def batches(count: int) -> Iterator[tuple[Tensor, Rng]]:
    for i in range(count):
        rng = Rng(SEED, i)
        yield torch.randn(BATCH, 3, *SIZE, generator=rng.generator()), rng


def measure(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The seconds and losses of every step in every round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for i, (x, rng) in enumerate(batches(rounds + 1)):
        for name, step in steps.items():
            start = clock()
            losses[name].append(step(x, rng).item())
            if i:
                seconds[name].append(clock() - start)
    return seconds, losses


def flops(step: Step) -> float:
    """The operations of one step on the first masks, in matrix products and convolutions, 2 per multiply-add."""
    x, rng = next(batches(1))
    with FlopCounterMode(display=False) as counter:
        step(x, rng)
    return float(counter.get_total_flops())


def result(steps: dict[str, Step], rounds: int, threads: int, cpu_time: bool) -> dict[str, Any]:
    operations = {name: flops(steps[name]) for name in ("plain fp32", "ours fp32")}
    seconds, losses = measure(steps, rounds, time.process_time if cpu_time else time.perf_counter)
    best = min(
        ("plain bf16, plain attention", "plain bf16, fused attention"), key=lambda n: statistics.median(seconds[n])
    )
    return {
        "threads": threads,
        "clock": "CPU time" if cpu_time else "wall",
        "seed": SEED,
        "rounds": rounds,
        "milliseconds": {name: round(1e3 * statistics.median(values), 1) for name, values in seconds.items()},
        "ratios": {
            "fp32 against fp32": ratio(seconds["plain fp32"], seconds["ours fp32"]),
            "bf16 against fp32": ratio(seconds["plain fp32"], seconds["ours bf16"]),
            "bf16 against bf16": ratio(seconds[best], seconds["ours bf16"]),
        },
        "best bf16 kernel of the plain step": best.split(", ")[1],
        "gflop": {name: round(count / 1e9, 1) for name, count in operations.items()},
        "operations, ours / plain": round(operations["ours fp32"] / operations["plain fp32"], 3),
        "losses": losses,
        "losses equal to 5 digits": all(
            abs(a - b) < 1e-5 * a for a, b in zip(losses["plain fp32"], losses["ours fp32"], strict=True)
        ),
    }


def ratio(plain: list[float], ours: list[float]) -> float:
    return round(statistics.median(p / o for p, o in zip(plain, ours, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine, with --threads 1")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    method = IJEPA(Config(ENCODER, PREDICTOR, ema=(DECAY, DECAY)), Signal(3, SIZE))
    steps = {
        "plain fp32": plain_step(method, half=False, fused=False),
        "ours fp32": our_step(method, half=False),
        "plain bf16, plain attention": plain_step(method, half=True, fused=False),
        "plain bf16, fused attention": plain_step(method, half=True, fused=True),
        "ours bf16": our_step(method, half=True),
    }
    found = result(steps, args.rounds, args.threads, args.cpu_time)
    save("step", **found)
    print("\n".join(f"{name:30}{ms:9.0f} ms" for name, ms in found["milliseconds"].items()))
    print("\n".join(f"{name:30}{value:9.2f} x" for name, value in found["ratios"].items()))
    print(f"{'operations, ours / plain':30}{found['operations, ours / plain']:9.3f}")
    print(f"{'losses equal to 5 digits':30}{found['losses equal to 5 digits']!s:>9}")


if __name__ == "__main__":
    main()
