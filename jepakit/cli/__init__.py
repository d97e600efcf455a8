"""The command `jepa`."""

from collections.abc import Sequence

__all__ = ["commands", "main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `words` (default: the process's own) and return its exit code."""
    from .__main__ import main as carry_out

    return carry_out(words)
