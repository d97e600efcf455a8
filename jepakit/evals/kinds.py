"""The kinds of evaluation: one file each, found by file name, or by the entry-point group of another package.

A kind is a module with a frozen dataclass `Config`, whose `pool` says how tokens become the vectors it reads, and
`evaluate(train: Features, test: Features, cfg: Config)` yielding (name, value): `metric`, `value`, `low`, `high`,
`per_class`, and whatever it wants noted.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..names import discover, no_such
from .result import Value


class Kind(NamedTuple):
    """A kind's settings and its function of (train, test, settings)."""

    Config: type[Any]
    evaluate: Callable[[Any, Any, Any], Iterator[tuple[str, Value]]]


def table() -> dict[str, str]:
    """Every kind's name and the module that holds it, sorted. Raises ValueError where two modules claim one name."""
    return discover(__name__.rpartition(".")[0], [str(Path(__file__).parent)], _is_kind)


def load(kind: str) -> Kind:
    """The kind called `kind`. Raises ValueError, with the nearest name, where there is none."""
    modules = table()
    if kind not in modules:
        raise ValueError(no_such("kind of evaluation", kind, modules))
    module = importlib.import_module(modules[kind])
    return Kind(module.Config, module.evaluate)


def _is_kind(path: str) -> bool:
    module = importlib.import_module(path)
    return hasattr(module, "Config") and hasattr(module, "evaluate")
