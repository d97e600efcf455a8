"""Trains an independent classifier that recognises completed pictures."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...core.schedules import cosine_schedule
from ...types import Rng

Classify = Callable[[Float[Tensor, "b c h w"]], Int64[Tensor, " b"]]


def train_classifier(
    x: Float[Tensor, "n c h w"], y: Int64[Tensor, " n"], rng: Rng, *, epochs: float = 2.0, batch: int = 128
) -> Classify:
    """Train a small convolutional network on labelled pictures, to classify completed ones; it never sees a completion.

    It takes a minute on one core for the 60,000 pictures of MNIST. The caller's random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fork("init").generator().initial_seed())
        net = build_classifier(x.shape[1], int(y.max()) + 1).to(x.device)
    steps = max(1, round(epochs * len(x) / batch))
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    for step, rows in enumerate(batch_rows(len(x), batch, steps, rng)):
        for group in optimizer.param_groups:
            group["lr"] = cosine_schedule(step / steps, 2e-3, 0.0)
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    net.eval()

    @torch.inference_mode()
    def classify(pictures: Tensor) -> Tensor:
        return torch.cat([net(part).argmax(1) for part in torch.split(pictures, 512)])

    return classify


def build_classifier(channels: int, classes: int) -> nn.Sequential:
    """Three convolutions that each halve the picture, average pooling to 2 × 2, and a linear layer."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, classes))


def batch_rows(n: int, batch: int, steps: int, rng: Rng) -> Iterator[Int64[Tensor, " b"]]:
    """The rows of each step: epoch after epoch, all rows in a new order."""
    batch = min(batch, n)
    for step in range(steps):
        epoch, k = divmod(step, n // batch)
        if k == 0:
            order = torch.randperm(n, generator=rng.fork("order", epoch).generator())
        yield order[k * batch : (k + 1) * batch]
