"""Which kind of data a path holds, told from its name and, where that says too little, from the head of the file."""

from pathlib import Path

from .images import files as images
from .images import synthetic
from .series import generated
from .series.guess import split_key, why_series

FIXATIONS = (".json", ".json.gz")


def guess(path: str) -> tuple[str, str]:
    """Which of `KINDS` reads a path, and why. Raises ValueError where nothing is there or nothing reads it."""
    if path in synthetic.TASKS:
        return "synthetic", f"{path!r} names a generated set"
    if path in generated.SYSTEMS:
        return "dynamics", f"{path!r} names a generated system"
    file, key = split_key(path)
    files = images.expand(file)
    if key:
        return "series", f"array {key!r} of {files[0].name}"
    if why := why_series(files[0]):
        return "series", why
    if files[0].is_dir():
        return "images", "a folder"
    name = files[0].name.lower()
    if name.endswith(FIXATIONS):
        return "scanpaths", "a .json file holds fixations"
    if name.endswith((".npz", ".npy")) or "ubyte" in name or ".idx" in name or "-idx" in name:
        return "arrays", f"{Path(name).suffix or name} holds arrays"
    if name.endswith((".tar", ".parquet", ".pq", ".csv")):
        return "images", f"{Path(name).suffix} holds or lists images"
    raise ValueError(
        f"cannot tell what {path!r} holds; give a folder of images or series, "
        ".csv, .tar, .parquet, .npz, .npy, .ts or idx files, or fixations in .json"
    )
