"""Runs a method that unfolds in time on a few samples and records its predictions, states and gates at every step."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..data import Dataset, loader
from ..data.draws import spread_evenly
from ..methods.base import Method
from ..methods.predictive import Predictive
from ..nn.encoder import Encoder
from ..recurrent.cells import Cell
from ..types import Batch, Signal, unit
from .pictures import to_rgb
from .records import Array
from .scanpaths import draw_scanpath

MAX_SAMPLES = 96
MAX_PATHS = 7
MAX_PICTURES = 6
PICTURE_SIDE = 440


@dataclass(frozen=True, eq=False)
class TimeMeasures:
    """Measurements at steps 1 … T of n samples, NaN after a sample's end; `names` covers the first MAX_PATHS samples.

    `states` (n, T, D) are means over positions. `error`, `still` and `constant` (T - 1,) are the mean squared
    difference between each next state and its prediction, the state before it, and the best constant of that step.
    `gate` (T, W), if the circuit has gates, is how open each unit is to its input: the mean over the samples that
    reach a step. `pictures` shows the first MAX_PICTURES with their scanpaths, if the data are scanpaths.
    """

    states: Array
    error: Array
    still: Array
    constant: Array
    gate: Array | None
    names: tuple[str, ...]
    pictures: tuple[Array, ...] = ()


def unfold_samples(method: Method, dataset: Dataset, most: int, device: torch.device | str) -> TimeMeasures | None:
    """Run the method on up to MAX_SAMPLES or `most` samples spread over the data; None for fewer than two readable."""
    assert isinstance(method, Predictive)
    parts = read_samples(dataset, method.signal, spread_evenly(len(dataset), min(MAX_SAMPLES, most)))
    if len(parts) < 2:
        return None
    x = torch.cat([unit(part.x) for part in parts]).to(device)
    given = [part.action for part in parts if part.action is not None]
    action = torch.cat(given).nan_to_num().to(device) if len(given) == len(parts) else None
    ids = [int(part.id[0]) for part in parts[:MAX_PATHS]]
    with torch.inference_mode():
        tokens, pred, gate = run_through(method, x.nan_to_num(), action)
    ends = torch.cat([part.length if part.length is not None else torch.tensor([x.shape[2]]) for part in parts])
    real = torch.arange(len(tokens)) < (ends // (x.shape[2] // len(tokens)))[:, None]
    return summarize_steps(tokens.cpu(), pred.cpu(), gate, real.T, dataset, ids)


def read_samples(dataset: Dataset, signal: Signal, wanted: list[int]) -> list[Batch]:
    """Samples as `jepa embed` reads them, each a batch of one; the next readable sample replaces an unreadable one."""
    found: dict[int, Batch] = {}
    for i in wanted:
        batch = next(loader.read_stream(dataset, signal, batch=1, start=i), None)
        if batch is not None:
            found.setdefault(int(batch.id[0]), batch)
    return list(found.values())


def run_through(
    method: Predictive, x: Float[Tensor, "n c ..."], action: Float[Tensor, "n a f"] | None
) -> tuple[Float[Tensor, "t n p d"], Float[Tensor, "u n p d"], Float[Tensor, "t n w"] | None]:
    """Tokens after every step, predictions of all of them but the first, and the gates of the topmost circuit.

    Gates are means over positions.
    """
    encoder = next(m for m in method.modules() if isinstance(m, Encoder))
    patch = encoder.patch[0]
    frames = [frame if patch > 1 or x.ndim == 3 else frame[:, :, 0] for frame in torch.split(x, patch, 2)]
    frames = frames[: x.shape[2] // patch]
    gates: list[Tensor] = []

    def note(cell: nn.Module, args: tuple[Tensor, Tensor]) -> None:
        assert isinstance(cell, Cell)
        gates.append(cell.gate(*args).float().reshape(len(x), -1, cell.width).mean(1).cpu())

    cells = [m for m in method.modules() if isinstance(m, Cell)]
    # The last circuit built is the topmost; its state argument is the previous state.
    hook = cells[-1].register_forward_pre_hook(note) if cells else None
    try:
        state = method.start(frames[0])
        tokens, pred = [state.tokens], []
        for t, frame in enumerate(frames[1:]):
            led = None if action is None else action[:, t]
            pred.append(method.step(state, led).tokens)
            state = method.observe(state, frame, led)
            tokens.append(state.tokens)
    finally:
        if hook is not None:
            hook.remove()
    return torch.stack(tokens), torch.stack(pred), torch.stack(gates) if gates else None


def summarize_steps(
    tokens: Float[Tensor, "t n p d"],
    pred: Float[Tensor, "u n p d"],
    gate: Float[Tensor, "t n w"] | None,
    real: Bool[Tensor, "t n"],
    dataset: Dataset,
    ids: list[int],
) -> TimeMeasures:
    """Errors, baselines and gates per step; omits steps that fewer than two samples reach."""
    steps = int((real.sum(1) > 1).sum())
    tokens, pred, real = tokens[:steps].double(), pred[: steps - 1].double(), real[:steps]
    weight = real / real.sum(1, keepdim=True)
    share = weight[1:, :, None, None]
    after, before = tokens[1:], tokens[:-1]
    mean = (after * share).sum(1, keepdim=True)
    error, still, constant = (
        ((after - other).square() * share).sum(1).mean((1, 2)).numpy() for other in (pred, before, mean)
    )
    states = tokens.mean(2).where(real[..., None], torch.nan).transpose(0, 1).float().numpy()
    names = tuple(dataset.name(i) for i in ids)
    opened = None if gate is None else (weight[..., None] * gate[:steps].where(real[..., None], 0)).sum(1).numpy()
    pictures = tuple(picture for i in ids[:MAX_PICTURES] if (picture := scanpath_picture(dataset, i)) is not None)
    return TimeMeasures(states, error, still, constant, opened, names, pictures)


def scanpath_picture(dataset: Dataset, i: int) -> Array | None:
    """The picture that a sample looks at, with its scanpath drawn over it; None if the data are not scanpaths."""
    if (found := dataset.looked_at(i)) is None:
        return None
    picture, places = found
    return np.asarray(draw_scanpath(to_rgb(picture.numpy()[None])[0], places, PICTURE_SIDE))
