"""Completes samples of which the model sees one half: pictures, series or clips, written beside the truth.

A decoder turns predicted representations into values (methods/decoder.py); it is trained over the frozen run if there
is none yet. The visible half of each sample stays as it is. Samples are read, completed and written a batch at a time,
at the size that the run was trained on.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core import devices, files
from ..core.progress import Progress, SilentProgress, progress_counter
from ..data import Dataset, loader, refuse_padding
from ..evals.metrics.generation import Tally
from ..masks.halves import available_halves, named_halves
from ..methods.decoder import Decoder
from ..methods.head import Head
from ..run import checkpoint
from ..training.request import PathLike
from ..types import Grid, Rng, Size
from .complete_folder import SUMMARY_FILE, Chunk, WriteChunks, check_folder, new_folder
from .complete_images import write_clips, write_pictures
from .complete_series import write_series
from .decoder import load_or_train_decoder
from .inputs import open_data

__all__ = ["Completed", "complete"]

BATCH_SIZE: Final = 64
OUTPUT_KINDS: Final[Mapping[int, tuple[str, WriteChunks]]] = {
    1: ("series", write_series),
    2: ("pictures", write_pictures),
    3: ("clips", write_clips),
}
"""The name of samples and the function that writes them, by their number of axes."""


class Completed(NamedTuple):
    """What was written: the folder, how many items, and how far they are from the truth over what was hidden.

    `ssim` is None unless they are pictures or clips in [0, 1]. `skipped` are the items that could not be read, with the
    reason.
    """

    out: Path
    items: int
    mse: float
    ssim: float | None
    sharpness: float
    skipped: dict[str, str]


def complete(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    hide: str = "right",
    limit: int | None = None,
    steps: int | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Completed:
    """Write what a run imagines in place of one side of each sample, to the folder `out`.

    `hide` is right, left, top or bottom of pictures, past or future of series, any of these of clips. Pictures become
    NAME.png and grid.png; clips NAME.npy (C, T, H, W) and grid.png; series completions.csv and figure.png; all have
    completions.json, with error and sharpness. If the run has no decoder, one is trained on its data into
    RUN/heads/decoder, for `steps` (2000) steps. `limit` completes only the first items. `settings` override how `data`
    are read, as {"data.fill": 30}. Raises ValueError, before anything is trained or written, for a side that the
    samples do not have or the run cannot predict.
    """
    run, out, progress = Path(run), Path(out), progress or SilentProgress()
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give how many items to complete, 1 or more")
    loaded = checkpoint.load_run(run, note=progress.note)
    signal = loaded.method.signal
    if isinstance(loaded.method, Head):
        raise ValueError(f"{run} is a head; give the run below it, {loaded.method.cfg.parents[0]}")
    check_side_name(hide, len(signal.size))
    check_folder(out, overwrite)
    dataset = open_data(loaded, os.fspath(data), settings, "adjacent")
    refuse_padding(dataset, signal.size, "completing")
    loader.check_channels(dataset, signal)
    decoder, about = load_or_train_decoder(run, loaded, hide, steps, progress)
    with new_folder(out, overwrite) as part:
        total, skipped = _write_items(decoder, dataset, part, hide, min(limit or len(dataset), len(dataset)), progress)
        numbers = total.numbers()
        summary = {"run": str(run), "step": loaded.step, "data": os.fspath(data), "hide": hide}
        summary |= {"size": list(decoder.signal.size), "decoder": about, **numbers, "skipped": skipped}
        files.write_json(part / SUMMARY_FILE, summary)
    return Completed(out, total.items, total.mse, numbers.get("ssim"), total.sharpness, skipped)


def check_side_name(hide: str, axes: int) -> None:
    """Raises ValueError if samples with `axes` axes have no side of that name."""
    names = named_halves(axes)
    if hide not in names:
        raise ValueError(f"no side {hide!r} of {OUTPUT_KINDS[axes][0]}; give --hide {', '.join(names)}")


def hidden_values(grid: Grid, size: Size, side: str) -> Bool[Tensor, "..."]:
    """True where a value of a sample (*size) is hidden."""
    masks = available_halves(grid)[side](grid, 1, Rng(0))
    cells = torch.zeros(len(masks.targets.flatten()) + masks.context.shape[1], dtype=torch.bool)
    cells[masks.targets.flatten()] = True
    hidden = cells.reshape(grid)
    for axis, (count, length) in enumerate(zip(grid, size, strict=True)):
        hidden = hidden.repeat_interleave(length // count, axis)
    return hidden


def _write_items(
    decoder: Decoder, dataset: Dataset, folder: Path, hide: str, count: int, progress: Progress
) -> tuple[Tally, dict[str, str]]:
    hidden = hidden_values(decoder.grid, decoder.signal.size, hide)
    _, write = OUTPUT_KINDS[len(decoder.signal.size)]
    skipped: dict[str, str] = {}
    chunks = _completed_chunks(decoder, dataset, hide, count, progress, skipped)
    total = write(chunks, folder, dataset, hidden, decoder.std.cpu(), count)
    if not total.items:
        raise ValueError("none of the items can be read, so there is nothing to complete; look at jepa check-data")
    return total, skipped


def _completed_chunks(
    decoder: Decoder, dataset: Dataset, hide: str, count: int, progress: Progress, skipped: dict[str, str]
) -> Iterator[Chunk]:
    """The first `count` items of the data, completed, on the CPU; items that cannot be read are added to `skipped`."""
    device, _ = devices.best_device()
    decoder = decoder.to(device).eval()
    counter = progress_counter(progress, "completing", "items")
    with closing(loader.read_stream(dataset, decoder.signal, batch=min(BATCH_SIZE, count))) as stream:
        for batch in stream:
            keep = batch.id < count
            x = batch.to(device).x[keep.to(device)]
            if len(x):
                yield Chunk(batch.id[keep].tolist(), decoder.complete(x, hide).cpu(), x.cpu())
            skipped.update(stream.skipped)
            done = int(batch.id[-1]) + 1 if len(batch) else 0
            counter(min(done, count), count)
            if done >= count:
                return
