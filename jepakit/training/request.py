"""Defines a user's request to train, and the Run that it describes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from .. import data, evals, methods, recipes
from ..core.registry import no_such
from ..evals.runs import check_own_settings
from ..nn import Frames
from ..run import checkpoint, parse
from ..run.own_data import own_data
from ..run.settings import HEAD_OPTIM, HEAD_STEPS, Evals, Length, Run

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """A user's request: a recipe, method or YAML file, and changes to it; the last change wins."""

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
            raise ValueError("say what to train, as in `jepa train ijepa --data photos`; `jepa list` shows the choices")
        return Path(self.out) if self.out is not None else Path("runs") / Path(self.recipe or "").stem


def settings(request: Request) -> Run:
    """The Run of a request, with auto settings unresolved: the recipe, changed by the YAML file, then by the flags."""
    wanted = on_parent(starting_run(request), request.init)
    if request.config is not None:
        wanted = parse.apply_changes(wanted, parse.read_yaml(Path(request.config)))
    if request.data is not None:
        path, old = str(request.data), wanted.data
        new = old.at(path) if old.arrives else data.read_like(old, path)
        wanted = dataclasses.replace(wanted, data=new)
    run: Run = parse.apply_changes(wanted, parse.flags_to_changes(request.flags))
    for kind in run.evals.kinds:
        evals.load_kind(kind)
    check_own_settings(run.evals)
    return run


def asks_for_probes(request: Request) -> bool:
    """Whether the flags or the file of changes set evals.kinds."""
    changes = [parse.flags_to_changes(request.flags)]
    if request.config is not None:
        changes.append(parse.read_yaml(Path(request.config)))
    return any("kinds" in (change.get("evals") or {}) for change in changes)


def is_new(request: Request) -> bool:
    """Whether the request starts a new run instead of resuming one. Raises ValueError if it asks for both."""
    if request.resume and (request.init is not None or request.overwrite):
        other = "--init" if request.init is not None else "--overwrite"
        raise ValueError(f"--resume continues a run and {other} starts a new one; give one of them")
    return not request.resume or (request.resume == "auto" and not checkpoint.saved_steps(request.folder))


def renaming_notes(request: Request) -> list[str]:
    """Notes on settings that the request, or the run that it resumes, gives under the names of earlier versions."""
    named = [Path(file) for file in (request.recipe, request.config) if file is not None]
    files = [file for file in named if file.suffix in (".yaml", ".yml")]
    if request.resume and (request.folder / "config.yaml").is_file():
        files.append(request.folder / "config.yaml")
    changes = [parse.flags_to_changes(request.flags), *(parse.read_yaml(file) for file in files)]
    return list(dict.fromkeys(note for change in changes for note in parse.renaming_notes(change)))


def starting_run(request: Request) -> Run:
    """The Run of the recipe, the method, the YAML file or, when resuming without any of them, the run folder."""
    name = request.recipe
    if name is None:
        stored = request.folder / "config.yaml"
        if not request.resume:
            raise ValueError("say what to train: a recipe, a method or a settings file (`jepa list` shows them)")
        if not stored.is_file():
            raise ValueError(f"{request.folder} holds no run to resume (no config.yaml); name a recipe to start one")
        return parse.from_yaml(stored)
    if name.endswith((".yaml", ".yml")):
        return parse.from_yaml(Path(name))
    if name in recipes.RECIPES.names():
        return recipes.load_recipe(name)
    if name in methods.METHODS.names():
        cfg = methods.load(name).Config()
        if methods.is_head(cfg):
            return head_run(cfg, request.init, own=request.data is None)
        return Run(method=cfg, data=data.training_settings("images"))
    if helper := recipes.explain_helper(name):
        raise ValueError(helper)
    raise ValueError(no_such("recipe or method", name, [*recipes.RECIPES.names(), *methods.METHODS.names()]))


def kind_note(request: Request, wanted: Run) -> str:
    """A sentence if the data are of another kind than the recipe is made for; else empty."""
    if request.data is None or request.recipe not in recipes.RECIPES.names():
        return ""
    made, given = recipes.load_recipe(request.recipe).data, wanted.data
    if not (made.axes and given.axes) or set(made.axes) & set(given.axes):
        return ""
    instead = f"jepa train {methods.name_of(wanted.method)} --data {given.path}"
    return (
        f"the recipe {request.recipe} is made for {made.holds}, and {given.path!r} holds {given.holds}; use another "
        f"recipe (jepa list), or a method, as in {instead}"
    )


def head_run(cfg: Any, parent: PathLike | None, own: bool = True) -> Run:
    """The Run of a head on the run at `parent`: the parent's data without views, its batch size, and no probes.

    Raises ValueError if there is no such run or, with `own`, if its data are missing or have changed.
    """
    if parent is None:
        name = methods.name_of(cfg)
        raise ValueError(f"{name} is trained on top of a finished run; name it, as in jepa train {name} --init RUN")
    below = checkpoint.settings_of(Path(parent))
    source: Any = own_data(checkpoint.load_run(Path(parent))).cfg if own else below.data
    length = Length(steps=HEAD_STEPS, batch=below.length.batch)
    return on_parent(Run(cfg, source.without_views(), HEAD_OPTIM, length, evals=Evals(kinds=())), parent)


def on_parent(wanted: Run, parent: PathLike | None) -> Run:
    """The run of a head on its parent, or of a predictive method with the encoder of the run that `--init` names."""
    if parent is None:
        return wanted
    if methods.is_predictive(wanted.method):
        return frame_by_frame(wanted, Path(parent))
    if not methods.is_head(wanted.method):
        return wanted
    method: Any = wanted.method
    return dataclasses.replace(wanted, method=dataclasses.replace(method, parents=(os.fspath(parent),)))


def frame_by_frame(wanted: Run, run: Path) -> Run:
    """The run with another run's picture encoder for its frames, at the size of that run's pictures.

    Unchanged if the other run has the same method or no pictures.
    """
    below = checkpoint.settings_of(run)
    size = checkpoint.load_checkpoint(run).state["signal"]["size"]
    if type(below.method) is type(wanted.method) or len(size) != 2:
        return wanted
    method, own = cast(Any, wanted.method), cast(Any, wanted.data)
    seen = Frames(cast(Any, below.method).encoder)
    sized = dataclasses.replace(own, size=tuple(size)) if hasattr(own, "size") else own
    return dataclasses.replace(wanted, method=dataclasses.replace(method, encoder=seen), data=sized)
