"""Measures a method for the panel: tokens of its encoders, views of the same samples, energies of pairs.

Nothing here affects training: no gradients, no running statistics, no draws from a global generator.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ... import collapse
from ...methods.base import Method, Weights
from ...methods.masked import Masked
from ...types import Batch, Masks, Rng

CHUNK_SIZE: Final = 32  # small enough for a processor's cache
NUM_VIEWS: Final = 8
MAX_LIDAR_SAMPLES: Final = 128  # maximum number of samples whose views LiDAR compares
NUM_QUERIES: Final = 8
MAX_CANDIDATES: Final = 64
DIAGNOSTIC_SAMPLES: Final = 16  # samples for a method's own diagnostics


@contextmanager
def evaluation_mode(method: nn.Module) -> Iterator[None]:
    """Put the method in evaluation mode without gradients; restore every module's own mode afterwards."""
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        # Not inference_mode: training could not use a table that a module caches inside it.
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def distinct_encoders(method: Method, batch: Batch) -> tuple[Weights, ...]:
    """The encoders of the method: only the target encoder if the context encoder consists of the same modules."""
    used = [_called_modules(method, batch[:1], weights) for weights in ("target", "context")]
    return ("target",) if used[0] == used[1] != set() else ("target", "context")


def _called_modules(method: Method, batch: Batch, weights: Weights) -> set[nn.Module]:
    """The modules with their own parameters that an encoding calls."""
    seen: set[nn.Module] = set()

    def note(module: nn.Module, args: object) -> None:
        seen.add(module)

    owners = [module for module in method.modules() if next(module.parameters(recurse=False), None) is not None]
    hooks = [module.register_forward_pre_hook(note) for module in owners]
    try:
        method.encode(_to_method(method, batch), weights)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def encode_tokens(method: Method, batch: Batch, weights: Weights) -> Float[Tensor, "n t d"]:
    """Tokens of the samples on the CPU, in fp32 or wider whatever the training precision."""
    return torch.cat([method.encode(_to_method(method, part), weights).float().cpu() for part in _split_chunks(batch)])


def masked_views(method: Masked, x: Shaped[Tensor, "n c ..."]) -> Float[Tensor, "n q d"]:
    """The mean context token (n, NUM_VIEWS, D) of each sample under several masks, which are always the same."""
    masks, views = method.cfg.masks, []
    for k in range(NUM_VIEWS):
        grid = method.encoder.grid_of(x)
        drawn: Masks = masks[k % len(masks)](grid, len(x), Rng(0).fork("panel", "views", k))
        parts = zip(*(torch.split(t, CHUNK_SIZE) for t in (x, drawn.context, drawn.targets)), strict=True)
        here = method.mean.device
        means = [
            method.context(_to_method(method, Batch(part)).x, Masks(seen.to(here), hidden.to(here), grid))
            for part, seen, hidden in parts
        ]
        views.append(torch.cat([s.float().mean(1).cpu() for s in means]))
    return torch.stack(views, 1)


def picture_views(method: Method, pictures: Shaped[Tensor, "n q c ..."]) -> Float[Tensor, "n q d"]:
    """The mean token of each picture from the trained encoder."""
    n, q = pictures.shape[:2]
    means = [
        method.encode(_to_method(method, part), "context").float().mean(1).cpu()
        for part in _split_chunks(Batch(pictures.flatten(0, 1)))
    ]
    return torch.cat(means).reshape(n, q, -1)


def view_measures(views: Float[Tensor, "n q d"]) -> dict[str, float]:
    """LiDAR as published and corrected, the share of signal and the consistency; undefined measures are omitted."""
    numbers = {
        "lidar": collapse.lidar(views),
        "lidar_corrected": collapse.lidar_corrected(views),
        "signal_share": collapse.signal_share(views),
        "consistency": collapse.view_consistency(views),
    }
    return {key: value for key, value in numbers.items() if value is not None}


def energy_measures(method: Method, x: Batch, y: Batch) -> dict[str, float]:
    """The energy gap, and the rate at which the first NUM_QUERIES samples of x retrieve their y among MAX_CANDIDATES.

    Each candidate is compared with all queries at once, so that every query sees it under the same masks.
    """
    queries = _to_method(method, x[:NUM_QUERIES])
    candidates = _to_method(method, y[:MAX_CANDIDATES])
    rows = [torch.full((len(queries),), k, device=candidates.x.device) for k in range(len(candidates))]
    columns = [method.energy(queries, candidates[row]) for row in rows]
    energy = torch.stack(columns, 1).float().cpu()
    return {"energy_gap": collapse.energy_gap(energy), "retrieval": collapse.retrieval_rate(energy)}


def method_diagnostics(method: Method, batch: Batch) -> dict[str, float]:
    """The method's own diagnostics, from its parameters and the first DIAGNOSTIC_SAMPLES samples."""
    return {
        key: float(value) for key, value in method.diagnostics(_to_method(method, batch[:DIAGNOSTIC_SAMPLES])).items()
    }


def _split_chunks(batch: Batch) -> Iterator[Batch]:
    """Slices of CHUNK_SIZE samples."""
    return (batch[start : start + CHUNK_SIZE] for start in range(0, len(batch), CHUNK_SIZE))


def _to_method(method: Method, batch: Batch) -> Batch:
    """The batch on the method's device and in its precision."""
    return batch.to(method.mean.device, method.mean.dtype)
