"""Studies: one file for each published table or figure that we measure again, found by file name.

A study is a module with `STUDY`: trainings × seeds, and what its numbers say beside the paper's. Its name has dashes:
`jepa reproduce cjepa-ablation` runs `studies/cjepa_ablation.py`.
"""

import importlib
from pathlib import Path

from ..names import discover, no_such
from .study import Study


def table() -> dict[str, str]:
    """Every study's name and the module that holds it, sorted."""
    found = discover(__name__, [str(Path(__file__).parent)], _is_study)
    return {name.replace("_", "-"): module for name, module in found.items()}


def load(name: str) -> Study:
    """The study called `name`. Raises ValueError, with the nearest name, where there is none."""
    modules = table()
    if name not in modules:
        raise ValueError(no_such("study", name, modules))
    study: Study = importlib.import_module(modules[name]).STUDY
    return study


def _is_study(path: str) -> bool:
    return hasattr(importlib.import_module(path), "STUDY")
