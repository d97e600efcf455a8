"""Encodes a few samples of a trained run's data, and draws masks as training does, for the figures of the report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import masks
from ..data import Dataset, loader
from ..data.draws import spread_evenly
from ..evals.transitions import check_world_model
from ..methods.base import Method
from ..methods.predictive import Predictive
from ..nn.encoder import Encoder
from ..nn.transformer import ViTEncoder
from ..run import checkpoint
from ..run.own_data import own_data, unseen_part
from ..types import Batch, Grid, Masks, Rng, Signal, unit
from .imagination import Imagination, imagine_episodes
from .pictures import shrink_image, to_rgb
from .records import Array
from .time import TimeMeasures, unfold_samples

THUMB_SIDE = 64
IMAGE_SIDE = 224
MAX_LARGE_IMAGES = 8
BATCH_SIZE = 16
MASK_STEPS = 64
REMEDY = "put the data back and write the report again"
# Multiplications allowed on a CPU, one or two minutes: 590 images for a ViT-B/16, 60 for a ViT-H/14.
MAX_MULTIPLICATIONS = 1e13


@dataclass(frozen=True, eq=False)
class Samples:
    """n items and their mean-pooled representations (n, D); the first k also have pictures and tokens (k, N, D).

    `many` is what the data call their items.
    `kinds` are class names, empty for an item without a label. `attention` (k, N) is the attention that each patch
    receives in the last block, None if the encoder has no attention. `images` and `thumbs` are uint8 (H, W, 3).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    features: Array
    thumbs: tuple[Array, ...]
    images: tuple[Array, ...]
    tokens: Array
    attention: Array | None
    many: str = "samples"

    def first(self, count: int) -> "Samples":
        """The same samples, of which only the first `count` have pictures and tokens."""
        attention = None if self.attention is None else self.attention[:count]
        return replace(self, images=self.images[:count], tokens=self.tokens[:count], attention=attention)


@dataclass(frozen=True, eq=False)
class MaskerSamples:
    """Masks of one masker: per cell, the share of `count` masks that use it as context or target; examples (k, N)."""

    name: str
    context: Array
    target: Array
    count: int
    examples: Array


@dataclass(frozen=True, eq=False)
class Look:
    """All data that the figures of one run need; `notes` says, per section, why something is missing."""

    grid: Grid = ()
    samples: Samples | None = None
    masks: tuple[MaskerSamples, ...] = ()
    unfolded: TimeMeasures | None = None
    imagined: Imagination | None = None
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def map_grid(self) -> tuple[int, int] | None:
        """The patch grid of a picture if each of its cells has exactly one token, else None."""
        tokens = self.samples.tokens.shape[1] if self.samples else 0
        if len(self.grid) != 2 or tokens != prod(self.grid) or tokens == 1:
            return None
        return self.grid[0], self.grid[1]

    def first(self, count: int) -> "Look":
        """The same data, with at most `count` images shown large."""
        return replace(self, samples=self.samples and self.samples.first(count))


def look_at_run(
    run: Path,
    images: int,
    device: torch.device | str = "cpu",
    note: Callable[[str], None] = lambda sentence: None,
) -> Look:
    """Load a run and pass `images` of its samples, evenly spread over its data, through the target encoder.

    `note` gets what loading the run has to say.
    """
    try:
        loaded = checkpoint.load_run(run, note=note)
    except (ValueError, OSError) as error:
        return Look(
            notes=dict.fromkeys(
                ("masks", "patches", "attention", "neighbours", "map"), f"The model could not be loaded: {error}."
            )
        )
    method = loaded.method.to(device)
    encoder = next((m for m in method.modules() if isinstance(m, Encoder)), None)
    grid = encoder.grid if encoder else ()
    notes: dict[str, str] = {}
    samples = _encode_samples(loaded, method, affordable_images(encoder, images, device), device, notes)
    drawn = draw_masks(loaded.run.method, grid, loaded.run.seed, samples.tokens if samples else None)
    unfolded = _unfold_run(loaded, method, images, device, notes)
    return Look(grid, samples, drawn, unfolded, _imagine_run(loaded, method, device, notes), notes)


