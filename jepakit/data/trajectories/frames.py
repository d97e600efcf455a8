"""Read episodes from folders of frames with a table of actions beside them, a sub-folder per episode.

    push/episode_0/000.png 001.png …  actions.csv     the columns are the numbers of an action, with a row per action
    push/episode_1/…

A column `reward` holds rewards, `terminated` (or `done`) says which action ended the episode, `frame` names the frame
that the row's action starts from, `factors.NAME` is a true quantity, `observation.NAME` a number that is observed.
Numbers in columns that begin with `action` are the action, if there are such columns; else all others are.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped

from ..collation import Unreadable
from ..images import decode
from ..paths import file_ending
from .columns import as_rows
from .record import ActionFacts, Column, Episode, Logs, array_column
from .tables import ENDS, FRAME_NAMES, REWARDS, TABLE_ENDINGS, StepTable, read_step_table

PIXELS, ACTION_TABLE = "pixels", "actions"
ROW_TOO_MANY = "each folder has as many rows as frames, so the last action, which leads to no frame, is left out"


def action_table(folder: Path) -> Path | None:
    """The table `actions.csv` or `actions.parquet` of a folder, if it has one."""
    found = [folder / f"{ACTION_TABLE}{ending}" for ending in TABLE_ENDINGS]
    return next((path for path in found if path.is_file()), None)


def episode_folders(folder: Path) -> list[Path]:
    """The folders of episodes, in order: this one, or those of its sub-folders that have a table of actions."""
    if action_table(folder):
        return [folder]
    return sorted((path for path in folder.iterdir() if path.is_dir() and action_table(path)), key=natural_key)


def natural_key(path: Path) -> list[tuple[int, str]]:
    """A key that sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read_folders(folder: Path) -> Logs:
    """The episodes of all sub-folders. Raises ValueError, naming file and row."""
    folders = episode_folders(folder)
    left = [path.name for path in sorted(folder.iterdir()) if path.is_dir()] if folders != [folder] else []
    missing = len(left) - len(folders) if left else 0
    notes = [f"{missing} sub-folders of {folder.name} have no {ACTION_TABLE}.csv and are left out"] if missing else []
    episodes, names, lost = list[Episode](), tuple[str, ...](), False
    for path in folders:
        episode, own, surplus = _read_folder(path)
        if episodes and own != names:
            raise ValueError(
                f"{path.name} has the actions {', '.join(own)} but {folders[0].name} has {', '.join(names)}; give "
                "tables with the same columns"
            )
        names, lost = own, lost or surplus
        episodes.append(episode)
    return Logs(episodes, ActionFacts(names=names), tuple([*notes, ROW_TOO_MANY] if lost else notes))


def _read_folder(folder: Path) -> tuple[Episode, tuple[str, ...], bool]:
    """The episode, the names of its actions, and whether its table has a row more than needed."""
    table = action_table(folder)
    assert table is not None
    found = read_step_table(table)
    frames = _frame_files(folder, table, found)
    if not frames:
        raise ValueError(f"{str(folder)!r} has {table.name} but no frames; put the pictures beside it")
    rows = len(next(iter(found.numbers.values()), ()))
    steps = rows - 1 if rows == len(frames) else rows
    action, names = _actions(found, table)
    reward, done = (next((found.numbers[k] for k in keys if k in found.numbers), None) for keys in (REWARDS, ENDS))
    observed = {k.partition(".")[2]: v for k, v in found.numbers.items() if k.startswith("observation.")}
    factors = {k.removeprefix("factors."): v for k, v in found.numbers.items() if k.startswith("factors.")}
    episode = Episode(
        folder.name,
        {PIXELS: _pictures(frames), **{key: array_column(as_rows(values)) for key, values in observed.items()}},
        array_column(action[:steps]),
        None if reward is None else array_column(reward[:steps]),
        None if done is None else array_column(done[:steps].astype(bool)),
        {key: array_column(as_rows(values)) for key, values in factors.items()},
    )
    return episode, names, steps < rows


def _frame_files(folder: Path, table: Path, found: StepTable) -> list[Path]:
    """The frames in order: as the table names them, else by the numbers in their names."""
    files = sorted((p for p in folder.iterdir() if file_ending(p) in decode.EXTENSIONS), key=natural_key)
    if not found.frames:
        return files
    by_name = {path.name: path for path in files} | {path.stem: path for path in files}
    missing = next((name for name in found.frames if Path(name).name not in by_name), "")
    if missing:
        raise ValueError(
            f"{str(table)!r} names the frame {missing!r}, which is not beside it; add it, or its right name"
        )
    named = [by_name[Path(name).name] for name in found.frames]
    # A row per action names no frame after the last action: it is the one that is left.
    rest = [path for path in files if path not in set(named)]
    return [*named, *rest] if len(rest) == 1 else named


def _actions(found: StepTable, table: Path) -> tuple[Shaped[np.ndarray, "t ..."], tuple[str, ...]]:
    """The actions of a table, whole numbers where a single column has only such, and their names."""
    known = (*REWARDS, *ENDS, *FRAME_NAMES)
    rest = [k for k in found.numbers if k not in known and not k.startswith(("factors.", "observation."))]
    named = [key for key in rest if key.startswith("action")]
    names = tuple(named or rest)
    if not names:
        raise ValueError(f"{str(table)!r} has no column of actions; add one per number of the action")
    if len(names) == 1 and names[0] in found.whole:
        return found.numbers[names[0]].astype(np.int64), ()
    return np.stack([found.numbers[name] for name in names], 1), names


def _pictures(files: list[Path]) -> Column:
    """The frames of an episode as a column (T + 1, C, H, W), decoded in threads when it is read."""
    try:
        height, width, channels = decode.read_header(files[0].read_bytes(), str(files[0]))
    except Unreadable as error:
        raise ValueError(f"cannot read the frame {error}; replace it") from None
    channels = 3 if channels in (3, 4) else channels

    def decode_one(file: Path) -> Float[torch.Tensor, "c h w"] | Shaped[torch.Tensor, "c h w"]:
        try:
            return decode.decode_picture(file.read_bytes(), str(file), channels)
        except Unreadable as error:
            raise ValueError(f"cannot read the frame {error}; replace it, or cut the episode there") from None

    def read() -> Shaped[np.ndarray, "t c h w"]:
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(decode_one, files))
        odd = next((file for file, x in zip(files, found, strict=True) if x.shape[1:] != (height, width)), None)
        if odd:
            raise ValueError(
                f"{str(odd)!r} is not {height} x {width} px like the frames before it; give frames of one size"
            )
        return torch.stack(found).numpy()

    return Column((len(files), channels, height, width), np.dtype(np.uint8), read)
