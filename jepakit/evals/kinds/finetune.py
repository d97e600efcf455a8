"""Fine-tuning: the encoder is trained end to end with a linear classifier on its pooled tokens.

The classifier starts as the linear probe of the frozen encoder, so training begins where that probe ends (Kumar et al.
2022, arXiv:2202.10054), and reads features standardised as there: the pooled tokens of an untrained encoder hardly
differ, and a classifier that starts at zero on them gives it no gradient. Samples are augmented as in the run; the loss
is cross-entropy with smoothed labels, and the optimiser AdamW with a warm-up and a cosine to 0. With `layer_decay` d,
block i of L learns at lr d^(L - i), the layers before the first block (patch embedding, stem) at lr d^(L + 1), and the
classifier at lr. Source of the recipe: MAE, He et al. 2022, arXiv:2111.06377; the default here is far shorter.

The untrained encoder is trained in the same way, which is supervised training from scratch; the raw input gets a linear
classifier. If `lr` or `layer_decay` has several values, one pair is chosen for each encoder on a fifth of the training
samples: a trained encoder may need small changes to its first layers, an untrained one large ones. There, no training
at all is a candidate too, noted as an lr of 0: where no rate does better, the result is that of the frozen encoder.
The run's checkpoint is only read: a copy is trained and then discarded.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import schedules
from ...core.words import count_text
from ...run import optim
from ...run.optim import Optim
from ...types import Batch
from ..features import Pool, count_classes, extract_features, pool_tokens
from ..heldout import held_for_choice, held_out
from ..metrics.result import Value, accuracy_results
from ..trainable import Live
from . import linear

READS = "encoder"

Pairs = Iterator[tuple[str, Value]]


class Rates(NamedTuple):
    """The learning rate of the classifier and what each layer below learns at, relative to the one above it."""

    lr: float
    layer_decay: float


FROZEN: Final = Rates(0.0, 1.0)


@dataclass(frozen=True)
class Config:
    """`lr` and `layer_decay` list the candidates; one value of each needs no search.

    With `layer_decay` 1, all layers learn at one rate. Few samples are seen more often than `epochs` says, until there
    are `min_steps`; 0 keeps to the epochs.
    """

    lr: tuple[float, ...] = (1e-3, 3e-3)
    layer_decay: tuple[float, ...] = (0.75, 1.0)
    weight_decay: float = 0.05
    warmup: float = 0.1
    epochs: int = 10
    min_steps: int = 200
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
        decays = self.layer_decay
        if not (decays and min(decays) > 0 and max(decays) <= 1 and 0 <= self.smoothing < 1):
            raise ValueError(
                f"layer_decay={self.layer_decay} must lie in (0, 1] and smoothing={self.smoothing} in [0, 1); "
                "the usual values are (0.75,) and 0.1"
            )


class FineTuned(nn.Module):
    """An encoder, its tokens pooled and standardised, and a linear classifier that begins as `start`."""

    def __init__(self, encoder: nn.Module, start: linear.Linear, pool: Pool, device: str = "cpu") -> None:
        super().__init__()
        self.encoder, self.pool = encoder, pool
        self.weight = nn.Parameter(start.weight.T.contiguous().to(device))
        self.bias = nn.Parameter(start.bias.clone().to(device))
        self.mean, self.std = start.mean.to(device), start.std.to(device)

    def forward(self, batch: Batch) -> Float[Tensor, "b k"]:
        """The scores of the classes."""
        return F.linear((pool_tokens(self.encoder(batch), self.pool) - self.mean) / self.std, self.weight, self.bias)


def evaluate(train: Live, test: Live, cfg: Config) -> Pairs:
    """Yield the chosen `lr` and `layer_decay`, the number of `steps`, and the accuracy on `test` after training."""
    classes = count_classes(train.y, test.y)
    candidates = training_rates(train, cfg)
    rates = yield from _choose_rates(train, cfg, classes, candidates)
    yield "lr", rates.lr
    yield "layer_decay", rates.layer_decay
    yield "steps", float(training_length(train, cfg)[1]) if rates != FROZEN else 0.0
    if note := length_note(train, cfg):
        yield "length", note
    begun = 0.0 if len(candidates) == 1 else 1 - 1 / len(candidates)
    start = linear_probe(train, cfg, classes)
    model = yield from fine_tune(train, rates, cfg, start, (begun, 1.0))
    yield from accuracy_results(*predict_classes(model, test), classes)


def training_rates(train: Live, cfg: Config) -> list[Rates]:
    """The candidates, the gentlest first: FROZEN, unless there is a single one."""
    trains = any(p.requires_grad for p in train.build().parameters())
    decays = sorted(cfg.layer_decay) if trains else [1.0]
    rates = [Rates(lr, decay) for lr, decay in product(sorted(cfg.lr), decays)]
    return rates if len(cfg.lr) == len(cfg.layer_decay) == 1 else [FROZEN, *rates]


def _choose_rates(
    train: Live, cfg: Config, classes: int, candidates: Sequence[Rates]
) -> Generator[tuple[str, Value], None, Rates]:
    """The candidate with the best accuracy on a held-out fifth of `train`; for ties, the gentlest."""
    if len(candidates) == 1:
        return candidates[0]
    advice = f" of each, e.g. lr=({min(cfg.lr)},), layer_decay=({min(cfg.layer_decay)},)"
    held = held_for_choice(train.id.tolist(), train.y, "finetune", "lr and layer_decay", advice)
    fitted, scores = train.where(~held), []
    start = linear_probe(fitted, cfg, classes)
    for i, rates in enumerate(candidates):
        # The last share is that of the training that follows; FROZEN takes no time.
        share = (max(0, i - 1) / len(candidates), i / len(candidates))
        model = yield from fine_tune(fitted, rates, cfg, start, share)
        pred, y = predict_classes(model, train.where(held))
        scores.append(float((pred == y).mean()))
    return candidates[int(np.argmax(scores))]


def linear_probe(train: Live, cfg: Config, classes: int) -> linear.Linear:
    """The linear probe of the frozen encoder, fitted to samples without augmentation."""
    settings = linear.Config(pool=cfg.pool)
    batches = train.plain(256)
    found = extract_features(train.build().eval(), batches, cfg.pool, train.device, len(train))
    # Batches count the samples of this part; the probe `linear` chooses l2 by their ids in the data set.
    found = replace(found, id=train.id[found.id])
    solver, _ = linear.choose_solver(settings.solver, len(found), classes)
    if not held_out(found.id.tolist(), found.y, salt="l2").any():
        settings = replace(settings, l2=(max(settings.l2),))
    l2 = linear.choose_l2(found, solver, settings, classes)
    return linear.fit_classifiers(found, solver, (l2,), settings.iterations, classes)[0]


def training_length(train: Live, cfg: Config) -> tuple[int, int]:
    """The batch size and the number of steps."""
    batch = min(cfg.batch, len(train))
    return batch, max(cfg.epochs * (len(train) // batch), cfg.min_steps)


def length_note(train: Live, cfg: Config) -> str:
    """A sentence if a training has `min_steps`, which are more than its `epochs`; else empty."""
    batch, steps = training_length(train, cfg)
    asked = cfg.epochs * (len(train) // batch)
    if steps == asked:
        return ""
    return (
        f"each training takes {count_text(steps, 'step')} (finetune.min_steps), as {count_text(cfg.epochs, 'epoch')} "
        f"of {count_text(len(train), 'sample')} would be {asked}; --finetune.min_steps 0 keeps to the epochs"
    )


def fine_tune(
    train: Live, rates: Rates, cfg: Config, start: linear.Linear, share: tuple[float, float] = (0.0, 1.0)
) -> Generator[tuple[str, Value], None, FineTuned]:
    """Train a new copy of the encoder with a classifier that begins as `start`, or return both untrained if FROZEN.

    Yields `progress` between the ends of `share`.
    """
    model = FineTuned(train.build(), start, cfg.pool, train.device)
    if rates == FROZEN:
        yield "progress", share[1]
        return model.eval()
    model.train()
    rule = Optim(lr=rates.lr, start_lr=0.0, final_lr=0.0, warmup=cfg.warmup)
    optimizer = torch.optim.AdamW(layer_groups(model, rates.layer_decay, cfg.weight_decay))
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


def layer_groups(model: FineTuned, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups by layer, each with the `scale` of its learning rate; vectors get no weight decay."""
    inside = {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}
    depth = [*layer_depths(list(inside)), 0, 0]
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p, k in zip([*inside.values(), model.weight, model.bias], depth, strict=True):
        scale = layer_decay**k
        found.setdefault((scale, weight_decay if p.ndim > 1 else 0.0), []).append(p)
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
