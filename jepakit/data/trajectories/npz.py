"""Read episodes from .npz files: one episode each with Minari's names, or flat arrays of many."""

import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from .columns import episodes_from, is_episode
from .record import Column, Logs

# The fixed part of an entry's header in a zip file; the lengths of name and extra field are its last two numbers.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def holds_episodes(path: Path) -> bool:
    """Whether an .npz file has observations and actions; reads only the list of its arrays."""
    try:
        with zipfile.ZipFile(path) as file:
            return is_episode([name.removesuffix(".npy") for name in file.namelist()])
    except (OSError, zipfile.BadZipFile):
        return False


def read_npz(path: Path, name: str) -> Logs:
    """The episodes of a file; nothing is unpickled. Raises ValueError with the remedy."""
    try:
        columns = npz_columns(path)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}; write the file again with numpy.savez") from None
    return episodes_from(columns, path.name, lambda k: name if k < 0 else f"{name}[{k}]")


def npz_columns(path: Path) -> dict[str, Column]:
    """The arrays of a file by name; those that are not compressed can be mapped."""
    found = {}
    with zipfile.ZipFile(path) as file, open(path, "rb") as raw:
        for entry in file.infolist():
            raw.seek(entry.header_offset)
            *_, name_length, extra_length = LOCAL_HEADER.unpack(raw.read(LOCAL_HEADER.size))
            begin = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
            with file.open(entry) as member:
                shape, fortran, dtype = _read_header(member)
                offset = begin + member.tell()
            plain = entry.compress_type == zipfile.ZIP_STORED and not fortran and not dtype.hasobject and 0 not in shape
            key = entry.filename.removesuffix(".npy")
            found[key] = _column(path, key, shape, dtype, offset if plain else -1)
    return found


def _column(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> Column:
    @cache
    def read() -> Shaped[np.ndarray, "..."]:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                values: np.ndarray = file[key]
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"cannot read {key!r} of {str(path)!r}: {error}; write the file again") from None
        return values

    @cache
    def mapped() -> Shaped[np.ndarray, "..."]:
        return np.memmap(path, dtype, "r", offset, shape)

    return Column(shape, dtype, read, mapped if offset >= 0 else None)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype
