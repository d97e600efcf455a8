"""Studies: one file for each published table or figure that we measure again, found by file name.

A study is a module with `STUDY`: trainings × seeds, and what its numbers say beside the paper's. Its name has dashes:
`jepa reproduce cjepa-ablation` runs `studies/cjepa_ablation.py`.
"""

import importlib
from pathlib import Path

from ..core.registry import discover, no_such
from .study import Study


def table() -> dict[str, str]:
    """Every study's name and the module that holds it, sorted."""
    papers = [folder for folder in Path(__file__).parent.iterdir() if (folder / "__init__.py").is_file()]
    found: dict[str, str] = {}
    for folder in papers:
        found |= discover(f"{__name__}.{folder.name}", [str(folder)], _is_study)
    return {name.replace("_", "-"): module for name, module in sorted(found.items())}


def load(name: str) -> Study:
    """The study called `name`. Raises ValueError, with the nearest name, where there is none."""
    modules = table()
    if name not in modules:
        raise ValueError(no_such("study", name, modules))
    study: Study = importlib.import_module(modules[name]).STUDY
    return study


def _is_study(path: str) -> bool:
    return hasattr(importlib.import_module(path), "STUDY")
