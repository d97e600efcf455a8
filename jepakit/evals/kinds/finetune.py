"""Fine-tuning: the encoder is trained end to end with a linear classifier on its pooled tokens.

Samples are augmented as in the run; the loss is cross-entropy with smoothed labels, and the optimiser AdamW with a
warm-up and a cosine to 0. With `layer_decay` d, block i of L learns at lr d^(L - i), the layers before the first block
(patch embedding, stem) at lr d^(L + 1), and the classifier at lr. Source of the recipe: MAE, He et al. 2022,
arXiv:2111.06377; the default here is far shorter.

The untrained encoder is trained in the same way, which is supervised training from scratch; the raw input gets a linear
classifier. If `lr` has several values, one is chosen for each encoder on a fifth of the training samples. The run's
checkpoint is only read: a copy is trained and then discarded.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import schedules
from ...run import optim
from ...run.optim import Optim
from ...types import Batch
from ..features import Pool, count_classes, pool_tokens
from ..heldout import held_for_choice
from ..metrics.result import Value, accuracy_results
from ..trainable import Live

READS = "encoder"

Pairs = Iterator[tuple[str, Value]]


@dataclass(frozen=True)
class Config:
    """`lr` lists the candidates; a single value needs no search. With `layer_decay` 1, all layers learn at one rate."""

    lr: tuple[float, ...] = (1e-3,)
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup: float = 0.1
    epochs: int = 10
    batch: int = 64
    smoothing: float = 0.1
    clip: float = 1.0
    seed: int = 0
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        if not self.lr or min(self.lr) <= 0 or min(self.epochs, self.batch) < 1:
            raise ValueError(
                f"lr={self.lr}, epochs={self.epochs} and batch={self.batch} must be positive, "
                "with at least one lr, e.g. lr=(1e-3,), epochs=10, batch=64"
            )
        if not (0 < self.layer_decay <= 1 and 0 <= self.smoothing < 1):
            raise ValueError(
                f"layer_decay={self.layer_decay} must lie in (0, 1] and smoothing={self.smoothing} in [0, 1); "
                "the usual values are 0.75 and 0.1"
            )


class FineTuned(nn.Module):
    """An encoder, its tokens pooled, and a linear classifier that starts at zero."""

    def __init__(self, encoder: nn.Module, batch: Batch, pool: Pool, classes: int) -> None:
        super().__init__()
        self.encoder, self.pool = encoder, pool
        with torch.no_grad():
            dim = pool_tokens(encoder(batch), pool).shape[1]
        self.weight = nn.Parameter(torch.zeros(classes, dim, device=batch.x.device))
        self.bias = nn.Parameter(torch.zeros(classes, device=batch.x.device))

    def forward(self, batch: Batch) -> Float[Tensor, "b k"]:
        """The scores of the classes."""
        return F.linear(pool_tokens(self.encoder(batch), self.pool), self.weight, self.bias)


def evaluate(train: Live, test: Live, cfg: Config) -> Pairs:
    """Yield the accuracy on `test` after training, the chosen `lr`, and the number of `steps`."""
    classes = count_classes(train.y, test.y)
    lr = yield from _choose_lr(train, cfg, classes)
    yield "lr", lr
    yield "steps", float(training_length(train, cfg)[1])
    model = yield from fine_tune(train, lr, cfg, classes, (0.0 if len(cfg.lr) == 1 else 0.5, 1.0))
    yield from accuracy_results(*predict_classes(model, test), classes)


def _choose_lr(train: Live, cfg: Config, classes: int) -> Generator[tuple[str, Value], None, float]:
    """The rate with the best accuracy on a held-out fifth of `train`; for ties, the lowest."""
    rates = sorted(cfg.lr)
    if len(rates) == 1:
        return rates[0]
    held = held_for_choice(train.id.tolist(), train.y, "finetune", "lr", f", e.g. lr=({rates[0]},)")
    scores = []
    for i, rate in enumerate(rates):
        share = (0.5 * i / len(rates), 0.5 * (i + 1) / len(rates))
        model = yield from fine_tune(train.where(~held), rate, cfg, classes, share)
        pred, y = predict_classes(model, train.where(held))
        scores.append(float((pred == y).mean()))
    return rates[int(np.argmax(scores))]


def training_length(train: Live, cfg: Config) -> tuple[int, int]:
    """The batch size and the number of steps."""
    batch = min(cfg.batch, len(train))
    return batch, cfg.epochs * (len(train) // batch)


def fine_tune(
    train: Live, lr: float, cfg: Config, classes: int, share: tuple[float, float] = (0.0, 1.0)
) -> Generator[tuple[str, Value], None, FineTuned]:
    """Train a new copy of the encoder; yields `progress` between the ends of `share`."""
    model = FineTuned(train.build(), train.signal.zeros(device=train.device), cfg.pool, classes).train()
    rule = Optim(lr=lr, start_lr=0.0, final_lr=0.0, warmup=cfg.warmup)
    optimizer = torch.optim.AdamW(layer_groups(model, cfg))
    batch, steps = training_length(train, cfg)
    for step, samples in enumerate(train.augmented_batches(batch, steps, cfg.seed)):
        rate = optim.learning_rate(rule, schedules.run_progress(step + 1, steps + 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        samples = samples.to(train.device)
        assert samples.label is not None
        loss = F.cross_entropy(model(samples), samples.label, label_smoothing=cfg.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optim.clip_gradients(model.parameters(), cfg.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield "progress", share[0] + (share[1] - share[0]) * (step + 1) / steps
    return model.eval()


def layer_groups(model: FineTuned, cfg: Config) -> list[dict[str, Any]]:
    """Parameter groups by layer, each with the `scale` of its learning rate; vectors get no weight decay."""
    inside = {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}
    depth = [*layer_depths(list(inside)), 0, 0]
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p, k in zip([*inside.values(), model.weight, model.bias], depth, strict=True):
        scale = cfg.layer_decay**k
        found.setdefault((scale, cfg.weight_decay if p.ndim > 1 else 0.0), []).append(p)
    return [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in found.items()]


def layer_depths(names: Sequence[str]) -> list[int]:
    """For each parameter, in the encoder's order, the number of blocks from its own to the end of the encoder.

    It is 0 after the last block, or if there are no blocks. Before the first block, as for a stem, it is one more than
    the number of blocks.
    """
    block = {name: match[0] for name in names if (match := re.match(r".*?\b(?:blocks|stages\.\d+)\.\d+\.", name))}
    order = list(dict.fromkeys(block.values()))
    first = next((i for i, name in enumerate(names) if name in block), len(names))
    before = len(order) + 1 if order else 0
    return [
        len(order) - order.index(block[name]) if name in block else before if i < first else 0
        for i, name in enumerate(names)
    ]


@torch.no_grad()
def predict_classes(model: FineTuned, part: Live) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The class with the highest score, and the label, of each readable sample."""
    preds, labels = [], []
    for batch in part.plain(256):
        assert batch.label is not None
        preds.append(model(batch.to(part.device)).argmax(1).cpu())
        labels.append(batch.label)
    return torch.cat(preds).numpy(), torch.cat(labels).numpy()