def _imagine_run(
    loaded: checkpoint.LoadedRun, method: Method, device: torch.device | str, notes: dict[str, str]
) -> Imagination | None:
    """What a world model imagines of the part that training left out; None for other methods and unreadable data."""
    try:
        check_world_model(method)
    except ValueError:
        return None
    try:
        own = own_data(loaded, REMEDY)
        held = unseen_part(loaded, own.cfg)
        dataset = own.dataset if held is None else held.open()
        found = imagine_episodes(cast(Predictive, method), dataset, device, seen=held is None)
    except (ValueError, OSError) as error:
        notes["dynamics"] = f"Nothing was imagined: {error}."
        return None
    if found is None:
        notes["dynamics"] = "Fewer than two windows could be read, so there is nothing to imagine."
    return found


def _unfold_run(
    loaded: checkpoint.LoadedRun, method: Method, images: int, device: torch.device | str, notes: dict[str, str]
) -> TimeMeasures | None:
    """Measurements of a method that unfolds in time; None for other methods and, with a note, for unreadable data."""
    if not isinstance(method, Predictive):
        return None
    try:
        measures = unfold_samples(method, own_data(loaded, REMEDY).dataset, images, device)
    except (ValueError, OSError) as error:
        notes["time"] = f"The data were not read: {error}."
        return None
    if measures is None:
        notes["time"] = "Fewer than two samples could be read, so there is nothing to compare."
    return measures


def affordable_images(encoder: Encoder | None, images: int, device: torch.device | str) -> int:
    """How many of `images` to encode: all, but on a CPU only what MAX_MULTIPLICATIONS allows, at least a screenful."""
    if encoder is None or torch.device(device).type != "cpu":
        return images
    each = sum(p.numel() for p in encoder.parameters()) * prod(encoder.grid)
    return min(images, max(3 * MAX_LARGE_IMAGES, int(MAX_MULTIPLICATIONS / max(each, 1))))


def _encode_samples(
    loaded: checkpoint.LoadedRun, method: Method, images: int, device: torch.device | str, notes: dict[str, str]
) -> Samples | None:
    pictures = ("patches", "attention", "neighbours", "map")
    if len(method.signal.size) != 2:
        return None
    try:
        dataset = own_data(loaded, REMEDY).dataset
        samples = encode_samples(method, dataset, images, device)
    except (ValueError, OSError) as error:
        notes.update(dict.fromkeys(pictures, f"The data were not read: {error}."))
        return None
    if samples is None:
        few = f"Fewer than two {dataset.words.many} could be read, so there is nothing to compare."
        notes.update(dict.fromkeys(pictures, few))
    return samples


def draw_masks(cfg: object, grid: Grid, seed: int, tokens: Array | None = None) -> tuple[MaskerSamples, ...]:
    """Masks of every masker that the method's settings name, drawn as a training with `seed` draws them.

    Maskers that read tokens get `tokens` (k, N, D) if every cell has one: the tokens of the pictures that the example
    masks are drawn over.
    """
    maskers = tuple(getattr(cfg, "masks", ())) if grid else ()
    shown = torch.from_numpy(tokens) if tokens is not None and tokens.shape[1] == prod(grid) else None
    steps = [masks.draw_masks(maskers, grid, BATCH_SIZE, Rng(seed, step), tokens=shown) for step in range(MASK_STEPS)]
    out = []
    for i, masker in enumerate(maskers):
        cells = np.stack([mark_tokens(drawn[i], prod(grid)) for drawn in steps])
        context, target = (flatten_grid(seen.mean((0, 1)), grid) for seen in (cells == 1, cells > 1))
        name = type(masker).__name__ + (f" {i}" if len(maskers) > 1 else "")
        # Each example comes from a different step, so that all sizes appear, and covers its own picture.
        k = np.arange(min(MAX_LARGE_IMAGES, cells.shape[1]))
        out.append(MaskerSamples(name, context, target, cells[..., 0].size, cells[k, k]))
    return tuple(out)


def flatten_grid(values: Array, grid: Grid) -> Array:
    """Values (N,) on the grid as a picture (h, w): a series becomes one row, a video its mean over time."""
    on_grid = values.reshape(grid)
    return np.asarray(on_grid[None] if len(grid) == 1 else on_grid.mean(0) if len(grid) == 3 else on_grid)


