"""A training as a person asks for it, and the Run it means."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import evals, methods, parse, recipes
from .config import Run
from .data import KINDS, reading
from .names import no_such

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """A training as it was asked for: a recipe (or method, or YAML file) and what changes it, strongest last."""

    recipe: str | None = None
    data: PathLike | None = None
    out: PathLike | None = None
    config: PathLike | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    resume: Literal[False, True, "auto"] = False
    allow_change: Sequence[str] = ()
    overwrite: bool = False
    init: PathLike | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self.out is None and self.recipe is None:
            raise ValueError(
                "say what to train, as in `jepa train ijepa --data photos`; `jepa list` shows what there is"
            )
        return Path(self.out) if self.out is not None else Path("runs") / Path(self.recipe or "").stem


def settings(request: Request) -> Run:
    """The Run that a request describes, autos still open: recipe, then the YAML file, then the flags."""
    wanted = base(request)
    if request.config is not None:
        wanted = parse.apply(wanted, parse.read_yaml(Path(request.config)))
    if request.data is not None:
        wanted = dataclasses.replace(wanted, data=reading(wanted.data, str(request.data)))
    run: Run = parse.apply(wanted, parse.flags_to_changes(request.flags))
    for kind in run.evals.kinds:
        evals.load(kind)
    return run


def base(request: Request) -> Run:
    """The Run of the recipe, the method, the YAML file or, when resuming without any of them, the run folder."""
    name = request.recipe
    if name is None:
        stored = request.folder / "config.yaml"
        if not request.resume:
            raise ValueError("say what to train: a recipe, a method or a settings file (`jepa list` shows them)")
        if not stored.is_file():
            raise ValueError(
                f"{request.folder} holds no run (no config.yaml) to go on with; name a recipe to begin one"
            )
        return parse.from_yaml(stored)
    if name.endswith((".yaml", ".yml")):
        return parse.from_yaml(Path(name))
    if name in recipes.table():
        return recipes.load(name)
    if name in methods.table():
        return Run(method=methods.load(name).Config(), data=KINDS["images"]())
    raise ValueError(no_such("recipe or method", name, [*recipes.table(), *methods.table()]))
