"""Learning from a stream: an optimiser step for every `length.batch` frames as they come, each frame seen once.

States and traces go on from step to step (recurrent/unroll.py), so that the memory does not grow with their number. A
checkpoint holds both, the last frame, and the place in the stream: a run that was stopped and goes on is the same run.
"""

from pathlib import Path
from typing import Any, Final

from ...core import files
from ...core.progress import Silent, Watch
from ...data.base import existing
from ...data.stream import Config, First
from ..loop import finished, stop_requests
from ..session import Session
from .learner import Learner

__all__ = ["begun_before", "train"]

FRAMES: Final = "frames.safetensors"


def begun_before(cfg: object, out: Path) -> First | None:
    """The first frames of a run that is taken up again; None for data that are no stream. Raises ValueError."""
    if not isinstance(cfg, Config):
        return None
    if cfg.path != "-":
        existing(cfg.path)
    return First.load(out / FRAMES, cfg.window)


def train(session: Session, watch: Watch | None = None) -> dict[str, Any]:
    """Learn from where the session stands to the end of its stream; writes and returns what `training.train` does.

    Raises Interrupted after saving, on SIGTERM or Ctrl-C; ValueError after saving, for a frame that is to end the run;
    FloatingPointError on a loss that is not finite.
    """
    watch = watch or Silent()
    if session.steps and session.step == session.steps:
        watch.note(f"nothing left to train: {session.out} stands at step {session.step} of {session.steps}")
        return finished(session)
    with stop_requests() as asked:
        learner = Learner(session, watch, asked)
        with learner.recorder:
            if session.step == 0 and "start" not in session.panel:
                with files.replacing(session.out / FRAMES) as part:
                    part.write_bytes(learner.first.kept())
                learner.observe()
                learner.keep()
            learner.run()
    return learner.recorder.summary or finished(session)
