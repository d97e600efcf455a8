"""Finds the decoder of a run in RUN/heads/decoder, and trains it once if there is none for the run's weights."""

from pathlib import Path
from typing import Any, Literal, cast

from .. import launch, methods
from ..core.progress import Interrupted, Progress
from ..core.words import count_text
from ..methods.bidirectional import check_side, predictable_sides
from ..methods.decoder import Decoder
from ..methods.masked import Masked
from ..run import checkpoint
from ..run.checkpoint import LoadedRun
from ..run.settings import HEAD_STEPS
from ..training.request import Request, settings

DecoderState = Literal["none", "unfinished", "finished"]


def decoder_folder(run: Path) -> Path:
    """The run folder of a run's decoder."""
    return run / "heads" / "decoder"


def load_or_train_decoder(
    run: Path, parent: LoadedRun, hide: str, steps: int | None, progress: Progress
) -> tuple[Decoder, dict[str, Any]]:
    """The decoder of a loaded run, in eval mode, and its entry for completions.json.

    It is trained for `steps` steps if there is none for these weights, and resumed if its training was interrupted.
    Raises ValueError if the side `hide` cannot be predicted, or if the decoder was trained for another number of steps.
    """
    folder = decoder_folder(run)
    state = decoder_state(folder, parent, steps)
    if state == "none":
        grid = parent.method.encoder.grid if isinstance(parent.method, Masked) else ()
        check_side(hide, predictable_sides(parent.method, grid))
        taken = count_text(steps or HEAD_STEPS, "step")
        progress.note(
            f"{run} has no decoder for its weights yet: training one on the run's data for {taken} (--steps); the run "
            f"itself stays as it is. The decoder is kept in {folder}, and later calls use it at once"
        )
    if state != "finished":
        _train_decoder(run, folder, parent, steps, progress, resume=state == "unfinished")
    loaded = checkpoint.load_run(folder, parents=[parent.method])
    decoder = cast(Decoder, loaded.method)
    check_side(hide, decoder.sides)
    cfg = decoder.cfg
    (parent_hash,) = cfg.parent_hashes
    return decoder, {"folder": str(folder), "steps": loaded.step, "reads": cfg.reads, "parent_hash": parent_hash}


def load_or_train_frame_decoder(run: Path, parent: LoadedRun, progress: Progress) -> Decoder:
    """The decoder of a loaded run that reads tokens as they are encoded, in eval mode; trained if there is none.

    `parent` is the run at its newest checkpoint. Raises ValueError as `check_frame_decoder`.
    """
    folder, state = decoder_folder(run), check_frame_decoder(run, parent)
    if state != "finished":
        if state == "none":
            progress.note(f"training a decoder over {run} into {folder}, for the film: {HEAD_STEPS} steps")
        _train_decoder(run, folder, parent, None, progress, resume=state == "unfinished", reads="target")
    return cast(Decoder, checkpoint.load_run(folder, parents=[parent.method]).method)


def check_frame_decoder(run: Path, parent: LoadedRun) -> DecoderState:
    """Whether a run has a decoder for films. Raises ValueError if it has a decoder of another kind."""
    folder = decoder_folder(run)
    state = decoder_state(folder, parent, None)
    if state != "none" and (reads := cast(Any, checkpoint.settings_of(folder).method).reads) != "target":
        raise ValueError(
            f"the decoder in {folder} has method.reads {reads}, and a film needs target; give --no-film, or move the "
            "decoder away"
        )
    return state


def decoder_state(folder: Path, parent: LoadedRun, steps: int | None) -> DecoderState:
    """Whether a decoder of the parent's weights is in `folder`.

    Raises ValueError if another kind of run is there, or a decoder trained for other than `steps` steps.
    """
    if not (folder / "config.yaml").is_file():
        return "none"
    stored = checkpoint.settings_of(folder)
    method: Any = stored.method
    if methods.name_of(method) != "decoder":
        raise ValueError(f"{folder} holds no decoder but a run of {methods.name_of(method)}; move it away")
    if method.parent_hashes != (checkpoint.module_hash(parent.method),):
        return "none"
    if steps is not None and steps != stored.length.steps:
        raise ValueError(
            f"{folder} was trained for {stored.length.steps} steps, not {steps}; leave --steps out to use it, or "
            "delete it"
        )
    done = checkpoint.saved_steps(folder)
    return "finished" if done and done[-1] == stored.length.steps else "unfinished"


def _train_decoder(
    run: Path,
    folder: Path,
    parent: LoadedRun,
    steps: int | None,
    progress: Progress,
    resume: bool,
    reads: str = "",
) -> None:
    flags: dict[str, Any] = {"method.parents": [str(run)], **({"method.reads": reads} if reads else {})}
    if resume:
        request = Request(out=folder, flags=flags, resume=True, allow_change=("method.parents",))
    else:
        flags |= {"loop.workers": parent.run.loop.workers, "evals.report": False}
        flags |= {} if steps is None else {"length.steps": steps}
        request = Request("decoder", out=folder, flags=flags, overwrite=folder.exists(), init=run)
    try:
        launch.train_settings(settings(request), request, progress)
    except Interrupted as error:
        raise Interrupted(f"{str(error).partition(';')[0]}; the same command goes on where it was") from None
