"""Read TIFF files with more bands than Pillow supports: strips or tiles, interleaved or planar, raw or deflated.

Satellite and microscope images use this format. Source: TIFF 6.0 and its Technical Note 2 (predictor, deflate).
"""

import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from PIL.TiffImagePlugin import ImageFileDirectory_v2

NO_COMPRESSION, DEFLATE = (1,), (8, 32946)
_SAMPLE_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True)
class Layout:
    """The layout of the values: `chunks` of (rows, columns), each with all `bands`, or with one band if `apart`."""

    height: int
    width: int
    bands: int
    kind: np.dtype[np.generic]
    apart: bool
    chunk: tuple[int, int]
    spans: tuple[tuple[int, int], ...]
    compression: int
    differences: bool


def read_layout(data: bytes) -> Layout | None:
    """The layout of a TIFF file with more than four bands; None for any other file. Raises ValueError."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags = ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    bands = int(tags.get(277, 1))
    if bands <= 4:
        return None
    height, width, tiled = int(tags[257]), int(tags[256]), 322 in tags
    chunk = (int(tags[323]), int(tags[322])) if tiled else (min(int(tags.get(278, height)), height), width)
    offsets, lengths = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    bits, form = set(tags[258]), set(tags.get(339, (1,)))
    if len(bits) != 1 or len(form) != 1 or not form <= set(_SAMPLE_KINDS) or not bits <= {8, 16, 32, 64}:
        raise ValueError(f"its bands have {sorted(bits)} bits in formats {sorted(form)}; write them with one type")
    kind = np.dtype(f"{'<' if data[:2] == b'II' else '>'}{_SAMPLE_KINDS[form.pop()]}{bits.pop() // 8}")
    spans = tuple((int(o), int(n)) for o, n in zip(offsets, lengths, strict=True))
    apart, compression = int(tags.get(284, 1)) == 2, int(tags.get(259, 1))
    return Layout(height, width, bands, kind, apart, chunk, spans, compression, int(tags.get(317, 1)) == 2)


def read_bands(data: bytes, at: Layout) -> Shaped[np.ndarray, "c h w"]:
    """All bands, in native byte order. Raises ValueError for an unsupported compression or missing bytes."""
    if at.compression not in NO_COMPRESSION + DEFLATE:
        raise ValueError(f"its compression is number {at.compression}; write it uncompressed or deflated")
    rows, columns = at.chunk
    out = np.zeros((at.bands, at.height, at.width), at.kind.newbyteorder("="))
    for k, part in enumerate(_read_chunks(data, at)):
        band, place = divmod(k, math.ceil(at.height / rows) * math.ceil(at.width / columns)) if at.apart else (0, k)
        down, across = divmod(place, math.ceil(at.width / columns))
        top, left = down * rows, across * columns
        target = out[band : band + 1] if at.apart else out
        view = target[:, top : top + rows, left : left + columns]
        view[...] = part[: view.shape[1], : view.shape[2]].transpose(2, 0, 1)
    return out


def _read_chunks(data: bytes, at: Layout) -> Iterator[Shaped[np.ndarray, "h w c"]]:
    """The strips or tiles in file order; the last strip may be shorter."""
    each = 1 if at.apart else at.bands
    for offset, length in at.spans:
        part = data[offset : offset + length]
        if len(part) < length:
            raise ValueError("it is truncated")
        plain = zlib.decompress(part) if at.compression in DEFLATE else part
        values = np.frombuffer(plain, at.kind).reshape(-1, at.chunk[1], each).astype(at.kind.newbyteorder("="))
        yield np.cumsum(values, axis=1, dtype=values.dtype) if at.differences else values
