"""Read series from .npy and .npz arrays.

The meaning of the axes if `layout` is "auto":

    (T,)        one long series of one channel
    (A, B)      "TC", one long series of A steps and B channels, if there are no labels, B <= 16 and B < A;
                else "NT", A series of B steps
    (N, A, B)   "NCT" where A <= B, else "NTC": a series has fewer channels than steps

NaN at the end of all channels of a series in "NT", "NCT" or "NTC" is padding: the series is shorter.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from ..images.arrays import LABEL_KEYS
from ..images.decode import DECODING_ERRORS
from .record import SeriesRecord

Layout = Literal["auto", "NT", "NCT", "NTC", "TC"]
ARRAY_KEYS = ("x", "X", "series", "data", "values", "x_train", "X_train", "arr_0")
MAX_CHANNELS_GUESSED = 16
LAYOUTS_BY_AXES: dict[int, tuple[Layout, ...]] = {1: ("TC",), 2: ("TC", "NT"), 3: ("NCT", "NTC")}


def read_array(path: Path, key: str, label: str, layout: Layout) -> tuple[list[SeriesRecord], bool, tuple[str, ...]]:
    """The series of an array, whether there are many, and notes on guesses. Raises ValueError with the shape."""
    try:
        x, y, said = _load_arrays(path, key, label)
    except (*DECODING_ERRORS, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read series from {str(path)!r}: {error}") from None
    chosen = choose_layout(x, layout, y is not None, str(path))
    if chosen == "TC":
        values = (x[:, None] if x.ndim == 1 else x).T
        if y is not None and len(y) != values.shape[1]:
            raise ValueError(
                f"{path.name} has {values.shape[1]} steps but {len(y)} labels; give one per step, or data.label=none"
            )
        labels = [] if y is None else y.tolist()
        records = [SeriesRecord(path.name, values.astype(np.float64), _channel_names(len(values)), labels)]
    else:
        many = x[:, None] if chosen == "NT" else x.transpose(0, 2, 1) if chosen == "NTC" else x
        if y is not None and len(y) != len(many):
            raise ValueError(f"{path.name} has {len(many)} series but {len(y)} labels; name the right arrays")
        labels = [()] * len(many) if y is None else [[v] for v in y.tolist()]
        records = [_one_series(path, i, v, labels[i]) for i, v in enumerate(many.astype(np.float64))]
    note = f"array {x.shape} {x.dtype} read as {'T' if x.ndim == 1 else chosen}: {len(records)} series"
    return records, chosen != "TC", (*said, note)


def choose_layout(x: Shaped[np.ndarray, "..."], layout: Layout, labelled: bool, path: str) -> Layout:
    """The layout of an array. Raises ValueError, with the shape, if it holds no series or the layout does not fit."""
    fits: tuple[Layout, ...] = LAYOUTS_BY_AXES.get(x.ndim, ())
    if not fits or x.dtype.kind not in "uifb" or not x.size:
        raise ValueError(
            f"{path!r} holds an array of shape {x.shape} and type {x.dtype}; "
            "series are numbers of shape (T,), (T, C), (N, T), (N, C, T) or (N, T, C)"
        )
    if layout != "auto":
        if layout not in fits:
            raise ValueError(f"layout {layout} does not fit an array of shape {x.shape}; use layout=auto")
        return layout
    if x.ndim == 1:
        return "TC"
    a, b = x.shape[-2:]
    if x.ndim == 2:
        return "TC" if not labelled and b <= MAX_CHANNELS_GUESSED and b < a else "NT"
    return "NCT" if a <= b else "NTC"


def _one_series(path: Path, i: int, values: Shaped[np.ndarray, "c t"], label: list[object] | tuple[()]) -> SeriesRecord:
    """Series i, without its NaN padding."""
    there = np.flatnonzero(~np.isnan(values).all(axis=0))
    length = int(there[-1]) + 1 if there.size else values.shape[1]
    return SeriesRecord(f"{path.name}[{i}]", values[:, :length], _channel_names(len(values)), label)


def _channel_names(channels: int) -> tuple[str, ...]:
    return tuple(str(c) for c in range(channels))


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _load_arrays(path: Path, key: str, label: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False), None, ()
    # Opened here because numpy would leave a broken file open.
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        x = next((name for name in ((key,) if key else ARRAY_KEYS) if name in file), None)
        if x is None:
            raise ValueError(
                f"no array {key or 'x'!r}; it holds {_first_names(file.files)}: set data.array to one of them"
            )
        # The labels of NAME_X_train are NAME_y_train.
        beside = (x.replace("_X_", "_y_"),) if "_X_" in x else ()
        y = next((name for name in ((label,) if label else (*beside, *LABEL_KEYS)) if name in file), None)
        if label not in ("", "none") and y is None:
            raise ValueError(f"no array {label!r}; it holds {_first_names(file.files)}: set data.label to one of them")
        said = f"series from array {x!r}" + (f", labels from {y!r}" if y else ", no labels")
        return file[x], file[y] if y else None, (said,)