def mark_tokens(masks: Masks, tokens: int) -> Array:
    """The role of each token, (B, N): 0 hidden, 1 context, 2 + m target block m."""
    cells = torch.zeros(len(masks.context), tokens, dtype=torch.int64).scatter_(1, masks.context, 1)
    for m in range(masks.targets.shape[1]):
        cells.scatter_(1, masks.targets[:, m], 2 + m)
    return np.asarray(cells.numpy())


def encode_samples(method: Method, dataset: Dataset, most: int, device: torch.device | str) -> Samples | None:
    """At most `most` samples with everything the figures need, or None if fewer than two are readable.

    The samples are spread evenly over the data; those shown large come first. Representations are the target encoder's.
    """
    ids: list[int] = []
    images: tuple[Array, ...] = ()
    features, thumbs = [], []
    tokens, attention = torch.empty(0), None
    for found, x in read_chunks(dataset, method.signal, sample_order(len(dataset), most)):
        with torch.inference_mode():
            s, weights = with_attention(method, x.to(device)) if not ids else (method.encode(Batch(x.to(device))), None)
        pixels = to_rgb(x.numpy())
        if not ids:
            images, tokens, attention = tuple(shrink_image(p, IMAGE_SIDE) for p in pixels), s.float().cpu(), weights
        ids += found
        features.append(s.float().mean(1).cpu())
        thumbs += [shrink_image(p, THUMB_SIDE) for p in pixels]
    if len(ids) < 2:
        return None
    return Samples(
        names=tuple(dataset.name(i) for i in ids),
        kinds=tuple(class_name(dataset, i) for i in ids),
        features=torch.cat(features).numpy(),
        thumbs=tuple(thumbs),
        images=images,
        tokens=tokens.numpy(),
        attention=None if attention is None else attention.float().cpu().numpy(),
        many=dataset.words.many,
    )


def class_name(dataset: Dataset, i: int) -> str:
    """The class name of item i, empty if it has no label."""
    label = dataset.label(i)
    return dataset.classes[label] if 0 <= label < len(dataset.classes) else ""


def sample_order(n: int, most: int) -> list[int]:
    """Indices of at most `most` of n items, evenly spread; those shown large come first and are evenly spread too."""
    chosen = spread_evenly(n, most)
    first = [chosen[k] for k in spread_evenly(len(chosen), MAX_LARGE_IMAGES)]
    return [*first, *(i for i in chosen if i not in set(first))]


def read_chunks(
    dataset: Dataset, signal: Signal, wanted: Sequence[int]
) -> Iterator[tuple[list[int], Float[Tensor, "b c h w"]]]:
    """Items and their pixels as `jepa embed` reads them, in chunks; readable items replace unreadable ones."""
    seen: set[int] = set()
    for part in (wanted[k : k + MAX_LARGE_IMAGES] for k in range(0, len(wanted), MAX_LARGE_IMAGES)):
        found = {}
        for i in part:
            batch = next(loader.read_stream(dataset, signal, batch=1, start=i), None)
            if batch is not None and (item := int(batch.id[0])) not in seen:
                seen.add(item)
                found[item] = unit(batch.x[0])
        if found:
            yield list(found), torch.stack(list(found.values()))


def with_attention(method: Method, x: Tensor) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n"] | None]:
    """Tokens (B, N, D) of `method.encode`, and the attention (B, N) that each received in the last block.

    The attention is the mean over heads and over query tokens; None if the encoder has no attention.
    """
    seen: list[tuple[nn.Module, Tensor]] = []
    lasts = [m.blocks[-1] for m in method.modules() if isinstance(m, ViTEncoder)]
    hooks = [block.register_forward_pre_hook(lambda module, args: seen.append((module, args[0]))) for block in lasts]
    try:
        tokens = method.encode(Batch(x))
    finally:
        for hook in hooks:
            hook.remove()
    return tokens, received_attention(*seen[-1]) if seen else None


def received_attention(block: nn.Module, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """The attention that each token receives in a transformer block with input x; it sums to one over the tokens."""
    project: Callable[[Tensor], tuple[Tensor, ...]] = block.attn.project_qkv  # type: ignore[union-attr, assignment]
    q, k, _ = project(block.norm1(x))  # type: ignore[operator]
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1).mean((1, 2))
