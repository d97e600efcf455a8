"""A forecast as a table: a row per series and step, with the times that follow."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from ..core.files import replacing
from ..data.series import clock
from ..data.series.dataset import Series
from .windows import whole

ENDINGS = (".csv", ".parquet")
REGULAR = 0.8
"""The share of steps that take the usual time where times can be continued."""

Band = tuple[Float64[np.ndarray, "n c h"], Float64[np.ndarray, "n c h"]]


def ahead(dataset: Series, horizon: int) -> Shaped[np.ndarray, "n {horizon}"] | None:
    """The times of the next steps of every series: its last one, and so often the time that a step usually takes.

    None where there are no times, or where fewer than 4 of 5 steps take the same time.
    """
    times = dataset.steps.time
    if times is None:
        return None
    found = []
    for span in whole(dataset):
        time = times[span.begin : span.end]
        step = np.diff(time)
        usual = np.sort(step)[len(step) // 2]
        near = np.abs((step - usual).astype(np.float64)) <= 1e-3 * np.abs(usual.astype(np.float64))
        if near.mean() < REGULAR:
            return None
        found.append(time[-1] + usual * np.arange(1, horizon + 1))
    return np.stack(found)


def write(
    out: Path,
    dataset: Series,
    mean: Float64[np.ndarray, "n c h"],
    bands: Mapping[int, Band],
    times: Shaped[np.ndarray, "n h"] | None,
) -> None:
    """Write entity, step (from 1), time where there are `times`, and of every channel its value and its bands' ends.

    A channel called as one of those first columns gets `_value` at its end.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    n, c, h = mean.shape
    columns: dict[str, object] = {
        "entity": np.repeat(np.array([span.name for span in whole(dataset)], dtype=object), h),
        "step": np.tile(np.arange(1, h + 1), n),
    }
    if times is not None:
        as_written = clock.arrow if out.suffix == ".parquet" else clock.texts
        columns["time"] = as_written(times.reshape(-1), dataset.steps.offset)
    for k in range(c):
        name = dataset.columns[k] + ("_value" if dataset.columns[k] in ("entity", "step", "time") else "")
        columns[name] = mean[:, k].astype(np.float32).reshape(-1)
        for share, (low, high) in bands.items():
            columns[f"{name}_low{share}"] = low[:, k].astype(np.float32).reshape(-1)
            columns[f"{name}_high{share}"] = high[:, k].astype(np.float32).reshape(-1)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with replacing(out) as part:
        if out.suffix == ".parquet":
            parquet.write_table(table, part)
            return
        with part.open("wb") as file:
            # Arrow's own header has every name in quotes.
            file.write((",".join(_cell(name) for name in columns) + "\n").encode())
            csv.write_csv(table, file, csv.WriteOptions(include_header=False))


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text
