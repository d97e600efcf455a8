"""The sentence for a name that a table does not hold."""

from collections.abc import Iterable
from difflib import get_close_matches


def no_such(noun: str, name: str, names: Iterable[str]) -> str:
    """What is missing, the nearest name, and all there are."""
    names = list(names)
    return f"No {noun} {name!r}.{did_you_mean(name, names, quote=True)} Available: {', '.join(names)}"


def did_you_mean(name: str, names: Iterable[str], prefix: str = "", quote: bool = False) -> str:
    """A question to end a sentence with, naming the nearest of `names` after `prefix`; nothing where none is near."""
    near = get_close_matches(name, list(names), n=1)
    if not near:
        return ""
    found = f"{prefix}{near[0]}"
    return f" Did you mean {found!r}?" if quote else f" Did you mean {found}?"
