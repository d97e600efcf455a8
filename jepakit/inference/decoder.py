"""The decoder of a run: trained once, kept in RUN/heads/decoder, and used as long as the run's weights are the same."""

from pathlib import Path
from typing import Any, cast

from .. import launch, methods
from ..core.progress import Interrupted, Watch
from ..methods.bidirectional import check_side, known_sides
from ..methods.decoder import Decoder
from ..run import checkpoint
from ..run.checkpoint import Loaded
from ..training.request import HEAD_STEPS, Request, settings


def place(run: Path) -> Path:
    """Where a run keeps its decoder."""
    return run / "heads" / "decoder"


def decoder_of(run: Path, below: Loaded, hide: str, steps: int | None, watch: Watch) -> tuple[Decoder, dict[str, Any]]:
    """The decoder of a run that is loaded, in eval mode, and what there is to say of it.

    It is trained where there is none of these weights, for `steps` steps, and gone on with where it was interrupted.
    Raises ValueError where the side `hide` cannot be predicted, or where it was trained for another number of steps.
    """
    folder = place(run)
    state = found(folder, below, steps)
    if state == "none":
        grid = getattr(getattr(below.method, "encoder", None), "grid", ())
        check_side(hide, known_sides(below.method, tuple(grid)))
        watch.note(f"training a decoder over {run} into {folder}: {steps or HEAD_STEPS} steps")
    if state != "finished":
        _train(run, folder, below, steps, watch, again=state == "unfinished")
    loaded = checkpoint.load_run(folder, parents=[below.method])
    decoder = cast(Decoder, loaded.method)
    check_side(hide, decoder.sides)
    cfg = decoder.cfg
    return decoder, {
        "folder": str(folder),
        "steps": loaded.step,
        "reads": cfg.reads,
        "parent_hash": cfg.parent_hashes[0],
    }


def found(folder: Path, below: Loaded, steps: int | None) -> str:
    """ "finished", "unfinished", or "none" where there is no decoder of these weights.

    Raises ValueError where another head lies there, or one that was trained for other than `steps` steps.
    """
    if not (folder / "config.yaml").is_file():
        return "none"
    stored = checkpoint.settings_of(folder)
    method: Any = stored.method
    if methods.name_of(method) != "decoder":
        raise ValueError(f"{folder} holds no decoder but a run of {methods.name_of(method)}; move it away")
    if method.parent_hashes != (checkpoint.digest(below.method),):
        return "none"
    if steps is not None and steps != stored.length.steps:
        raise ValueError(
            f"{folder} was trained for {stored.length.steps} steps, not {steps}; leave --steps out to use it, or "
            "delete it"
        )
    done = checkpoint.steps(folder)
    return "finished" if done and done[-1] == stored.length.steps else "unfinished"


def _train(run: Path, folder: Path, below: Loaded, steps: int | None, watch: Watch, again: bool) -> None:
    flags: dict[str, Any] = {"method.parents": [str(run)]}
    if again:
        request = Request(out=folder, flags=flags, resume=True, allow_change=("method.parents",))
    else:
        flags |= {"loop.workers": below.run.loop.workers, "evals.report": False}
        flags |= {} if steps is None else {"length.steps": steps}
        request = Request("decoder", out=folder, flags=flags, overwrite=folder.exists(), init=run)
    try:
        launch.carry_out(settings(request), request, watch)
    except Interrupted as error:
        raise Interrupted(f"{str(error).partition(';')[0]}; the same command goes on where it was") from None
