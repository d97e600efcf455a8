"""Series for tests: a table as text, and arrays with a label that their shape tells."""

from pathlib import Path

import numpy as np


def table(path: Path, rows: int, columns: int = 2, header: str = "", start: str = "2024-01-01T00:00", step: int = 60):
    """A CSV with a time column, one row per `step` minutes, and columns of waves; the values written (C, T)."""
    time = np.datetime64(start) + np.arange(rows) * np.timedelta64(step, "m")
    values = waves(rows, columns)
    names = header or ",".join(["time", *(f"c{k}" for k in range(columns))])
    lines = [",".join([str(t), *(f"{v:.6f}" for v in row)]) for t, row in zip(time, values.T.tolist(), strict=True)]
    path.write_text("\n".join([names, *lines]) + "\n")
    return np.round(values, 6)


def waves(rows: int, columns: int) -> np.ndarray:
    """Sines of several speeds (C, T)."""
    return np.sin(np.arange(rows)[None] * (0.1 + 0.07 * np.arange(columns)[:, None]))


def two_kinds(n: int, length: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy slow and fast waves (N, 1, T), and which they are."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = draw.uniform(0, 6, (n, 1))
    x = np.sin(np.arange(length)[None] * (0.3 + 0.7 * y[:, None]) + phase) + 0.05 * draw.normal(size=(n, length))
    return x[:, None].astype(np.float32), y


def rewrite(path: Path, line: int, old: str, new: str) -> None:
    """Replace `old` by `new` on a line of a text, counted from 1."""
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")
