"""The methods: one file each, found by file name, or by the entry-point group `jepakit.methods` of another package."""

import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .base import Method

__all__ = [
    "METHODS",
    "Entry",
    "base",
    "bidirectional",
    "bijepa",
    "build",
    "cjepa",
    "class_of",
    "decoder",
    "entry",
    "head",
    "ijepa",
    "is_head",
    "latentworld",
    "lejepa",
    "load",
    "mae",
    "masked",
    "metric",
    "name_of",
    "predictive",
    "quasimetric",
    "rjepa",
    "simclr",
    "value",
    "vicreg",
    "worldmodel",
]


class Entry(NamedTuple):
    """A method's frozen dataclass of settings and its class."""

    Config: type[Any]
    Method: "type[Method]"


def entry(module_path: str) -> Entry:
    """The `Config` and the one `Method` subclass of a module, or those that a package imports from its own modules."""
    from .base import Method

    module = importlib.import_module(module_path)
    classes = {
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and f"{v.__module__}.".startswith(f"{module_path}.")
    }
    if len(classes) != 1 or not hasattr(module, "Config"):
        raise ValueError(
            f"{module_path} defines {len(classes)} Method subclasses and "
            f"{'a' if hasattr(module, 'Config') else 'no'} Config; a method's module defines exactly one of each"
        )
    return Entry(module.Config, classes.pop())


def class_of(config: Any) -> "type[Method]":
    """The method class of the settings `config`: from the same module, or from a package that imports both."""
    parts = type(config).__module__.split(".")
    modules = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    holders = [name for name in modules if getattr(sys.modules.get(name), "Config", None) is type(config)]
    for name in holders[:-1]:
        with suppress(ValueError):
            return entry(name).Method
    return entry((holders or modules)[-1]).Method


METHODS: Final = Registry(
    __name__,
    "method",
    "a frozen dataclass Config and one Method subclass",
    file_with("Config"),
    lambda module: entry(module.__name__),
)


def load(name: str) -> Entry:
    """The method called `name`. Raises ValueError, which suggests the nearest names, if there is none."""
    return METHODS.load(name)


def name_of(config: Any) -> str:
    """The name under which the method of this settings object is listed."""
    return METHODS.name_of(type(config))


def is_head(config: Any) -> bool:
    """Whether the method of this settings object is a head, trained on top of other runs (its parents)."""
    from .head import Head

    return issubclass(class_of(config), Head)


def is_predictive(config: Any) -> bool:
    """Whether the method of this settings object has a state that unfolds in time."""
    from .predictive import Predictive

    return issubclass(class_of(config), Predictive)


def build(config: Any, signal: Any, seed: int = 0, parents: "Sequence[Method]" = ()) -> "Method":
    """The untrained method of a settings object, for a signal, on the CPU; a head on its trained `parents`.

    `seed` determines the initial weights; the caller's random state does not change.
    """
    import torch

    # Initial weights: the only place that draws from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = class_of(config)
        return made(config, signal, parents) if parents else made(config, signal)  # type: ignore[call-arg]
