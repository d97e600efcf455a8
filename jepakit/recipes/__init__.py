"""Recipes: functions that return a Run, with the command, the time and the expected score in their docstrings.

A public function without parameters, in any module here, is a recipe, named with dashes: `cifar10_ijepa` is
`jepa train cifar10-ijepa`.
"""

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..core.registry import Registry

if TYPE_CHECKING:
    from ..run.settings import Run

__all__ = ["RECIPES", "imagenet", "load_recipe", "rjepa", "series", "small", "views"]


def recipe_functions(stem: str, tree: ast.Module) -> dict[str, str]:
    """The recipes of a file: its public functions without parameters, by their names with dashes."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {node.name.replace("_", "-"): node.name for node in found if not (node.args.args or node.args.kwonlyargs)}


def recipe_of(value: Any) -> "Callable[[], Run]":
    """The function that returns a Run; ValueError where `value` is none."""
    if not callable(value):
        raise ValueError(f"a recipe is a function that returns a Run, not {value!r}")
    recipe: Callable[[], Run] = value
    return recipe


RECIPES: "Final[Registry[Callable[[], Run]]]" = Registry(
    __name__, "recipe", "a function without parameters that returns a Run", recipe_functions, recipe_of
)


def load_recipe(name: str) -> "Run":
    """The Run of a recipe. Raises ValueError, with the nearest name, where there is none."""
    from ..run.settings import Run

    run = RECIPES.load(name)()
    if not isinstance(run, Run):
        raise ValueError(f"recipe {name!r} returns a {type(run).__name__}; a recipe returns a Run")
    return run
