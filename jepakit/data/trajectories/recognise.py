"""Tell which format of trajectories a path holds, and read its episodes.

A folder may hold several such folders, such as the rounds of a collection, which are read one after the other.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..paths import expand_pattern, first_file
from .frames import episode_folders, natural_key, read_folders
from .hdf5 import HDF5_ENDINGS, minari_file, read_hdf5
from .lerobot import info_file, read_lerobot
from .npz import holds_episodes, read_npz
from .record import ActionFacts, Episode, Logs

MAX_NOTES = 6
# Sub-folders that are looked into before a folder is called something else.
MAX_LOOKED_INTO = 16


def why_trajectories(path: str) -> str:
    """The reason to read a path as trajectories; "" if there is none. Reads only names, and lists of arrays."""
    found = first_file(path)
    if found is None:
        return ""
    if found.is_dir():
        return _why_folder(found)
    ending = found.suffix.lower()
    if ending in HDF5_ENDINGS:
        return f"{ending} holds episodes"
    return "an .npz of observations and actions" if ending == ".npz" and holds_episodes(found) else ""


def _why_folder(folder: Path) -> str:
    if why := _why_single(folder):
        return why
    inside = (_why_single(path) for path in _sub_folders(folder)[:MAX_LOOKED_INTO])
    return next((f"folders, each {why}" for why in inside if why), "")


def _why_single(folder: Path) -> str:
    """The reason to read a folder itself, without its sub-folders of other episodes."""
    if info_file(folder):
        return "a LeRobot folder"
    if minari_file(folder):
        return "a Minari folder"
    first = next(iter(_array_files(folder)), None)
    if first is not None and (first.suffix.lower() in HDF5_ENDINGS or holds_episodes(first)):
        return f"a folder of episodes in {first.suffix.lower()}"
    return "frames with a table of actions" if episode_folders(folder) else ""


def _array_files(folder: Path) -> list[Path]:
    endings = (".npz", *HDF5_ENDINGS)
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in endings and p.is_file()), key=natural_key)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def read_logs(path: str, keys: Sequence[str]) -> Logs:
    """The episodes at a path; `keys` are the observations asked for. Raises ValueError with the remedy."""
    places, left = list[Path](), list[str]()
    for found in expand_pattern(path):
        rounds = _rounds(found)
        places += rounds
        if rounds != [found]:
            left += [folder.name for folder in _sub_folders(found) if folder not in rounds]
    parts = [(place, part) for place in places for part in _read_one(place, keys)]
    episodes = _name_apart(parts)
    if not episodes:
        raise ValueError(f"{path!r} holds no episode with an action; give observations and actions")
    notes = [f"{', '.join(left[:3])}: no episodes, left out"] if left else []
    notes += dict.fromkeys(note for _, part in parts for note in part.notes)
    if len(notes) > MAX_NOTES:
        notes = [*notes[:MAX_NOTES], f"… and {len(notes) - MAX_NOTES} notes more of this kind"]
    declared = [part.action for _, part in parts if part.action != ActionFacts()]
    if any(facts != declared[0] for facts in declared):
        raise ValueError(f"the files of {path!r} declare different actions; give files of one environment")
    return Logs(episodes, declared[0] if declared else ActionFacts(), tuple(notes))


def _rounds(path: Path) -> list[Path]:
    """The folders of episodes in a folder that has none itself; the path alone if there are no such folders."""
    if not path.is_dir() or _why_single(path):
        return [path]
    return [folder for folder in _sub_folders(path) if _why_single(folder)] or [path]


def _name_apart(parts: Sequence[tuple[Path, Logs]]) -> list[Episode]:
    """All episodes, each with a name of its own.

    An episode whose name is taken has that of its folder before it. So those of the first folder have the names that
    they have alone, and the same of them are held out.
    """
    found: dict[str, Episode] = {}
    for place, part in parts:
        for episode in part.episodes:
            name = episode.name
            if name in found:
                name = f"{place.name}/{name}"
            if name in found:
                name = f"{len(found)}/{name}"
            found[name] = episode if name == episode.name else replace(episode, name=name)
    return list(found.values())


def _read_one(path: Path, keys: Sequence[str]) -> list[Logs]:
    """The episodes of one file or folder, in parts."""
    if path.is_dir():
        if info_file(path):
            return [read_lerobot(path, keys)]
        if file := minari_file(path):
            return [read_hdf5(file)]
        if files := _array_files(path):
            return [part for file in files for part in _read_one(file, keys)]
        if episode_folders(path):
            return [read_folders(path)]
    ending = path.suffix.lower()
    if ending == ".npz":
        return [read_npz(path, path.stem)]
    if ending in HDF5_ENDINGS:
        return [read_hdf5(path)]
    raise ValueError(
        f"{str(path)!r} holds no trajectories; give .npz or .hdf5 episodes, a Minari or LeRobot folder, or a folder of "
        "frames with an actions.csv per episode"
    )
