"""Tables of names: found by file name or by entry point, and the sentence for a name that is in none."""

import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.metadata import entry_points


def discover(
    package: str, path: Iterable[str], member: Callable[[str], bool] = lambda module: True, group: str = ""
) -> dict[str, str]:
    """Name → module: the package's own modules that are a `member`, and the entry points of `group`.

    `group` is by default the package's name.

    Sorted by name. Raises ValueError where an outside package claims a name that is taken.
    """
    own = {m.name: f"{package}.{m.name}" for m in pkgutil.iter_modules(list(path))}
    found = {name: module for name, module in own.items() if member(module)}
    for point in sorted(entry_points(group=group or package), key=lambda p: p.name):
        if found.setdefault(point.name, point.value) != point.value:
            both = f"{found[point.name]} and {point.value}"
            raise ValueError(f"two members of {package} are called {point.name!r}: {both}; uninstall one")
    return dict(sorted(found.items()))


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
