"""What a run says of the settings that it chose itself."""

from typing import Any, NamedTuple


class Note(NamedTuple):
    """A setting that was left to us, what we chose, and why."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value} ({self.reason})"
