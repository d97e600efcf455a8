"""The actions of all episodes and their form: numbers with bounds, or choices."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, Shaped

from ...types import ActionSpec
from ..report import Problem
from .columns import as_rows
from .record import ActionFacts, Episode, action_problems, choice_problems


def read_actions(
    episodes: Sequence[Episode], facts: ActionFacts
) -> tuple[Shaped[np.ndarray, "s a"], ActionSpec, list[str], list[Problem]]:
    """The actions of all episodes, their form, notes, and what is wrong with them."""
    parts = [as_rows(episode.actions.read()) for episode in episodes]
    width = parts[0].shape[1]
    for episode, values in zip(episodes, parts, strict=True):
        if values.shape[1] != width:
            raise ValueError(
                f"an action of {episode.name} has {values.shape[1]} numbers but one of {episodes[0].name} {width}; "
                "give episodes of one environment"
            )
    whole = all(values.dtype.kind in "iub" for values in parts)
    if facts.choices > 0 or (facts.choices < 0 and whole and width == 1 and not facts.low):
        return _discrete_actions(episodes, parts, facts)
    actions = np.concatenate(parts).astype(np.float32)
    notes, low, high = list[str](), facts.low, facts.high
    if low and len(low) == 1 and width > 1:
        low, high = low * width, high * width
    if low and not len(low) == len(high) == width:
        raise ValueError(
            f"the declared bounds have {len(low)} and {len(high)} numbers for actions of {width}; give {width}"
        )
    problems = [
        problem
        for episode, values in zip(episodes, parts, strict=True)
        for problem in action_problems(episode.name, values.astype(np.float64), facts._replace(low=low, high=high))
    ]
    if not low and not problems:
        low, high, notes = range_of_actions(actions)
    names = facts.names if len(facts.names) == width else ()
    return actions, ActionSpec(width, low, high, names=names, max_norm=facts.max_norm), notes, problems


def range_of_actions(actions: Float[np.ndarray, "s a"]) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """The bounds of actions that declare none: their range in all episodes; and notes on it."""
    low, high = actions.min(0).astype(np.float64), actions.max(0).astype(np.float64)
    notes = ["the files declare no bounds of actions: they are the range of the actions in all episodes"]
    still = np.flatnonzero(low == high)
    if len(still):
        notes.append(f"the number {', '.join(map(str, still[:8].tolist()))} of the action never changes")
        # Bounds must leave some room between them.
        room = 1e-3 * np.maximum(1, np.abs(low[still]))
        low[still], high[still] = low[still] - room, high[still] + room
    return tuple(low.tolist()), tuple(high.tolist()), notes


def _discrete_actions(
    episodes: Sequence[Episode], parts: Sequence[Shaped[np.ndarray, "_ a"]], facts: ActionFacts
) -> tuple[Int64[np.ndarray, "s 1"], ActionSpec, list[str], list[Problem]]:
    if parts[0].shape[1] != 1:
        raise ValueError(f"discrete actions have {parts[0].shape[1]} numbers each; give one, the number of the choice")
    numbers = [values[:, 0].astype(np.int64) - facts.start for values in parts]
    found = np.concatenate(numbers)
    choices = facts.choices if facts.choices > 0 else int(found.max()) + 1
    notes = [f"actions are whole numbers: one of {choices} choices, as one-hot vectors"]
    problems = [
        problem
        for episode, values in zip(episodes, numbers, strict=True)
        for problem in choice_problems(episode.name, values, choices, facts.start)
    ]
    return found[:, None], ActionSpec(max(1, choices), discrete=True, names=facts.names), notes, problems
