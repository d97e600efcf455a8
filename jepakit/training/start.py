"""Starts a run: builds its session, initialises the method's weights, and fits its constants to the data."""

from pathlib import Path

import torch

from .. import methods
from ..core.distributed import Dist
from ..methods.head import Head
from ..nn import encoder, weights
from ..run import checkpoint, folder
from ..run.own_data import has_seen_test_part
from ..run.settings import Run
from .monitor import online, samples
from .request import PathLike, Request, asks_for_probes
from .session import Session, build_session, named_weights, with_hash


def start_session(run: Run, request: Request, dist: Dist) -> Session:
    """The session of a new run, in an empty folder. Raises ValueError before anything is written or deleted."""
    out = request.folder
    if dist.main:
        folder.check_free(out, replace=request.overwrite or request.resume == "auto")
    session = build_session(run, out, dist, probes_required=asks_for_probes(request))
    if session.run.evals.online:
        online.check_labels(session, session.run.evals.online)
    initialize_method(session, request.init)
    if dist.main:
        folder.clear_folder(out)
    return session


def initialize_method(session: Session, init: PathLike | None) -> None:
    """Copy weights from the run `init` or from the file in the settings; fit constants that no run provides.

    From then on, checkpoints hold the weights. Raises ValueError if they do not fit.
    """
    whole = False
    if init is not None and not isinstance(session.method, Head):
        whole = copy_weights(session, Path(init))
    elif found := encoder.read_weights(session.method):
        session.run = with_hash(session.run, found)
        session.notes.append(f"encoder weights from {named_weights(session.run)}")
    if not whole:
        calibrate_method(session)


def copy_weights(session: Session, run: Path) -> bool:
    """Copy another run's weights. Returns whether they cover the whole method.

    Raises ValueError listing every key that is missing, unexpected or of another shape.
    """
    if named := named_weights(session.run):
        raise ValueError(f"--init takes all weights from {run}, but encoder.weights names {named}; give one of them")
    # The statistics remain those of this run's data.
    saved = checkpoint.load_checkpoint(run)
    session.test_part_seen = has_seen_test_part(session.run.data, run, saved)
    inner = getattr(getattr(session.method, "encoder", None), "inner", None)
    if inner is not None and not any(key.startswith("encoder.inner.") for key in saved.model):
        copy_frame_encoder(session, inner, saved, run)
        return False
    checkpoint.load_tensors(session.method, saved.model, f"{run} at step {saved.step}", skip=("mean", "std"))
    session.notes.append(f"weights from {run} at step {saved.step}")
    return True


def copy_frame_encoder(session: Session, inner: torch.nn.Module, saved: checkpoint.Checkpoint, run: Path) -> None:
    """Copy another method's encoder (the target encoder if it has one), and its mean and deviation."""
    name = "target_encoder." if any(key.startswith("target_encoder.") for key in saved.model) else "encoder."
    given = {key.removeprefix(name): value for key, value in saved.model.items() if key.startswith(name)}
    source = f"{run} at step {saved.step}"
    weights.copy_into(inner.state_dict(), given, source, "give the data the size and channels of its pictures")
    for own in ("mean", "std"):
        getattr(session.method, own).copy_(saved.model[own].reshape(-1, *[1] * len(session.method.signal.size)))
    session.notes.append(f"frames are encoded by the encoder of {source}, with its statistics")


def calibrate_method(session: Session) -> None:
    """Fit the method's constants to samples, the same on every rank."""
    method = session.method
    if not method.calibration_samples:
        return
    found = samples.equal_length_samples(session.dataset, method.signal, method.calibration_samples, method.patch_steps)
    method.calibrate(found.to(session.dist.device, getattr(torch, session.run.loop.dtype)))
    session.notes.append(f"constants of {methods.name_of(session.run.method)} fitted to {len(found)} samples")
