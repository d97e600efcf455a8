"""What a run was trained on, and how long the windows are that its method knows from there."""

from typing import Any, NamedTuple, cast

from ..checkpoint import Loaded
from ..data.series.dataset import Series
from ..methods.base import Method


class Known(NamedTuple):
    """Steps of the shortest and of the longest window that a method has learnt from, in whole patches of `patch` steps.

    They differ where it was trained on whole series of unequal lengths.
    """

    least: int
    most: int
    patch: int

    def fits(self, steps: int) -> int:
        """Steps of the longest window in a series of so many; 0 where the shortest one does not fit."""
        size = min(self.most, steps // self.patch * self.patch)
        return size if size >= self.least else 0

    @property
    def told(self) -> str:
        """The shortest one in words."""
        if self.least == self.most:
            return f"the run's window has {self.least} steps"
        return f"the shortest series that the run was trained on has {self.least} steps in whole patches"

    @property
    def fix(self) -> str:
        """What helps where a series is shorter."""
        return f"give longer series, or train with a {'smaller ' if self.least == self.most else ''}data.window"


def known(method: Method, dataset: Series) -> Known:
    """The windows that a method knows from the data that it was trained on."""
    patch, size = int(cast(Any, method).encoder.patch[0]), int(method.signal.size[0])
    if not dataset.padded:
        return Known(size, size, patch)
    least, most = (int(steps) // patch * patch for steps in (dataset.cut.length.min(), dataset.cut.length.max()))
    return Known(least, most, patch)


def trained_on(loaded: Loaded, use: str) -> Series:
    """A run's own data; `use` tells what for. Raises ValueError where they are gone, or where they were stretched."""
    try:
        found: Any = loaded.run.data.open()
    except ValueError as error:
        raise ValueError(f"{error}. The run was trained on that, and {use}") from None
    assert isinstance(found, Series)
    if found.unequal == "stretch" and (found.cut.length != found.native[0]).any():
        low, high = int(found.cut.length.min()), int(found.cut.length.max())
        raise ValueError(
            f"the run stretches series of {low} to {high} steps to one length, so its steps have no length of their "
            "own; train with data.unequal=pad or data.unequal=cut, or with a data.window"
        )
    return found
