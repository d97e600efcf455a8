"""How much faster is a training step of a world model than one of the shape of EB-JEPA's example, at equal sizes?

Two Rooms at 65 × 65 with 2 channels, 17 frames, 2 action values, latents of 512, 8-step roll-outs from the first frame
by a GRU whose state is the latent, and the five terms: prediction, std, cov, temporal, inverse. The plain step is
written from the described architecture (arXiv:2602.03604): an IMPALA encoder, and statistics step by step in a loop.
Ours runs once with that same encoder, and once with one of ours of as many parameters. One thread, CPU time, float32;
each round takes all three in turn.

    python benchmarks/worldmodel.py
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from record import save
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit import methods
from jepakit.methods import worldmodel
from jepakit.nn import CNN, GRU
from jepakit.run import optim
from jepakit.types import ActionSpec, Batch, Rng, Signal

BATCH, FRAMES, SIDE, ROLLOUT, WIDTH, ROUNDS = 16, 17, 65, 8, 512, 7


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.two(F.relu(self.one(F.relu(x))))
        return out


class Impala(nn.Module):
    """Per stage a convolution, a pooling of stride 2 and two residual blocks; then a linear to one vector."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((2, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [Residual(after), Residual(after)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 9 * 9, WIDTH))
        # What a world model asks of an encoder.
        self.dim, self.patch, self.grid, self.mixes = WIDTH, (1, SIDE, SIDE), (FRAMES, 1, 1), False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.transpose(1, 2).flatten(0, 1))
        return out.reshape(len(x), -1, WIDTH)


@dataclass(frozen=True)
class ImpalaConfig:
    def build(self, signal: Signal) -> Any:
        return Impala()


class Plain(nn.Module):
    """The example's loss, term by term and step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.norm = Impala(), nn.LayerNorm(WIDTH)
        self.cell = nn.GRUCell(2, WIDTH)
        self.inverse = nn.Sequential(nn.Linear(2 * WIDTH, 256), nn.ReLU(), nn.Linear(256, 2))

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        s = self.norm(self.encoder(x))
        now, preds = s[:, 0], []
        for t in range(ROLLOUT):
            now = self.norm(self.cell(action[:, t], now))
            preds.append(now)
        loss = F.mse_loss(torch.stack(preds, 1), s[:, 1 : ROLLOUT + 1])
        std = cov = s.new_zeros(())
        for t in range(FRAMES):
            centred = s[:, t] - s[:, t].mean(0)
            std = std + F.relu(1 - (centred.var(0) + 1e-4).sqrt()).mean() / FRAMES
            full = centred.T @ centred / (len(s) - 1)
            off = full - torch.diag(torch.diag(full))
            cov = cov + off.square().sum() / (WIDTH * (WIDTH - 1)) / FRAMES
        temporal = F.mse_loss(s[:, 1:], s[:, :-1])
        inverse = F.mse_loss(self.inverse(torch.cat([s[:, :-1], s[:, 1:]], -1)), action)
        return loss + 16 * std + 8 * cov + 12 * temporal + inverse


def ours(encoder: Any, signal: Signal) -> nn.Module:
    cfg = worldmodel.Config(encoder, GRU(), steps=ROLLOUT, cov=8 / (WIDTH - 1))
    return methods.build(cfg, signal)


def stepper(module: nn.Module, loss: Callable[[], Tensor], fast: bool) -> Callable[[], float]:
    """A training step: CPU milliseconds of loss, gradients, clipping and AdamW."""
    settings = optim.Optim(clip=2.0)
    optimizer = optim.build_optimizer(settings, module) if fast else torch.optim.AdamW(module.parameters(), 1e-3)

    def step() -> float:
        begun = time.process_time()
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        optimizer.step()
        return (time.process_time() - begun) * 1e3

    return step


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, action = torch.rand(BATCH, 2, FRAMES, SIDE, SIDE), torch.randn(BATCH, FRAMES - 1, 2)
    batch, signal = Batch(x, action=action), Signal(2, (FRAMES, SIDE, SIDE), action=ActionSpec(2))
    plain, same = Plain(), ours(ImpalaConfig(), signal)
    own = ours(CNN((1, SIDE, SIDE), WIDTH, (16, 32, 32), norm="none"), signal)
    steps = {
        "plain": stepper(plain, lambda: plain(x, action), fast=False),
        "ours, same encoder": stepper(same, lambda: same(batch, Rng(0)).total, fast=True),
        "ours, own encoder": stepper(own, lambda: own(batch, Rng(0)).total, fast=True),
    }
    modules = {"plain": plain, "ours, same encoder": same, "ours, own encoder": own}
    for step in steps.values():
        step()
    rounds = [{name: step() for name, step in steps.items()} for _ in range(ROUNDS)]
    rows = []
    for name, module in modules.items():
        ms = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r["plain"] / r[name] for r in rounds)
        count = sum(p.numel() for p in module.parameters())
        rows.append({"step": name, "ms": round(ms, 1), "ratio": round(ratio, 2), "parameters": count})
        print(f"{name:20} {ms:8.1f} ms   {ratio:5.2f}x   {count:,} parameters")
    sizes = {"batch": BATCH, "frames": FRAMES, "side": SIDE, "rollout": ROLLOUT, "width": WIDTH}
    save("worldmodel", threads=1, seed=0, rounds=ROUNDS, **sizes, rows=rows)


if __name__ == "__main__":
    main()
