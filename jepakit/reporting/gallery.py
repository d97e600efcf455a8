"""From what was seen of a run to its figures, section by section."""

from dataclasses import replace
from math import prod

import numpy as np

from . import atlas, figures, paths, pictures
from .figures import Figure
from .page import Gallery
from .samples import Drawn, Look, Samples


def gallery(seen: Look, shown: int) -> Gallery:
    """The figures of one run by section id, with at most `shown` images large; sentences for those that are missing."""
    seen = replace(seen, samples=seen.samples and first(seen.samples, shown))
    notes = dict(seen.notes)
    found: dict[str, tuple[Figure, ...]] = {}
    if seen.masks:
        found["masks"] = tuple(f for drawn in seen.masks for f in _masks(drawn, seen))
    if seen.unfolded:
        found["time"] = paths.figures(seen.unfolded)
    if seen.samples:
        found["neighbours"] = (_neighbours(seen.samples),)
        found["map"] = (_map(seen.samples),)
        _dense(seen.samples, seen, found, notes)
    return Gallery(found, notes)


def first(samples: Samples, shown: int) -> Samples:
    """The same samples, of which only the first `shown` are shown large."""
    attention = None if samples.attention is None else samples.attention[:shown]
    return replace(samples, images=samples.images[:shown], tokens=samples.tokens[:shown], attention=attention)


def _masks(drawn: Drawn, seen: Look) -> list[Figure]:
    out = [figures.coverage(drawn.context, drawn.target, f"Coverage of {drawn.name}", drawn.count)]
    if seen.samples and len(seen.grid) == 2:
        count = min(len(seen.samples.images), len(drawn.examples))
        images, cells, names = seen.samples.images[:count], drawn.examples[:count], seen.samples.names[:count]
        out.append(
            pictures.mask_examples(images, cells, (seen.grid[0], seen.grid[1]), names, f"Examples of {drawn.name}")
        )
    return out


def _dense(samples: Samples, seen: Look, found: dict[str, tuple[Figure, ...]], notes: dict[str, str]) -> None:
    """Figures that need one token per patch of a two-dimensional grid."""
    count = len(samples.images)
    if len(seen.grid) != 2 or samples.tokens.shape[1] != prod(seen.grid) or samples.tokens.shape[1] == 1:
        notes["patches"] = notes["attention"] = "The encoder gives no token per patch, so there is no map to draw."
        return
    grid, names = (seen.grid[0], seen.grid[1]), samples.names[:count]
    found["patches"] = (pictures.patch_maps(samples.images, samples.tokens, grid, names),)
    if samples.attention is None:
        notes["attention"] = "The encoder has no attention, so there is no map of it."
    else:
        found["attention"] = (pictures.attention_maps(samples.images, samples.attention, grid, names),)


def _neighbours(samples: Samples) -> Figure:
    queries = np.arange(len(samples.images))
    return pictures.neighbours(samples.thumbs, samples.features, samples.names, samples.kinds, queries)


def _map(samples: Samples) -> Figure:
    return atlas.embedding_map(samples.features, samples.thumbs, samples.names, samples.kinds)
