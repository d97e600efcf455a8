"""Draws the embedding map: representations in two dimensions; hovering over a point shows its image."""

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from markupsafe import Markup
from PIL import Image

from .figures import Figure
from .pictures import SPRITE_COLUMNS, SPRITE_SIDE, data_uri, principal_components, shrink_image
from .records import Array

NUM_COLORS = 10
MIN_POINTS = 50


def place_points(features: Array) -> tuple[Array, Literal["t-SNE", "PCA"]]:
    """Positions (n, 2) in [0, 1] and the name of the method: t-SNE on the centred cosine, or PCA if n < 50.

    The same features always give the same map.
    """
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    if len(features) < MIN_POINTS or float(centred.std(0).max()) < 1e-9:
        return _unit_square(principal_components(unit, 2)[0]), "PCA"
    from sklearn.manifold import TSNE

    # 50 directions keep all that t-SNE can use and make its neighbour search several times faster.
    compact = principal_components(unit, min(50, unit.shape[1]))[0].astype(np.float32)
    perplexity = min(30, len(features) // 4)
    return _unit_square(TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(compact)), "t-SNE"


def _unit_square(points: Array) -> Array:
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-12), dtype=float)


def thumbnail_sheet(thumbs: Sequence[Array]) -> Array:
    """One sheet (rows x SPRITE_SIDE, SPRITE_COLUMNS x SPRITE_SIDE, 3) of all thumbnails, row by row."""
    rows = -(-len(thumbs) // SPRITE_COLUMNS)
    sheet = Image.new("RGB", (SPRITE_COLUMNS * SPRITE_SIDE, rows * SPRITE_SIDE), (128, 128, 128))
    for k, thumb in enumerate(thumbs):
        small = shrink_image(thumb, SPRITE_SIDE)
        scale = SPRITE_SIDE / max(small.shape[:2])
        size = (max(1, round(small.shape[1] * scale)), max(1, round(small.shape[0] * scale)))
        tile = Image.fromarray(small).resize(size, Image.Resampling.NEAREST)
        corner = (k % SPRITE_COLUMNS * SPRITE_SIDE, k // SPRITE_COLUMNS * SPRITE_SIDE)
        sheet.paste(tile, (corner[0] + (SPRITE_SIDE - size[0]) // 2, corner[1] + (SPRITE_SIDE - size[1]) // 2))
    return np.asarray(sheet)


def embedding_map(
    features: Array, thumbs: Sequence[Array] | None, names: Sequence[str], kinds: Sequence[str], many: str = "samples"
) -> Figure:
    """A scatter plot of `features` (n, D) coloured by class; hovering over a dot shows its name and any image.

    `many` is what the data call their samples.
    """
    points, how = place_points(features)
    classes = sorted({kind for kind in kinds if kind})
    colors = {"": "bare", **{kind: f"k{i % NUM_COLORS}" for i, kind in enumerate(classes)}}
    dots = [
        f'<circle class="{colors[kind]}" cx="{x * 100:.2f}" cy="{70 - y * 70:.2f}" r="0.6" data-i="{k}"/>'
        for k, ((x, y), kind) in enumerate(zip(points, kinds, strict=True))
    ]
    label = f"Map of {len(points)} representations" + (f" in {len(classes)} classes" if classes else "")
    svg = Markup('<svg viewBox="-2 -2 104 74" role="img" aria-label="{}">{}</svg>').format(label, Markup("".join(dots)))
    facts = json.dumps({"names": list(names), "kinds": list(kinds), "side": SPRITE_SIDE, "columns": SPRITE_COLUMNS})
    # data-sprite is an attribute, not a style, because no CSS rule of the page may contain data.
    body = Markup('<div class="atlas" data-sprite="{}" data-facts="{}">{}</div>{}').format(
        data_uri(thumbnail_sheet(thumbs)) if thumbs is not None else "", facts, svg, _class_legend(classes)
    )
    caption = (
        f"Each dot is one of {len(points)} {many}, placed by {how}: neighbours on the map are similar to the "
        "encoder. Point at a dot to see it. Distances between far groups, their sizes and densities mean nothing"
        + (", and labels were not used to place the dots." if classes else ".")
    )
    return Figure("Map of the representations", body, caption, wide=True)


def _class_legend(classes: Sequence[str]) -> Markup:
    if not classes or len(classes) > 3 * NUM_COLORS:
        return Markup("")
    items = [Markup('<li><i class="k{}"></i>{}</li>').format(k % NUM_COLORS, name) for k, name in enumerate(classes)]
    more = Markup("<li>(colours repeat)</li>") if len(classes) > NUM_COLORS else Markup("")
    return Markup('<ul class="legend">{}{}</ul>').format(Markup("").join(items), more)
