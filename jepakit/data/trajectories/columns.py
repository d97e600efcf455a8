"""Episodes from named columns: one episode, or flat arrays of many with their ends."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64, Shaped

from ...core.registry import did_you_mean
from .record import ActionFacts, Column, Episode, Logs

OBSERVATIONS, ACTIONS, ENDS = "observations", "actions", "episode_ends"
# D4RL's names for Minari's columns.
SYNONYMS = {"terminals": "terminations", "dones": "terminations", "timeouts": "truncations"}
LAST_LOST = (
    "there are as many observations as actions, so each episode loses its last action, with its reward and its end: "
    "store T + 1 observations, or next_observations"
)


def is_episode(names: Sequence[str]) -> bool:
    """Whether columns with these names hold episodes: actions, and observations by one name or by key."""
    return ACTIONS in names and bool(_group_keys(names, OBSERVATIONS))


def episodes_from(columns: Mapping[str, Column], where: str, name: Callable[[int], str]) -> Logs:
    """The episodes that named columns hold; `name` gives the k-th one's, -1 if there is only one.

    Columns: `observations` or `observations.KEY`, `actions`, and perhaps `rewards`, `terminations`, `truncations`,
    `factors.NAME`, and what `action_facts` reads. Flat arrays of many episodes have `episode_ends`, the
    number of actions up to each episode's end, or the last step of each marked by `terminations` or `truncations`.
    Raises ValueError, naming `where`, if columns are missing or their counts do not fit.
    """
    columns = {SYNONYMS.get(key, key): column for key, column in columns.items()}
    _require_columns(columns, where)
    ends = _episode_ends(columns, where)
    facts = action_facts(columns)
    if ends is None:
        return Logs([one_episode(columns, where, name(-1))], facts)
    begins = np.concatenate([[0], ends[:-1]])
    total, keys = len(columns[ACTIONS]), _group_keys(list(columns), OBSERVATIONS)
    rows = {len(columns[source]) for source in keys.values()}
    if rows == {total + len(ends)}:
        shift, lost = np.arange(len(ends)), 0
    elif rows == {total}:
        shift, lost = np.zeros(len(ends), dtype=np.int64), int("next_observations" not in columns)
    else:
        raise ValueError(
            f"{where} has {' and '.join(map(str, sorted(rows)))} observations for {total} actions in {len(ends)} "
            f"episodes; give {total + len(ends)} (T + 1 per episode), or {total} (one per action)"
        )
    episodes = []
    for k, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        if end - begin - lost < 1:
            continue
        first = begin + int(shift[k])
        episodes.append(_cut_episode(columns, name(k), slice(begin, end - lost), slice(first, first + end - begin + 1)))
    return Logs(episodes, facts, (f"{where}: {LAST_LOST}",) if lost else ())


def _require_columns(columns: Mapping[str, Column], where: str) -> None:
    held = ", ".join(list(columns)[:8]) or "nothing"
    for need, there in ((ACTIONS, ACTIONS in columns), (OBSERVATIONS, bool(_group_keys(list(columns), OBSERVATIONS)))):
        if not there:
            near = did_you_mean(need, columns)
            raise ValueError(f"{where} has no {need!r}, it holds {held}; name the array {need!r}.{near}")
    for key, column in columns.items():
        if column.dtype.hasobject and key.partition(".")[0] in (OBSERVATIONS, ACTIONS, "rewards", "terminations"):
            raise ValueError(f"{key!r} of {where} holds Python objects, which are never unpickled; store numbers")


def one_episode(columns: Mapping[str, Column], where: str, name: str) -> Episode:
    """The episode that named columns hold. Raises ValueError, naming `where`, if columns are missing."""
    columns = {SYNONYMS.get(key, key): column for key, column in columns.items()}
    _require_columns(columns, where)
    return Episode(
        name,
        {key: columns[source] for key, source in _group_keys(list(columns), OBSERVATIONS).items()},
        columns[ACTIONS],
        columns.get("rewards"),
        columns.get("terminations"),
        {key: columns[source] for key, source in _group_keys(list(columns), "factors").items()},
    )


def _cut_episode(columns: Mapping[str, Column], name: str, steps: slice, frames: slice) -> Episode:
    """One episode of flat arrays: its rows among the steps, and among the frames."""
    whole = one_episode(columns, name, name)

    def cut_steps(column: Column | None) -> Column | None:
        return None if column is None else column.part(steps.start, steps.stop)

    def cut_frames(key: str, column: Column) -> Column:
        own = column.part(frames.start, frames.stop)
        if len(column) != len(columns[ACTIONS]):
            return own
        if key != OBSERVATIONS and f"next_observations.{key}" in columns:
            follows = columns[f"next_observations.{key}"]
        elif "next_observations" in columns:
            follows = columns["next_observations"]
        else:
            return column.part(frames.start, steps.stop + 1)
        return join_columns([column.part(frames.start, steps.stop), follows.part(steps.stop - 1, steps.stop)])

    actions = cut_steps(whole.actions)
    assert actions is not None
    return Episode(
        name,
        {key: cut_frames(key, column) for key, column in whole.observations.items()},
        actions,
        cut_steps(whole.rewards),
        cut_steps(whole.terminations),
        {key: cut_frames(OBSERVATIONS, column) for key, column in whole.factors.items()},
    )


def join_columns(parts: Sequence[Column]) -> Column:
    """The rows of several columns, one after the other."""
    rows = sum(map(len, parts))
    return Column((rows, *parts[0].shape[1:]), parts[0].dtype, lambda: np.concatenate([part.read() for part in parts]))


def _episode_ends(columns: Mapping[str, Column], where: str) -> Int64[np.ndarray, " e"] | None:
    """The number of actions up to the end of each episode of flat arrays; None if the columns are one episode.

    Marks make flat arrays only if one stands before the last action: the end of a single episode is no division.
    """
    total = len(columns[ACTIONS])
    if ENDS in columns:
        ends = columns[ENDS].read().reshape(-1).astype(np.int64)
        if not len(ends) or (np.diff(ends, prepend=0) <= 0).any() or ends[-1] != total:
            last = f", up to {int(ends[-1])}" if len(ends) else ""
            raise ValueError(
                f"{ENDS} of {where} has {len(ends)} entries{last}, for {total} actions; give the number of actions up "
                f"to each episode's end, rising, the last one {total}"
            )
        return ends
    marks = [columns[key] for key in ("terminations", "truncations") if key in columns]
    marks = [column for column in marks if len(column) == total and len(column.shape) == 1]
    if not marks:
        return None
    ended = np.any([column.read().astype(bool) for column in marks], axis=0)
    if not ended[:-1].any():
        return None
    ended[-1] = True
    return (np.flatnonzero(ended) + 1).astype(np.int64)


def action_facts(columns: Mapping[str, Column]) -> ActionFacts:
    """What the columns `action_low`, `action_high`, `action_max_norm` and `action_choices` declare."""
    low, high = (
        tuple(columns[key].read().astype(np.float64).reshape(-1).tolist()) if key in columns else ()
        for key in ("action_low", "action_high")
    )
    choices = int(columns["action_choices"].read().reshape(-1)[0]) if "action_choices" in columns else -1
    norm = float(columns["action_max_norm"].read().reshape(-1)[0]) if "action_max_norm" in columns else None
    return ActionFacts(low, high, choices, max_norm=norm)


def _group_keys(names: Sequence[str], group: str) -> dict[str, str]:
    """The columns of a group by key: `group` itself, or every `group.KEY`."""
    found = {name.removeprefix(f"{group}."): name for name in names if name.startswith(f"{group}.")}
    return {**({group: group} if group in names else {}), **found}


def as_rows(values: Shaped[np.ndarray, "t ..."]) -> Shaped[np.ndarray, "t k"]:
    """The rows of a column as vectors."""
    return values.reshape(len(values), -1)
