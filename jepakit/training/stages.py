"""Heads that are trained after a run: the settings that each gets from the run below, and its folder."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ..run import checkpoint, parse
from ..run.folder import check_free
from ..run.settings import Evals, HeadStage, Run, read_entries


def head_folder(run: Path, stage: HeadStage) -> Path:
    """The run folder of a head."""
    return run / "heads" / stage.name


def stage_run(stage: HeadStage, run: Run, folder: Path) -> Run:
    """The complete settings of a head on top of the `run` in `folder`, whose auto settings are resolved.

    Intervals of the loop follow from the head's own length. Raises ValueError for changes that the data do not take.
    """
    changes = parse.flags_to_changes(read_entries(stage.data))
    data = parse.apply_changes(run.data.without_views(), changes, f"heads.{stage.name}.data")
    method = replace(cast(Any, stage.method), parents=(os.fspath(folder),), parent_hashes=())
    loop = replace(run.loop, save_every=None, panel_every=None, panel_size=None, views_every=None)
    return Run(method, data, stage.optim, stage.length, loop, Evals(kinds=(), report=run.evals.report), run.seed)


def shared_heads(old: Run, new: Run, folder: Path) -> tuple[Run, Run]:
    """Both runs with only those heads that both name and that have begun: other heads may come and go."""
    both = {stage.name for stage in old.heads} & {stage.name for stage in new.heads if has_begun(stage, folder)}
    kept = [replace(run, heads=tuple(stage for stage in run.heads if stage.name in both)) for run in (old, new)]
    return kept[0], kept[1]


def check_folders(run: Run, folder: Path, goes_on: bool) -> None:
    """Raise ValueError if a head of the `run` in `folder` would replace files that are no run.

    With `goes_on`, the run is trained further, so that heads on its present weights are replaced as well.
    """
    for stage in run.heads:
        place = head_folder(folder, stage)
        if not place.exists() or (has_begun(stage, folder) and not goes_on):
            continue
        try:
            check_free(place, replace=True)
        except ValueError as error:
            why = str(error).partition(";")[0]
            raise ValueError(f"{why}; move it away, or give --heads.{stage.name} none") from None


def explain_flags(error: ValueError | FloatingPointError, stage: HeadStage) -> ValueError | FloatingPointError:
    """An error of a head's run as one of the run below: what it advises to change are settings of the head."""
    own = f"heads.{stage.name}."
    named = re.sub(r"--(allow-change )?((?:method|optim|length|data)\.)", rf"--\g<1>{own}\2", str(error))
    named = re.sub(r"--steps\b", f"--{own}length.steps", named)
    kind = FloatingPointError if isinstance(error, FloatingPointError) else ValueError
    return kind(f"heads.{stage.name}: {named}")


def has_begun(stage: HeadStage, run: Path) -> bool:
    """Whether the folder of a run holds this head, begun or finished, on the weights that the run has now."""
    folder = head_folder(run, stage)
    if not (folder / "config.yaml").is_file():
        return False
    stored: Any = checkpoint.settings_of(folder).method
    hashes = getattr(stored, "parent_hashes", ())
    return hashes == (checkpoint.module_hash(checkpoint.load_run(run).method),)
