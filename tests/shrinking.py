"""A method that collapses as fast as its learning rate lets it: two noisy views agree, and nothing holds them apart.

L = ln mean |f(x) − f(x + noise)|², gradient through both; f is a fixed map and its size e^s, whose s falls by about
the learning rate at each step. Where `wall` is set, L is not a number once f has shrunk to that share.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.methods.base import Method, Weights
from jepakit.types import Batch, Rng, Signal, Terms


@dataclass(frozen=True)
class Config:
    patch: int = 8
    noise: float = 0.1
    wall: float = 0.0

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        return cls()


class Shrinking(Method):
    cfg: Config

    def __init__(self, cfg: Config, signal: Signal) -> None:
        super().__init__(cfg, signal)
        self.embed = nn.Conv2d(signal.channels, 8, cfg.patch, cfg.patch).requires_grad_(False)
        self.size = nn.Parameter(torch.zeros(()))

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        total, part = rng.global_batch(len(batch))
        noise = torch.randn(total, *batch.x.shape[1:], generator=rng.generator(), dtype=torch.float64)[part]
        target = self.encode(batch)
        pred = self.encode(Batch(batch.x + self.cfg.noise * noise.to(batch.x)))
        loss = (pred - target).square().mean().log()
        if self.size.detach().exp() < self.cfg.wall:
            loss = loss * torch.nan
        return Terms({"prediction": loss}, compared=(pred.detach(), target.detach()))

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        s: Tensor = self.embed(self.normalize(batch.x)).flatten(2).transpose(1, 2)
        return self.size.exp() * s

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        return (self.encode(batch) - self.encode(other)).square().flatten(1).mean(1)
