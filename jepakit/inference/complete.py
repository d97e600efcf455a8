"""What a model imagines in place of a half that it does not see: pictures, series or clips, beside the truth.

A decoder, trained over the frozen run where there is none yet, turns predicted representations into values
(methods/decoder.py). Of every sample the one half is kept as it is. Samples are read, completed and written a batch at
a time, at the size that the run was trained on.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core import devices, files
from ..core.progress import Silent, Watch, counting
from ..data import Dataset, loader
from ..data.lengths import refuse_padding
from ..data.series.settings import Config
from ..evals.metrics.generation import Tally
from ..masks.halves import sides, splits
from ..methods.decoder import Decoder
from ..methods.head import Head
from ..run import checkpoint, parse
from ..types import Grid, Rng, Size
from . import complete_clips, complete_images, complete_series
from .complete_folder import Chunk, Write, check_out, new_folder
from .decoder import decoder_of

__all__ = ["Completed", "complete_run"]

BATCH: Final = 64
KINDS: Final[Mapping[int, tuple[str, Write]]] = {
    1: ("series", complete_series.write),
    2: ("pictures", complete_images.write),
    3: ("clips", complete_clips.write),
}
"""What samples are called, and what writes them, by the number of their axes."""


class Completed(NamedTuple):
    """What was written: the folder, how many items, and how far they are from the truth over what was hidden.

    `ssim` is None but for pictures and clips in [0, 1]; `skipped` are items that could not be read, with the reason.
    """

    out: Path
    items: int
    mse: float
    ssim: float | None
    sharpness: float
    skipped: dict[str, str]


def complete_run(
    run: Path,
    data: str,
    out: Path,
    hide: str,
    *,
    limit: int | None = None,
    steps: int | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Completed:
    """Write the samples of `data`, one side of each imagined, to the folder `out`; see `api.complete`.

    Raises ValueError, before anything is trained or written, where the run cannot predict that side.
    """
    watch = watch or Silent()
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give how many items to complete, 1 or more")
    loaded = checkpoint.load_run(run)
    if isinstance(loaded.method, Head):
        raise ValueError(f"{run} is a head; give the run below it, {loaded.method.cfg.parents[0]}")
    check_name(hide, len(loaded.method.signal.size))
    check_out(out, overwrite)
    dataset = opened(loaded, data, settings or {})
    decoder, about = decoder_of(run, loaded, hide, steps, watch)
    with new_folder(out, overwrite) as part:
        total, skipped = _write(decoder, dataset, part, hide, min(limit or len(dataset), len(dataset)), watch)
        found = total.numbers()
        size = list(decoder.signal.size)
        said = {"run": str(run), "step": loaded.step, "data": data, "hide": hide, "size": size, "decoder": about}
        files.write_json(part / "completions.json", {**said, **found, "skipped": skipped})
    return Completed(out, total.items, total.mse, found.get("ssim"), total.sharpness, skipped)


def check_name(hide: str, axes: int) -> None:
    """Raises ValueError where samples of so many axes have no side of that name."""
    names = sides(axes)
    if hide not in names:
        raise ValueError(f"no side {hide!r} of {KINDS[axes][0]}; give --hide {', '.join(names)}")


def opened(loaded: checkpoint.Loaded, data: str, settings: Mapping[str, Any]) -> Dataset:
    """All data at a path, read as the run reads its own but for `settings`; windows of series one after another."""
    signal = loaded.method.signal
    cfg = parse.other_data(loaded.run, data, signal, settings)
    if isinstance(cfg, Config) and cfg.window and "data.stride" not in settings:
        cfg = replace(cfg, stride=cfg.window)
    dataset: Dataset = cfg.open()
    refuse_padding(dataset, signal.size, "completing")
    loader.check_channels(dataset, signal)
    return dataset


def hidden_part(grid: Grid, size: Size, side: str) -> Bool[Tensor, "..."]:
    """True where a value of a sample (*size) is hidden."""
    masks = splits(grid)[side](grid, 1, Rng(0))
    cells = torch.zeros(len(masks.targets.flatten()) + masks.context.shape[1], dtype=torch.bool)
    cells[masks.targets.flatten()] = True
    found = cells.reshape(grid)
    for axis, (count, length) in enumerate(zip(grid, size, strict=True)):
        found = found.repeat_interleave(length // count, axis)
    return found


def _write(
    decoder: Decoder, dataset: Dataset, part: Path, hide: str, count: int, watch: Watch
) -> tuple[Tally, dict[str, str]]:
    hidden = hidden_part(decoder.grid, decoder.signal.size, hide)
    _, write = KINDS[len(decoder.signal.size)]
    skipped: dict[str, str] = {}
    chunks = _chunks(decoder, dataset, hide, count, watch, skipped)
    total = write(chunks, part, dataset, hidden, decoder.std.cpu(), count)
    if not total.items:
        raise ValueError("none of the items can be read, so there is nothing to complete; look at jepa check-data")
    return total, skipped


def _chunks(
    decoder: Decoder, dataset: Dataset, hide: str, count: int, watch: Watch, skipped: dict[str, str]
) -> Iterator[Chunk]:
    """The first `count` items of the data, completed, on the CPU."""
    device, _ = devices.best_device()
    decoder = decoder.to(device).eval()
    tell = counting(watch, "completing", "items")
    with closing(loader.stream(dataset, decoder.signal, batch=min(BATCH, count))) as stream:
        for batch in stream:
            keep = batch.id < count
            x = batch.to(device).x[keep.to(device)]
            if len(x):
                yield Chunk(batch.id[keep].tolist(), decoder.complete(x, hide).cpu(), x.cpu())
            skipped.update(stream.skipped)
            done = int(batch.id[-1]) + 1 if len(batch) else 0
            tell(min(done, count), count)
            if done >= count:
                return
