"""Recipes: functions that return a Run, with the command, the time and the expected score in their docstrings.

A public function without parameters that is annotated to return a Run, in any module here, is a recipe, named with
dashes: `def cifar10_ijepa() -> Run` is `jepa train cifar10-ijepa`. Any other function is a helper.
"""

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..core.registry import Registry

if TYPE_CHECKING:
    from ..run.settings import Run

__all__ = ["RECIPES", "explain_helper", "imagenet", "load_recipe", "rjepa", "series", "small", "views", "worlds"]


def recipe_functions(stem: str, tree: ast.Module) -> dict[str, str]:
    """The recipes of a file: its public functions `() -> Run`, by their names with dashes."""
    found = [node.name for node in public_functions(tree) if returns_run(node) and not ast.unparse(node.args)]
    return {name.replace("_", "-"): name for name in found}


def public_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """The functions of a module whose names have no leading underscore."""
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def returns_run(node: ast.FunctionDef) -> bool:
    """Whether a function is annotated to return a Run, as `Run`, `settings.Run` or either in quotes."""
    annotation = ast.unparse(node.returns).strip("'\"") if node.returns else ""
    return annotation.rpartition(".")[2] == "Run"


def explain_helper(name: str) -> str:
    """A sentence on why the function for a recipe called `name` is not a recipe; "" if there is no such function."""
    if (listed := name.replace("_", "-")) in RECIPES.names():
        return f"No recipe {name!r}. Did you mean {listed!r}?"
    for _, module, tree in RECIPES.own_trees():
        for node in public_functions(tree):
            if node.name == name.replace("-", "_"):
                fix = "give it no parameters" if returns_run(node) else "annotate what it returns: -> Run"
                return f"{node.name} of {module} is not a recipe; {fix}"
    return ""


def recipe_of(value: Any) -> "Callable[[], Run]":
    """`value` as a function that returns a Run. Raises ValueError if it is not callable."""
    if not callable(value):
        raise ValueError(f"a recipe is a function that returns a Run, not {value!r}")
    recipe: Callable[[], Run] = value
    return recipe


RECIPES: "Final[Registry[Callable[[], Run]]]" = Registry(
    __name__, "recipe", "a function without parameters, annotated -> Run", recipe_functions, recipe_of
)


def load_recipe(name: str) -> "Run":
    """The Run of a recipe. Raises ValueError, suggesting the nearest name, if there is none."""
    from ..run.settings import Run

    recipe = RECIPES.load(name)
    try:
        run = recipe()
    except Exception as error:  # somebody else's code raises anything
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the recipe {name!r} of {recipe.__module__} cannot be used: {reason}") from error
    if not isinstance(run, Run):
        raise ValueError(f"recipe {name!r} returns a {type(run).__name__}; a recipe returns a Run")
    return run
