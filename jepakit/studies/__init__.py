"""Studies: one file for each published table or figure that we measure again; the file name registers it.

A study is a module with `STUDY`: trainings × seeds, and claims that compare its numbers with the paper's. Names have
dashes: `jepa reproduce cjepa-ablation` runs `studies/cjepa_ablation.py`.
"""

from typing import TYPE_CHECKING, Any, Final

from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .study import Study

__all__ = ["STUDIES", "load", "page", "reproduce", "study"]


def study_of(module: Any) -> "Study":
    """The study that a module defines."""
    from .study import Study

    if not isinstance(module.STUDY, Study):
        raise ValueError(f"STUDY of {module.__name__} is a {type(module.STUDY).__name__}; make it a Study")
    return module.STUDY


STUDIES: "Final[Registry[Study]]" = Registry(
    __name__, "study", "a constant STUDY", file_with("STUDY", dashes=True), study_of, files=("*.py", "*/*.py")
)


def load(name: str) -> "Study":
    """The study called `name`. Raises ValueError, which suggests the nearest name, if there is none."""
    return STUDIES.load(name)
