"""Read episodes from LeRobot v3 folders: parquet tables of states and actions, a row per frame.

Frames in mp4 cannot be read yet. Whoever adds them: every camera has its own `videos/KEY/chunk_index`, `file_index` and
`from_timestamp` in the table of episodes, and those of the data lead to another episode's frames without an error.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from ..collation import Unreadable
from ..images import decode
from .record import ActionFacts, Column, Episode, Logs, array_column
from .tables import ENDS, REWARDS

ACTION, EPISODE, FRAME = "action", "episode_index", "frame_index"
OBSERVATION = "observation."
LAST_ACTION = "the last action of each episode leads to no recorded frame and is left out"


def info_file(folder: Path) -> Path | None:
    """The description `meta/info.json` of a LeRobot folder; None if the folder is none."""
    file = folder / "meta" / "info.json"
    return file if file.is_file() else None


def read_lerobot(folder: Path, keys: Sequence[str]) -> Logs:
    """The episodes of a folder; `keys` are the observations asked for. Raises ValueError with the remedy."""
    features = _read_features(folder)
    table = _read_tables(folder)
    videos = [key.removeprefix(OBSERVATION) for key, kind in features.items() if kind.get("dtype") == "video"]
    wanted = [key for key in keys if key in videos]
    names = [n for n in features if n.startswith(OBSERVATION) and n.removeprefix(OBSERVATION) not in videos]
    if wanted or not names:
        raise ValueError(
            f"the camera {(wanted or videos or ['none'])[0]!r} of {folder.name} is stored as mp4, which cannot be "
            "read yet; choose observations in numbers, e.g. data.keys=[state], or write the frames as pictures"
        )
    missing = [name for name in (ACTION, EPISODE, FRAME, *names) if name not in table]
    if missing:
        raise ValueError(f"the tables in {folder.name}/data have no column {missing[0]!r}; download the folder again")
    rows = np.lexsort((np.array(table[FRAME]), np.array(table[EPISODE])))
    number = np.array(table[EPISODE])[rows]
    ends = np.append(np.flatnonzero(np.diff(number)) + 1, len(number))
    _check_lengths(folder, number, ends)
    episodes = [
        _episode(table, features, names, rows[begin:end], f"episode_{number[begin]}")
        for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
        if end - begin > 1
    ]
    notes = [LAST_ACTION]
    if videos:
        notes.append(f"the cameras {', '.join(videos)} are mp4, which cannot be read yet, and are left out")
    return Logs(episodes, ActionFacts(names=_flat_names(features.get(ACTION, {}).get("names"))), tuple(notes))


def _read_features(folder: Path) -> dict[str, Any]:
    """The features of a folder by name. Raises ValueError if it is of another version."""
    file = folder / "meta" / "info.json"
    try:
        info = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {str(file)!r}: {error}; download the folder again") from None
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3."):
        raise ValueError(
            f"{folder.name} is a LeRobot folder of version {version}, and only v3 can be read; convert it with "
            "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
        )
    features: dict[str, Any] = info.get("features", {})
    return features


def _read_tables(folder: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((folder / "data").glob("chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(f"{str(folder)!r} has no data/chunk-*/file-*.parquet; download the folder again")
    columns: dict[str, list[Any]] = {}
    for file in files:
        try:
            part = pq.read_table(file).to_pydict()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"cannot read {str(file)!r}: {error}; download it again") from None
        if columns and set(part) != set(columns):
            raise ValueError(f"{str(file)!r} has other columns than {files[0].name}; download the folder again")
        for key, values in part.items():
            columns.setdefault(key, []).extend(values)
    return columns


def _check_lengths(folder: Path, number: Int64[np.ndarray, " n"], ends: Int64[np.ndarray, " e"]) -> None:
    """Raise ValueError if an episode has another number of frames than the table of episodes says."""
    import pyarrow.parquet as pq

    found = dict(zip(number[ends - 1].tolist(), np.diff(ends, prepend=0).tolist(), strict=True))
    for file in sorted((folder / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        for row in pq.read_table(file, columns=[EPISODE, "length"]).to_pylist():
            if found.get(row[EPISODE], 0) != row["length"]:
                raise ValueError(
                    f"episode {row[EPISODE]} of {folder.name} has {found.get(row[EPISODE], 0)} frames in data/, but "
                    f"{row['length']} in meta/episodes; a file of data/ is missing or cut short: download it again"
                )


def _episode(
    table: Mapping[str, list[Any]],
    features: Mapping[str, Any],
    names: Sequence[str],
    rows: Int64[np.ndarray, " t"],
    name: str,
) -> Episode:
    def values(key: str) -> Shaped[np.ndarray, "t ..."]:
        return np.array([table[key][row] for row in rows.tolist()])

    def one_of(keys: Sequence[str], kind: type) -> Column | None:
        key = next((key for key in keys if key in table), "")
        return array_column(values(key)[:-1].reshape(-1).astype(kind)) if key else None

    def read_observation(key: str) -> Column:
        if features[key].get("dtype") != "image":
            return array_column(values(key))
        return array_column(np.stack([_picture(table[key][row], f"{name}, {key}") for row in rows.tolist()]))

    return Episode(
        name,
        {key.removeprefix(OBSERVATION): read_observation(key) for key in names},
        array_column(values(ACTION)[:-1]),
        one_of(REWARDS, np.float32),
        one_of(ENDS, bool),
    )


def _picture(cell: Any, name: str) -> Shaped[np.ndarray, "c h w"]:
    """A picture that the table holds as the bytes of a file."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not data:
        raise ValueError(
            f"{name}: the table names a picture and does not hold it; write the folder with the pictures inside"
        )
    try:
        return decode.decode_picture(data, name, 3).numpy()
    except Unreadable as error:
        raise ValueError(f"cannot read the frame {error}; download the folder again") from None


def _flat_names(names: Any) -> tuple[str, ...]:
    """The names of an action's numbers, which may be grouped."""
    if isinstance(names, dict):
        return tuple(str(name) for group in names.values() for name in (group if isinstance(group, list) else [group]))
    return tuple(map(str, names)) if isinstance(names, list) else ()
