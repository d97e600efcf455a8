"""A run under way, new or resumed: builds everything the loop reads before step 1, and checks its run folder."""

import re
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import methods
from ..core import files
from ..core.distributed import Dist
from ..data import Dataset
from ..methods.base import Method
from ..nn import encoder, weights
from ..run import checkpoint, optim, write
from ..run.metrics import describe_environment
from ..run.settings import Run
from . import resolve
from .panel import PanelMemory

# Every path that a run writes in its folder; the runs of heads below it write the same.
RUN_FILES = re.compile(
    r"heads(/[^/]+)?|(heads/[^/]+/)?("
    r"config\.yaml|environment\.json|frames\.safetensors|metrics\.jsonl|summary\.json|report\.html|events\.out\.tfevents\..+"
    r"|not-finite-[^/]+\.json|evals(/[^/]+\.json)?|cache(/[^/]+\.safetensors)?"
    r"|checkpoints(/last|/step-\d+(/[^/]+\.(safetensors|json))?)?"
    r")|(.+/)?\.[^/]+\.part(/.*)?"
)


@dataclass(frozen=True)
class SourceState:
    """What a source of batches needs to continue: tensors, and its place in the data as JSON."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)


@dataclass
class Session:
    """What the loop reads, and what it moves on: `step`, `seconds`, the `panel` and the `state` of its source.

    `saved` is the step of the newest checkpoint, `healthy` that of the one to which a collapse goes back, `rollbacks`
    records those done, and `skipped` the samples left out, each with the reason.
    """

    run: Run
    out: Path
    dist: Dist
    dataset: Dataset
    method: Method
    optimizer: torch.optim.Optimizer
    notes: list[str]
    step: int = 0
    seconds: float = 0.0
    panel: PanelMemory = field(default_factory=PanelMemory)
    skipped: dict[str, str] = field(default_factory=dict)
    saved: int = 0
    healthy: int = 0
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    state: SourceState = field(default_factory=SourceState)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; 0 where its end is not known."""
        return self.run.length.steps or 0

    @cached_property
    def model(self) -> nn.Module:
        """The method, under DDP where there are several processes."""
        return self.method if self.dist.world == 1 else DistributedDataParallel(self.method)


def build_session(run: Run, out: Path, dist: Dist, seed: int | None = None, dataset: Dataset | None = None) -> Session:
    """Open the data, resolve every auto, build the method. Writes nothing. Raises ValueError where a part misfits.

    `dataset` is given where the data are open already.
    """
    run, dataset, signal, notes = resolve.resolve_run(run, dataset or run.data.open(), dist.world)
    run, parents = with_parents(run)
    method = methods.build(run.method, signal, run.seed if seed is None else seed, parents)
    # What takes memory is priced where it will lie, in the precision that it will have.
    method.to(dist.device, getattr(torch, run.loop.dtype))
    cautions = resolve.check_method(run, method, dataset)
    for module in method.modules():
        if hasattr(module, "checkpoint_activations"):
            module.checkpoint_activations = run.loop.activation_checkpointing  # type: ignore[assignment]
    return Session(run, out, dist, dataset, method, optim.build_optimizer(run.optim, method), [*notes, *cautions])


def with_parents(run: Run) -> tuple[Run, tuple[Method, ...]]:
    """The run with the hashes of its parents' weights, and the parents; the same run and none where it has none."""
    parents = checkpoint.parents_of(run.method)
    if not parents:
        return run, ()
    cfg = replace(cast(Any, run.method), parent_hashes=tuple(checkpoint.module_hash(parent) for parent in parents))
    return replace(run, method=cfg), parents


def check_free(out: Path, replace: bool) -> None:
    """Raises ValueError where `out` cannot become a run folder: it is a file, or holds a run or other files.

    A run may be there where `replace` is true.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if not replace:
        raise ValueError(
            f"{out} is not empty; go on with it by --resume, replace it by --overwrite, or give another --out"
        )
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    foreign = [name for name in names if not RUN_FILES.fullmatch(name)]
    if foreign or "config.yaml" not in names:
        why = f"{foreign[0]} is no part of a run" if foreign else "it holds no run (no config.yaml)"
        raise ValueError(f"{out} is not deleted, as {why}; give another --out")


def clear_folder(out: Path) -> None:
    """Make `out` an empty folder, and delete what it holds; call `check_free` first.

    Folders behind links stay: `out` itself is followed, links in it are removed. Raises ValueError where that fails.
    """
    try:
        out.resolve().mkdir(parents=True, exist_ok=True)
        for entry in out.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error.strerror}); give --out a folder that can") from None


def start_from(session: Session, run: Path) -> bool:
    """Copy another run's weights. Returns whether they are all weights of the method.

    Raises ValueError with every key that is missing, unexpected or of another shape.
    """
    if named := named_weights(session.run):
        raise ValueError(f"--init takes all weights from {run}, but encoder.weights names {named}; give one of them")
    # The statistics stay those of this run's data.
    saved = checkpoint.load_checkpoint(run)
    inner = getattr(getattr(session.method, "encoder", None), "inner", None)
    if inner is not None and not any(key.startswith("encoder.inner.") for key in saved.model):
        start_from_frames(session, inner, saved, run)
        return False
    checkpoint.load_tensors(session.method, saved.model, f"{run} at step {saved.step}", skip=("mean", "std"))
    session.notes.append(f"weights from {run} at step {saved.step}")
    return True


def start_from_frames(session: Session, inner: torch.nn.Module, saved: checkpoint.Checkpoint, run: Path) -> None:
    """Copy another method's encoder (the target encoder where it has one), and its mean and deviation."""
    name = "target_encoder." if any(key.startswith("target_encoder.") for key in saved.model) else "encoder."
    given = {key.removeprefix(name): value for key, value in saved.model.items() if key.startswith(name)}
    source = f"{run} at step {saved.step}"
    weights.copy_into(inner.state_dict(), given, source, "give the data the size and channels of its pictures")
    for own in ("mean", "std"):
        getattr(session.method, own).copy_(saved.model[own].reshape(-1, *[1] * len(session.method.signal.size)))
    session.notes.append(f"frames are seen by the encoder of {source}, with its statistics")


def read_weights(session: Session) -> None:
    """Copy the file of weights that the settings name into the encoder and its target, and note the file's hash.

    Only a new run reads it; its checkpoints hold the weights afterwards. Raises ValueError where the file does not fit.
    """
    if found := encoder.read_weights(session.method):
        session.run = with_hash(session.run, found)
        session.notes.append(f"weights of the encoder from {named_weights(session.run)}")


def named_weights(run: Run) -> str:
    """The file of weights that the encoder's settings name; "" where they name none."""
    return getattr(getattr(run.method, "encoder", None), "weights", "")


def with_hash(run: Run, found: str) -> Run:
    """The run with the hash of its encoder's file of weights, unless it has one or names no file."""
    method: Any = run.method
    if not named_weights(run) or method.encoder.weights_hash:
        return run
    return replace(run, method=replace(method, encoder=replace(method.encoder, weights_hash=found)))


def write_settings(session: Session) -> None:
    """Write config.yaml and environment.json; a resumed run replaces them by its own."""
    files.write_text(session.out / "config.yaml", write.to_yaml(session.run))
    files.write_json(session.out / "environment.json", describe_environment())
