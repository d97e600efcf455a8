"""Stores a run's collapse panel for its checkpoints: the values at step 0, later rows, and kNN scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RECENT_ROWS = 20


@dataclass
class PanelMemory:
    """The panel's part of a checkpoint, so that a resumed run still compares with its own step 0.

    `size` is the number of samples that the panel measures, `start` their values at step 0, `rows` the rows that the
    verdict is based on, oldest first, and `knn` the score of every checkpoint by step. Fields are None or empty before
    the first measurement; only the main process measures.
    """

    size: int | None = None
    start: dict[str, Any] | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    knn: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PanelMemory":
        """The reverse of `to_json`."""
        return cls(stored.get("size"), stored.get("start"), stored.get("rows", []), stored.get("knn", {}))

    def to_json(self) -> dict[str, Any]:
        """The entries that have been measured."""
        entries = {"size": self.size, "start": self.start, "rows": self.rows or None, "knn": self.knn or None}
        return {key: value for key, value in entries.items() if value is not None}

    def thin_out(self, most: int) -> None:
        """Drop every other old row if there are more than `most`; keep the first and the newest ones."""
        if len(self.rows) > most:
            # The first row is the baseline of the others; the last ones show the current state.
            self.rows[:] = [self.rows[0], *self.rows[1:-RECENT_ROWS:2], *self.rows[-RECENT_ROWS:]]
