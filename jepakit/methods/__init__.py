"""The methods: one file each, found by file name, or by the entry-point group `jepakit.methods` of another package."""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.registry import discover, no_such

if TYPE_CHECKING:
    from .base import Method

# What methods are made of, and none themselves.
BASES = ("base", "bidirectional", "head", "joint", "masked", "predictive")


class Entry(NamedTuple):
    """A method's frozen dataclass of settings and its class."""

    Config: type[Any]
    Method: "type[Method]"


def table() -> dict[str, str]:
    """Every method's name and the module that holds it; ours first, sorted. Imports none of them.

    Raises ValueError where an outside package claims a name that is taken.
    """
    return discover(__name__, __path__, lambda module: module.rsplit(".", 1)[-1] not in BASES)


def load(name: str) -> Entry:
    """The method called `name`. Raises ValueError, with the nearest names, where there is none."""
    modules = table()
    if name not in modules:
        raise ValueError(no_such("method", name, modules))
    return entry(modules[name])


def entry(module_path: str) -> Entry:
    """The `Config` and the one `Method` subclass that a module defines."""
    from .base import Method

    module = importlib.import_module(module_path)
    classes = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == module_path
    ]
    if len(classes) != 1 or not hasattr(module, "Config"):
        raise ValueError(
            f"{module_path} defines {len(classes)} Method subclasses and {'a' if hasattr(module, 'Config') else 'no'} "
            "Config; a method's module defines exactly one of each"
        )
    return Entry(module.Config, classes[0])


def name_of(config: Any) -> str:
    """The name under which the method of this settings object is listed."""
    module = type(config).__module__
    return next(name for name, path in table().items() if path == module)


def is_head(config: Any) -> bool:
    """Whether the method of this settings object is trained over another run, its parent."""
    from .head import Head

    return issubclass(entry(type(config).__module__).Method, Head)


def is_predictive(config: Any) -> bool:
    """Whether the method of this settings object unfolds in time."""
    from .predictive import Predictive

    return issubclass(entry(type(config).__module__).Method, Predictive)


def build(config: Any, signal: Any, seed: int = 0, parent: "Method | None" = None) -> "Method":
    """The untrained method of a settings object, for a signal, on the CPU; a head over its trained `parent`.

    `seed` decides the initial weights; the caller's random state is left as it is.
    """
    import torch

    # Initial weights: the one place where torch draws by itself.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = entry(type(config).__module__).Method
        return made(config, signal) if parent is None else made(config, signal, parent)  # type: ignore[call-arg]
