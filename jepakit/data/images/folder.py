"""Image files on disk: a folder, with or without class sub-folders, or a CSV or parquet manifest."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..rows import Names, encode_by_name, encode_labels
from .decode import EXTENSIONS
from .store import NO_LABELS, Store

PART_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name")
LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
MASK_SUFFIX = ".mask.png"
"""The suffix that replaces an image's suffix in the name of its mask; a mask is not an image."""


@dataclass(frozen=True, eq=False)
class Files(Store):
    """Image files below `root`, by relative name."""

    root: str

    def read(self, i: int) -> bytes:
        """The bytes of file i. Raises OSError."""
        with open(os.path.join(self.root, self.names[i]), "rb") as file:
            return file.read()

    def length(self, i: int) -> int:
        """The size of file i in bytes, -1 if it is missing."""
        try:
            return os.stat(os.path.join(self.root, self.names[i])).st_size
        except OSError:
            return -1


def open_folder(root: Path) -> Files:
    """All images below a folder, sorted by name; decodes nothing.

    The class is the first sub-folder if every image is in one; below folders named like parts (train, val, test)
    it is the second. A single sub-folder is a class only if it holds all images directly, because deeper folders
    may have another meaning. Raises ValueError if there are no images.
    """
    closed = dict[str, str]()
    found = sorted(_walk_images(str(root), closed))
    if not found:
        raise ValueError(f"no images in {str(root)!r}; {_advice_instead(root)}")
    example = min(closed, default="")
    told = (
        (f"{len(closed)} entries cannot be opened and are left out: {example} ({closed[example]})",) if closed else ()
    )
    heads = [tuple(name.split(os.sep)[:-1]) for name in found]
    first = {head[0] for head in heads if head}
    if all(heads) and first <= PART_FOLDERS:
        note = f"sub-folders {', '.join(sorted(first))} are read together; name one of them to read one part"
        return _with_labels(root, found, [head[1:] for head in heads], (*told, note))
    return _with_labels(root, found, heads, told)


def _with_labels(root: Path, names: list[str], heads: list[tuple[str, ...]], notes: tuple[str, ...]) -> Files:
    shared = len({head[:1] for head in heads}) == 1 and max(map(len, heads)) > 1
    if not all(heads) or shared:
        loose = [name for name, head in zip(names, heads, strict=True) if not head]
        notes += (_loose_note(loose, len(names)),) if 0 < 2 * len(loose) < len(names) else ()
        return Files(Names(names), NO_LABELS, (), notes, str(root))
    labels, classes = encode_by_name([head[0] for head in heads])
    note = f"classes: {len(classes)}, from the sub-folders' names"
    return Files(Names(names), labels, classes, (*notes, note), str(root))


def _loose_note(loose: list[str], total: int) -> str:
    """Why images have no classes although most are in sub-folders: `loose` names those that are in none."""
    return (
        f"no classes, because {len(loose)} of {total} images are in no class's folder, such as {loose[0]}; move them "
        "into one, or out of the data"
    )


def _walk_images(root: str, closed: dict[str, str]) -> Iterator[str]:
    """Relative names of the image files below root, without hidden files and masks; visits each linked folder once.

    `closed` gets the name of each folder or link below root that cannot be opened, with the reason.
    """
    todo, seen = [""], {os.path.realpath(root)}
    while todo:
        inner = todo.pop()
        try:
            with os.scandir(os.path.join(root, inner)) as opened:
                entries = list(opened)
        except OSError as error:
            if not inner:
                raise
            closed[inner] = error.strerror or str(error)
            continue
        for entry in entries:
            name = os.path.join(inner, entry.name)
            if entry.name.startswith((".", "__MACOSX")) or entry.name.endswith(MASK_SUFFIX):
                continue
            try:
                folder = entry.is_dir()
            except OSError as error:
                closed[name] = error.strerror or str(error)
                continue
            if folder:
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in seen:
                    seen.add(real)
                    todo.append(name)
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield name


def _advice_instead(root: Path) -> str:
    """The advice for a folder without images."""
    files = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    packed = [name for name in files if name.endswith((".tar", ".parquet", ".csv", ".npz", ".gz", "ubyte"))]
    if packed:
        # A table may only list the class names.
        likely = next((name for name in packed if not name.endswith(".csv")), packed[0])
        return f"it holds {', '.join(packed[:4])}: name one of these files or a glob, e.g. {str(root / likely)!r}"
    return f"give a folder with {', '.join(EXTENSIONS[:6])} … files below it, a CSV, tar shards, parquet or arrays"


def open_manifest(path: Path, rows: Sequence[dict[str, object]], image: str, label: str) -> Files:
    """The images that a table lists by path, relative to the table; labels come from a column, if there is one.

    `image` and `label` name the columns; empty: the first usual name. Raises ValueError if a named column is missing.
    """
    if not rows:
        raise ValueError(f"{str(path)!r} lists no images; give it a header and one line per image, e.g. path,label")
    column = column_named(image, IMAGE_COLUMNS, list(rows[0]), str(path), "image")
    names = Names(str(row[column]) for row in rows)
    target = column_named(label, LABEL_COLUMNS, list(rows[0]), str(path), "label", needed=bool(label))
    if not target:
        return Files(names, NO_LABELS, (), (), str(path.parent))
    labels, classes = encode_labels([row[target] for row in rows])
    note = f"classes: {len(classes)}, from column {target!r}"
    return Files(names, labels, classes, (note,), str(path.parent))


def read_csv(path: Path) -> list[dict[str, object]]:
    """The rows of a comma-separated table with a header. Raises ValueError if the file is not such a table."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [dict(row) for row in csv.DictReader(file, restkey="")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {str(path)!r} as text: {error}; save it as a CSV in UTF-8") from None


def column_named(
    asked: str, usual: Sequence[str], columns: Sequence[str], path: str, what: str, needed: bool = True
) -> str:
    """The named column, or the first usual one; "" if there is none and it is optional. Raises ValueError."""
    for name in (asked,) if asked else usual:
        if name in columns:
            return name
    if needed:
        sought = repr(asked) if asked else " or ".join(repr(name) for name in usual)
        raise ValueError(
            f"{path!r} has no {what} column {sought}; its columns are {', '.join(columns)}: "
            f"set --data.{what} to one of them (of check-data: --{what})"
        )
    return ""
