"""Builds a session: everything that the loop needs before step 1 of a new or resumed run."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import methods
from ..core.distributed import Dist
from ..data import Dataset
from ..evals.sources import kinds_for_method
from ..evals.split import allowed_kinds
from ..methods.base import Method
from ..run import checkpoint, optim
from ..run.settings import Run
from .panel_memory import PanelMemory
from .resolve import resolve_run
from .stages import explain_flags, stage_run
from .stream import limits


@dataclass(frozen=True)
class SourceState:
    """The state that a source of batches needs to continue: tensors, and its position in the data as JSON."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)


@dataclass
class Session:
    """The inputs of the loop, and the values it updates: `step`, `seconds`, the `panel` and the `state` of its source.

    `probes` are the kinds of evaluation to run after the last step, `notes` the sentences to show the user before the
    first. `saved` is the step of the newest checkpoint, `healthy` the step of the checkpoint that a rollback restores.
    `rollbacks` records past rollbacks; `skipped` maps each sample left out to the reason. `test_part_seen`: the weights
    come from a training that saw what this one leaves out.
    """

    run: Run
    out: Path
    dist: Dist
    dataset: Dataset
    method: Method
    optimizer: torch.optim.Optimizer
    probes: Sequence[str]
    notes: list[str]
    step: int = 0
    seconds: float = 0.0
    panel: PanelMemory = field(default_factory=PanelMemory)
    skipped: dict[str, str] = field(default_factory=dict)
    saved: int = 0
    healthy: int = 0
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    test_part_seen: bool = False
    state: SourceState = field(default_factory=SourceState)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; 0 if its length is unknown."""
        return self.run.length.steps or 0

    @cached_property
    def model(self) -> nn.Module:
        """The method, wrapped in DDP if there are several processes."""
        return self.method if self.dist.world == 1 else DistributedDataParallel(self.method)


def build_session(
    run: Run,
    out: Path,
    dist: Dist,
    dataset: Dataset | None = None,
    probes_required: bool = False,
    parents: tuple[Method, ...] = (),
) -> Session:
    """Open the data, resolve every auto setting, build the method. Writes nothing.

    Raises ValueError if a part, or a head that is trained later, does not fit. `dataset` is given if the data are
    already open, `parents` if a head is not built on the runs that its settings name. Probes that the data do not allow
    produce a note, or a ValueError if `probes_required`.
    """
    run, dataset, signal, notes = resolve_run(run, dataset or run.data.open(), dist.world)
    if not parents:
        run, parents = with_parents(run)
    method = methods.build(run.method, signal, run.seed, parents)
    # Memory is estimated on the target device and in the final precision.
    method.to(dist.device, getattr(torch, run.loop.dtype))
    method.check(run.samples_at_once)
    if run.from_stream:
        limits.check_encoder(method)
    check_shortest(dataset, method)
    for module in method.modules():
        if hasattr(module, "checkpoint_activations"):
            module.checkpoint_activations = run.loop.activation_checkpointing  # type: ignore[assignment]
    if caution := method.caution(run.samples_at_once):
        notes.append(caution)
    labels = dataset.words.labels
    probes, probe_notes = allowed_kinds(run.evals.kinds, dataset.classes, probes_required, labels)
    probes, unfit_notes = kinds_for_method(probes, method, probes_required)
    optimizer = optim.build_optimizer(run.optim, method)
    check_heads(run, method, dist, dataset)
    return Session(run, out, dist, dataset, method, optimizer, probes, [*notes, *probe_notes, *unfit_notes])


def check_heads(run: Run, method: Method, dist: Dist, dataset: Dataset) -> None:
    """Raise ValueError if a head that is to be trained after the run does not fit the run's method or data."""
    for stage in run.heads:
        # Not `method` itself: a head freezes its parents.
        below = deepcopy(method)
        try:
            settings = stage_run(stage, run, Path())
            own = dataset if settings.data == run.data else None
            build_session(settings, Path(), dist, own, parents=(below,))
        except ValueError as error:
            raise explain_flags(error, stage) from error


def check_shortest(dataset: Dataset, method: Method) -> None:
    """Raise ValueError if samples have unequal lengths and the method cannot learn from the shortest."""
    if dataset.lengths is None or not dataset.is_padded(method.signal.size):
        return
    shortest, patch, words = int(dataset.lengths.min()), method.patch_steps, dataset.words
    try:
        if shortest < patch:
            raise ValueError(f"that is less than the patch of {patch}")
        method.check_steps(shortest // patch * patch)
    except ValueError as error:
        raise ValueError(f"the shortest {words.one} has {shortest} {words.parts}: {error}; or {words.fix}") from None


def with_parents(run: Run) -> tuple[Run, tuple[Method, ...]]:
    """The run with the hashes of its parents' weights, and the parents; the same run and () if it has none."""
    parents = checkpoint.parents_of(run.method)
    if not parents:
        return run, ()
    cfg = replace(cast(Any, run.method), parent_hashes=tuple(checkpoint.module_hash(parent) for parent in parents))
    return replace(run, method=cfg), parents


def named_weights(run: Run) -> str:
    """The weights file that the encoder's settings name; "" if they name none."""
    return getattr(getattr(run.method, "encoder", None), "weights", "")


def with_hash(run: Run, found: str) -> Run:
    """The run with the hash of its encoder's weights file, unless it already has a hash or names no file."""
    method: Any = run.method
    if not named_weights(run) or method.encoder.weights_hash:
        return run
    return replace(run, method=replace(method, encoder=replace(method.encoder, weights_hash=found)))
