"""Recipes: functions that return a Run, with the command, the time and the expected score in their docstrings.

A public function of any module here is a recipe, named with dashes: `cifar10_ijepa` is `jepa train cifar10-ijepa`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

from ..core.registry import no_such
from ..run.settings import Run


def table() -> dict[str, Callable[[], Run]]:
    """Every recipe's name and function, sorted."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    found = [f for module in modules for f in vars(module).values() if _is_recipe(f, module.__name__)]
    return {f.__name__.replace("_", "-"): f for f in sorted(found, key=lambda f: f.__name__)}


def _is_recipe(value: object, module: str) -> bool:
    return inspect.isfunction(value) and value.__module__ == module and not value.__name__.startswith("_")


def load(name: str) -> Run:
    """The Run of a recipe. Raises ValueError, with the nearest name, where there is none."""
    recipes = table()
    if name not in recipes:
        raise ValueError(no_such("recipe", name, recipes))
    return recipes[name]()
