"""The episodes at a path as their files state them: columns that are read on demand, and what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Shaped

from ..report import Problem


@dataclass(frozen=True, eq=False)
class Column:
    """One array of one episode, a row per step or per frame. `read` gives its values.

    `mapped` gives them in place, as a part of the file that is read on access; None if the file does not allow it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Shaped[np.ndarray, "..."]]
    mapped: Callable[[], Shaped[np.ndarray, "t ..."]] | None = None

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def part(self, begin: int, end: int) -> "Column":
        """The rows `begin` … `end` - 1."""
        mapped = self.mapped
        return Column(
            (max(0, min(end, len(self)) - begin), *self.shape[1:]),
            self.dtype,
            lambda: self.read()[begin:end],
            None if mapped is None else lambda: mapped()[begin:end],
        )


def array_column(values: Shaped[np.ndarray, "t ..."]) -> Column:
    """A column whose values are in memory."""
    return Column(values.shape, values.dtype, lambda: values)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T actions: `actions`, `rewards` and `terminations` have T rows, all else has T + 1.

    `observations` are columns by key, `factors` true quantities by name.
    """

    name: str
    observations: Mapping[str, Column]
    actions: Column
    rewards: Column | None = None
    terminations: Column | None = None
    factors: Mapping[str, Column] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The number of actions."""
        return len(self.actions)


class ActionFacts(NamedTuple):
    """What the files declare about actions: bounds, the number of choices (0: not discrete, -1: unknown), names.

    `start` is the number of the first choice, `max_norm` the largest length of an action.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    choices: int = -1
    start: int = 0
    names: tuple[str, ...] = ()
    max_norm: float | None = None


class Logs(NamedTuple):
    """All episodes at a path, what is declared about their actions, and notes on how they were read."""

    episodes: Sequence[Episode]
    action: ActionFacts = ActionFacts()
    notes: tuple[str, ...] = ()


def count_problems(episode: Episode) -> Iterator[Problem]:
    """The columns of an episode whose number of rows does not fit its actions."""
    steps, fix = episode.steps, "T actions lead through T + 1 observations: "
    for what, columns in (("observations", episode.observations), ("factors", episode.factors)):
        for key, column in columns.items():
            if len(column) != steps + 1:
                named = what if key == what else f"{what} {key!r}"
                detail = f"{len(column)} {named} for {steps} actions, where {steps + 1} are needed"
                advice = "add the last one, which follows the last action" if len(column) == steps else "make them fit"
                yield Problem(episode.name, "count", detail, fix + advice)
    for what, found in (("rewards", episode.rewards), ("terminations", episode.terminations)):
        if found is not None and len(found) != steps:
            yield Problem(
                episode.name, "count", f"{len(found)} {what} for {steps} actions", f"give {steps}, one per action"
            )


def action_problems(name: str, actions: Float[np.ndarray, "t a"], facts: ActionFacts) -> Iterator[Problem]:
    """The first action of an episode that is not finite, or else the first one out of the declared bounds."""
    bad = np.flatnonzero(~np.isfinite(actions).all(1))
    if len(bad):
        t = int(bad[0])
        fix = "replace it, or cut the episode there"
        yield Problem(name, "not finite", f"action {t} is {_text(actions[t])}, one of {len(bad)} not finite", fix)
        return
    # Bounds are stored in the precision of the actions, so a bound may be missed by a rounding error.
    outside, stated = np.zeros(len(actions), dtype=bool), ""
    if facts.low:
        low, high = np.array(facts.low), np.array(facts.high)
        slack = 1e-6 * np.maximum(1, np.maximum(np.abs(low), np.abs(high)))
        outside |= ((actions < low - slack) | (actions > high + slack)).any(1)
        stated = f" {_bounds_text(facts.low, facts.high)}"
    if facts.max_norm is not None:
        outside |= np.linalg.norm(actions, axis=1) > facts.max_norm * (1 + 1e-5)
        stated += f" or longer than {facts.max_norm:g}"
    out = np.flatnonzero(outside)
    if len(out):
        t = int(out[0])
        detail = f"action {t} is {_text(actions[t])}, one of {len(out)} out of the bounds{stated}"
        yield Problem(
            name, "bounds", detail, "store actions as the environment took them, clipped, or widen the bounds"
        )


def choice_problems(name: str, actions: Int64[np.ndarray, " t"], choices: int, start: int) -> Iterator[Problem]:
    """The first discrete action of an episode that is not one of the choices."""
    out = np.flatnonzero((actions < 0) | (actions >= choices))
    if len(out):
        t = int(out[0])
        detail = f"action {t} is {actions[t] + start}, one of {len(out)} outside {start} … {start + choices - 1}"
        yield Problem(name, "bounds", detail, "number the choices from 0, or give real actions as floats")


def value_problems(name: str, key: str, values: Shaped[np.ndarray, "t ..."]) -> Iterator[Problem]:
    """The first row of a column that is not finite."""
    if values.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    if len(bad):
        detail = f"{key} of step {int(bad[0])} is not finite, one of {len(bad)} steps"
        yield Problem(name, "not finite", detail, "replace it, or cut the episode there")


def _text(values: Shaped[np.ndarray, " a"]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values[:8].tolist()) + (", …]" if len(values) > 8 else "]")


def _bounds_text(low: Sequence[float], high: Sequence[float]) -> str:
    if len(set(low)) == len(set(high)) == 1:
        return f"{low[0]:g} … {high[0]:g}"
    return f"{_text(np.array(low))} … {_text(np.array(high))}"
