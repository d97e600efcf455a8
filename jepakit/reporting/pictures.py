"""Draws figures made of images: pure functions from arrays to pixels, and from pixels to HTML with embedded images."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from ..core.words import percent
from .figures import Figure
from .records import Array

SPRITE_COLUMNS = 32
SPRITE_SIDE = 56
# One colour per target block: the most distinct entries of the page's palette, at half opacity.
BLOCK_COLORS = ((230, 126, 34), (46, 134, 222), (39, 174, 96), (192, 57, 143), (241, 196, 15), (22, 160, 133))


def to_rgb(x: Array) -> Array:
    """Pixels (n, H, W, 3) uint8 of signals (n, C, H, W): grey for one or two channels, else the first three channels.

    Values outside [0, 1], and values that use less than an eighth of it, as in some 16-bit pictures, are stretched from
    their 1st to their 99th percentile.
    """
    x = x[:, :3] if x.shape[1] >= 3 else x.mean(1, keepdims=True).repeat(3, 1)
    if x.size and (x.min() < -1e-3 or x.max() > 1 + 1e-3 or x.max() < 0.125):
        low, high = np.percentile(x, (1, 99))
        x = (x - low) / max(float(high - low), 1e-12)
    return np.asarray((x.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1))


def shrink_image(pixels: Array, side: int) -> Array:
    """The image (H, W, 3), reduced so that its longer side is at most `side`; never enlarged."""
    h, w = pixels.shape[:2]
    scale = side / max(h, w)
    if scale >= 1:
        return pixels
    return np.asarray(
        Image.fromarray(pixels).resize((max(1, round(w * scale)), max(1, round(h * scale))), Image.Resampling.BOX)
    )


def data_uri(pixels: Array, lossless: bool = False) -> str:
    """Pixels (H, W, 3 or 4) uint8 as a data URI: JPEG, or PNG if `lossless` or if there is an alpha channel."""
    buffer = io.BytesIO()
    png = lossless or pixels.shape[2] == 4
    Image.fromarray(pixels).save(buffer, "PNG" if png else "JPEG", **({} if png else {"quality": 82}))
    return f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def img_tag(pixels: Array, alt: str, *, lossless: bool = False) -> Markup:
    """An <img> tag with alt text; small grids stay crisp when the page enlarges them."""
    tag = '<img class="{}" src="{}" alt="{}" width="{}" height="{}">'
    h, w = pixels.shape[:2]
    return Markup(tag).format("crisp" if max(h, w) <= 64 else "", data_uri(pixels, lossless), alt, w, h)


def overlay_layer(pixels: Array, layer: Array, alt: str) -> Markup:
    """HTML of a picture with a coarse RGBA layer (h, w, 4) stretched over it."""
    return Markup('<span class="stack">{}{}</span>').format(img_tag(pixels, alt), img_tag(layer, "", lossless=True))


def tile_strip(tiles: Sequence[tuple[Markup, str]]) -> Markup:
    """HTML of pictures side by side, each with its caption underneath."""
    tile = '<figure class="tile">{}<figcaption>{}</figcaption></figure>'
    return Markup('<div class="strip">{}</div>').format(Markup("").join(Markup(tile).format(*t) for t in tiles))


def principal_components(x: Array, count: int) -> tuple[Array, float]:
    """Projections (n, count) of x (n, D) on its leading principal directions, and the share of variance they hold.

    Directions beyond the rank of x are zero. The sign is fixed: each direction's largest loading is positive.
    """
    centred = x.astype(np.float64) - x.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    top = vectors[:, ::-1][:, :count]
    top = top * np.where(top[np.abs(top).argmax(0), np.arange(top.shape[1])] < 0, -1, 1)
    out = np.zeros((len(x), count))
    out[:, : top.shape[1]] = centred @ top
    return out, float(values[::-1][:count].sum() / max(values.sum(), 1e-30))


def patch_colors(tokens: Array, grid: tuple[int, int]) -> tuple[Array, float]:
    """Colours (k, h, w, 3) uint8 of tokens (k, N, D) by three principal components over all k; their variance share."""
    parts, share = principal_components(tokens.reshape(-1, tokens.shape[-1]), 3)
    low, high = np.percentile(parts, (2, 98), axis=0)
    scaled = ((parts - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return (scaled * 255).astype(np.uint8).reshape(len(tokens), *grid, 3), share


def patch_maps(images: Sequence[Array], tokens: Array, grid: tuple[int, int], names: Sequence[str]) -> Figure:
    """A figure of images (k, H, W, 3), each beside its patch representations as colours."""
    colors, share = patch_colors(tokens, grid)
    tiles = [
        (
            Markup('<span class="pair">{}{}</span>').format(
                img_tag(i, name), img_tag(c, f"patch colours of {name}", lossless=True)
            ),
            name,
        )
        for i, c, name in zip(images, colors, names, strict=True)
    ]
    caption = (
        "Patches with similar representations have similar colours, across all images shown; the three components "
        f"hold {percent(share)} of the variance. Look for colours that follow objects. If every map looks the same "
        "whatever the image, the features encode position only. The colours themselves mean nothing, and what the "
        "other components know is not shown."
    )
    return Figure("Patch representations as colours", tile_strip(tiles), caption, wide=True)


def attention_layer(attention: Array) -> Array:
    """An RGBA layer (h, w, 4) uint8 of attention weights (h, w): dark for low attention, clear for high attention."""
    low, high = np.percentile(attention, (2, 98))
    shade = 1 - ((attention - low) / max(float(high - low), 1e-12)).clip(0, 1)
    layer = np.zeros((*attention.shape, 4), np.uint8)
    layer[..., :3] = (16, 18, 40)
    layer[..., 3] = (shade * 215).astype(np.uint8)
    return layer


def attention_maps(images: Sequence[Array], attention: Array, grid: tuple[int, int], names: Sequence[str]) -> Figure:
    """A figure of images (k, H, W, 3), bright where patches receive much `attention` (k, N) in the last block."""
    tiles = []
    for image, weights, name in zip(images, attention, names, strict=True):
        ratio = float(weights.max() * weights.size / max(float(weights.sum()), 1e-30))
        layer = attention_layer(weights.reshape(grid))
        tiles.append((overlay_layer(image, layer, f"attention over {name}"), f"peak {ratio:.2f}x even · {name}"))
    caption = (
        "The attention each patch receives in the last block, averaged over heads and over the patches that read. "
        "Bright is read most, scaled per image: where the peak is barely above even attention, the picture enlarges "
        "next to nothing. It shows where information is taken from, not what is done with it."
    )
    return Figure("Attention of the last block", tile_strip(tiles), caption, wide=True)


def mask_layer(cells: Array, grid: tuple[int, int]) -> Array:
    """An RGBA layer (h, w, 4) uint8 of cells (N,): 0 hidden, 1 context, 2 + m target block m."""
    colors = np.array(
        [
            (16, 18, 40, 225),
            (0, 0, 0, 0),
            *[(*BLOCK_COLORS[m % len(BLOCK_COLORS)], 175) for m in range(max(int(cells.max()) - 1, 0))],
        ]
    )
    return np.asarray(colors[cells].astype(np.uint8).reshape(*grid, 4))


def mask_examples(
    images: Sequence[Array], cells: Array, grid: tuple[int, int], names: Sequence[str], title: str
) -> Figure:
    """A figure of images (k, H, W, 3), each under one drawn mask; `cells` (k, N) has the codes of `mask_layer`."""
    tiles = []
    for image, drawn, name in zip(images, cells, names, strict=True):
        facts = f"{percent((drawn == 1).mean())} context, {percent((drawn > 1).mean())} target"
        tiles.append((overlay_layer(image, mask_layer(drawn, grid), f"mask over {name}: {facts}"), facts))
    caption = (
        "What one training example looks like: the context encoder sees the clear patches only and the predictor "
        "has to tell the representation of each coloured block; dark patches are used by nobody. Blocks may "
        "overlap; the last one is on top."
    )
    return Figure(title, tile_strip(tiles), caption)


def nearest_rows(features: Array, queries: Array, count: int = 5) -> tuple[Array, Array]:
    """Indices and cosines (q, count) of the rows of `features` (n, D) nearest to each query row, excluding the row.

    The function removes the mean first, because a common offset would push every cosine towards 1.
    """
    unit = features - features.mean(0)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    cosine = unit[queries] @ unit.T
    cosine[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, len(features) - 1)]
    return order, np.take_along_axis(cosine, order, axis=1)


def neighbour_figure(
    thumbs: Sequence[Array],
    features: Array,
    names: Sequence[str],
    kinds: Sequence[str],
    queries: Array,
    many: str = "samples",
) -> Figure:
    """A figure of query images with their nearest images; `kinds` (n) are class names, empty without labels.

    `many` is what the data call their samples.
    """
    order, cosine = nearest_rows(features, queries)
    rows, hits, total = [], 0, 0
    for query, found, near in zip(queries, order, cosine, strict=True):
        cells = [_neighbour_tile(thumbs[query], names[query], kinds[query] or "query", "query")]
        for j, c in zip(found, near, strict=True):
            same = bool(kinds[query]) and kinds[j] == kinds[query]
            hits, total = hits + same, total + bool(kinds[query] and kinds[j])
            mark = "" if not (kinds[query] and kinds[j]) else "same" if same else "other"
            cells.append(_neighbour_tile(thumbs[j], names[j], f"{kinds[j]} {c:.2f}".strip(), mark))
        rows.append(Markup('<div class="row">{}</div>').format(Markup("").join(cells)))
    score = (
        f" Here {hits} of {total} neighbours share the query's class (solid frame; dashed: another class)."
        if total
        else ""
    )
    caption = (
        f"Left the query, then the closest of {len(features)} {many} by cosine of their mean-pooled, centred "
        f"representations (the number).{score} A handful of queries is an impression, not a score: the probe table "
        "is."
    )
    return Figure(
        "Nearest neighbours", Markup('<div class="rows">{}</div>').format(Markup("").join(rows)), caption, wide=True
    )


def _neighbour_tile(pixels: Array, name: str, words: str, mark: str) -> Markup:
    tile = '<figure class="tile {}" title="{}">{}<figcaption>{}</figcaption></figure>'
    return Markup(tile).format(mark, name, img_tag(pixels, f"{mark} {name}".strip()), words)
