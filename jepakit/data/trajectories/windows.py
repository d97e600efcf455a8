"""Cut episodes into windows of frames, never across two of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ..draws import spread_evenly

USUAL_WINDOW = 9
MIN_WINDOWS = 256


class Form(NamedTuple):
    """How steps of an episode become a sample.

    A sample has `window` frames, of `stack` recorded frames each. Between two frames lie `repeat` · `block` steps: the
    sample's action is `block` different actions in a row, each held for `repeat` steps.
    """

    window: int = USUAL_WINDOW
    repeat: int = 1
    block: int = 1
    stack: int = 1

    @property
    def every(self) -> int:
        """The steps between two frames."""
        return self.repeat * self.block

    @property
    def frames(self) -> int:
        """The recorded frames that a sample reads: those of its first frame's stack, then one per further frame."""
        return self.window + self.stack - 1

    @property
    def steps(self) -> int:
        """The steps from the first recorded frame to the last."""
        return (self.frames - 1) * self.every

    def rows(self, begin: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, "b f"]:
        """The recorded frames of samples that begin at these frames of their episodes."""
        return begin[:, None] + np.arange(self.frames, dtype=np.int64) * self.every


class Cut(NamedTuple):
    """Sample i begins at frame `begin[i]` of episode `episode[i]`."""

    episode: Int64[np.ndarray, " n"]
    begin: Int64[np.ndarray, " n"]


def choose_stride(steps: Int64[np.ndarray, " e"], form: Form, stride: int | None) -> tuple[int, str]:
    """The steps between the beginnings of two samples, and a note if they are chosen here.

    Half a sample, or less for 256 samples or more; whole repetitions of an action. Raises ValueError if a given stride
    begins samples in the middle of a repeated action.
    """
    if stride is not None:
        if stride % form.repeat:
            raise ValueError(
                f"stride is {stride} but every action is repeated {form.repeat} times; give a multiple of {form.repeat}"
            )
        return stride, ""
    room = int(np.maximum(0, steps - form.steps).sum())
    if not room:  # An episode is one window.
        return form.repeat, ""
    chosen = max(1, min(form.steps // 2, room // MIN_WINDOWS) // form.repeat) * form.repeat
    return chosen, f"data.stride = {chosen} (half a window at most, for {MIN_WINDOWS} windows or more)"


def slide_windows(steps: Int64[np.ndarray, " e"], rows: Int64[np.ndarray, " k"], form: Form, stride: int) -> Cut:
    """The windows of episodes `rows`, whose numbers of actions are `steps`: every `stride` steps, and one at the end.

    The last window of an episode ends as late as possible, so that the action that ends the episode is in a sample.
    """
    last = (steps[rows] - form.steps) // form.repeat * form.repeat
    rows, last = rows[last >= 0], last[last >= 0]
    # Whole strides, and one window more where they do not end at the last one.
    count = -(-last // stride) + 1
    episode = np.repeat(rows, count)
    number = np.arange(len(episode), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    return Cut(episode, np.minimum(number * stride, np.repeat(last, count)))


def limit_windows(cut: Cut, limit: int, group: int = 1) -> Cut:
    """At most `limit` windows, evenly spaced; all if it is 0. If `group` episodes belong together, whole groups."""
    if not 0 < limit < len(cut.begin):
        return cut
    if group == 1:
        rows = spread_evenly(len(cut.begin), limit)
    else:
        groups = cut.episode // group
        found = np.unique(groups)
        kept = found[spread_evenly(len(found), max(1, len(found) * limit // len(groups)))]
        rows = np.flatnonzero(np.isin(groups, kept))[:limit].tolist()
    return Cut(cut.episode[rows], cut.begin[rows])


def too_short(names: Sequence[str], steps: Int64[np.ndarray, " e"], form: Form, part: str) -> str:
    """The sentence that refuses episodes none of which holds a window; `part` names them."""
    k = int(np.argmax(steps))
    most = (int(steps[k]) // form.every) + 1 - (form.stack - 1)
    others = "" if len(steps) == 1 else f", the longest of {len(steps)} episodes{part},"
    every = "" if form.every == 1 else f", one every {form.every} steps"
    stacks = "" if form.stack == 1 else f" of {form.stack} stacked"
    fix = f"set data.window={most} or less" if most >= 2 else "give longer episodes"
    return (
        f"{names[k]}{others} has {int(steps[k])} actions, too short for a window of {form.window} frames{every}"
        f"{stacks}, which takes {form.steps}; {fix}"
    )
