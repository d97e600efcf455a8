"""Stripes that need a library which is not installed."""

from dataclasses import dataclass

import a_library_that_is_not_there  # noqa: F401

from .stripes import Stripes


@dataclass(frozen=True)
class Fine(Stripes):
    """Never reached."""

    def __call__(self, grid, batch, rng):
        """As its parent."""
        return super().__call__(grid, batch, rng)
