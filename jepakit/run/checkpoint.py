"""Saves and loads checkpoints atomically: safetensors for tensors, JSON for the rest, nothing that can run code.

A checkpoint is a folder `step-00001000/` with model.safetensors, optim.safetensors, state.json and, if the source of
batches has a state, stream.safetensors. It is written under a temporary name, synced, and renamed, so a folder with the
final name is complete. state.json also records the file sizes, so a truncated copy is detected and the previous
checkpoint is used.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import methods
from ..core.files import write_json
from ..methods.base import Method
from ..nn.weights import copy_into
from ..types import ActionSpec, Signal
from . import parse
from .settings import Run

SCHEMA_VERSION = 1
SOURCE_FILE = "stream.safetensors"  # this name dates from when streams were the only source with a state
# Errors from reading a damaged checkpoint: truncated or missing files, undecodable bytes, JSON of the wrong shape.
DAMAGE_ERRORS = (
    *(OSError, EOFError, SafetensorError, json.JSONDecodeError),
    *(UnicodeDecodeError, KeyError, TypeError, AttributeError),
)


@dataclass(frozen=True)
class Checkpoint:
    """One saved step. `warnings` lists newer checkpoints that were unusable.

    `state` is the trainer's JSON; `source` holds the tensors that the source of batches needs to continue.
    """

    step: int
    model: dict[str, Tensor]
    optim: dict[str, Tensor]
    state: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    source: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedRun:
    """A trained run: its settings, its method in eval mode, and the saved step and state."""

    run: Run
    method: Method
    step: int
    state: dict[str, Any]


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    run: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep: int = 2,
    needed: Collection[int] = (),
    source: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save a checkpoint, point `checkpoints/last` at it, and delete all but the newest `keep` and those in `needed`."""
    final = step_folder(run, step)
    part = final.with_name(f".{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, part / "model.safetensors")
    save_file(optimizer_tensors(method, optimizer), part / "optim.safetensors")
    if source:
        save_file(dict(source), part / SOURCE_FILE)
    sizes = {p.name: p.stat().st_size for p in part.iterdir()}
    signal = asdict(method.signal) if isinstance(method, Method) else {}
    write_json(part / "state.json", {"schema": SCHEMA_VERSION, "step": step, "signal": signal, "files": sizes, **state})
    for path in (*part.iterdir(), part):
        _sync_path(path)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    _point_last(final.parent / "last", final.name)
    for old in saved_steps(run)[:-keep]:
        if old not in needed:
            shutil.rmtree(step_folder(run, old))
    return final


def go_back(run: Path, step: int, changes: Mapping[str, Any]) -> None:
    """Make the checkpoint of `step` the newest: apply `changes` to its state and delete later checkpoints.

    If the process is killed halfway, all remaining checkpoints are complete.
    """
    path = step_folder(run, step) / "state.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
    _point_last(run / "checkpoints" / "last", step_folder(run, step).name)
    for later in saved_steps(run)[::-1]:
        if later > step:
            shutil.rmtree(step_folder(run, later))


def saved_steps(run: Path) -> list[int]:
    """The steps with a checkpoint, ascending. Does not check that the checkpoints can be read."""
    found = (run / "checkpoints").glob("step-*")
    return sorted(int(p.name[5:]) for p in found if p.name[5:].isdigit())


def load_checkpoint(run: Path, step: int | None = None) -> Checkpoint:
    """The newest readable checkpoint, or that of `step`. Raises ValueError, listing all attempts, if there is none."""
    saved = saved_steps(run)
    if step is not None and step not in saved:
        raise ValueError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, saved)) or 'none'}")
    warnings: list[str] = []
    for at in reversed(saved if step is None else [step]):
        try:
            return _read_step(run, at, warnings)
        except DAMAGE_ERRORS as error:
            warnings.append(f"checkpoint of step {at} is unusable ({_error_text(error)})")
    raise ValueError(
        f"{run} has no usable checkpoint: {'; '.join(warnings) or 'the folder checkpoints/ is empty or missing'}"
    )


def _read_step(run: Path, step: int, warnings: list[str]) -> Checkpoint:
    at = step_folder(run, step)
    state = json.loads((at / "state.json").read_text(encoding="utf-8"))
    if state["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{at} has format {state['schema']}; this jepakit reads {SCHEMA_VERSION}: use the version that wrote it"
        )
    for name, size in state["files"].items():
        if (at / name).stat().st_size != size:
            raise EOFError(f"{name} has {(at / name).stat().st_size} bytes of {size}")
    model, optim = (load_file(at / f"{name}.safetensors") for name in ("model", "optim"))
    source = load_file(at / SOURCE_FILE) if SOURCE_FILE in state["files"] else {}
    return Checkpoint(step, model, optim, state, list(warnings), source)


def load_run(
    run: Path,
    step: int | None = None,
    parents: Sequence[Method] = (),
    note: Callable[[str], None] = lambda sentence: None,
) -> LoadedRun:
    """A run's method with its trained weights, on the CPU in eval mode.

    A head is built on `parents`, by default on the runs that its settings name. `note` receives a sentence for each
    renamed setting of the run. Raises ValueError if there is no run, or if the weights of a head's parents are not
    those it was trained on.
    """
    settings = settings_of(run)
    for sentence in parse.renaming_notes(parse.read_yaml(run / "config.yaml")):
        note(f"{run / 'config.yaml'}: {sentence}")
    saved = load_checkpoint(run, step)
    below = parents_of(settings.method, parents)
    method = methods.build(settings.method, signal_from(saved.state["signal"]), parents=below)
    load_tensors(method, saved.model, f"{run} at step {saved.step}")
    return LoadedRun(settings, method.eval(), saved.step, saved.state)


def settings_of(run: Path) -> Run:
    """The settings of a run folder. Raises ValueError if the folder holds no run."""
    if not (run / "config.yaml").is_file():
        raise ValueError(
            f"{run} is not a run folder: it has no config.yaml; give the folder that `jepa train --out` wrote"
        )
    return parse.from_yaml(run / "config.yaml")


def parents_of(cfg: Any, parents: Sequence[Method] = ()) -> tuple[Method, ...]:
    """The methods under a head: `parents`, or the runs that its settings name. Empty for any other method.

    Raises ValueError if a head has no parent, or if a parent's weights are not those the head was trained on.
    """
    if not methods.is_head(cfg):
        return ()
    name = methods.name_of(cfg)
    if not parents and not cfg.parents:
        raise ValueError(f"{name} is trained on top of a finished run, but none is named; give --init RUN")
    found = tuple(parents) or tuple(load_run(Path(run)).method for run in cfg.parents)
    for run, parent, stored in zip(cfg.parents, found, cfg.parent_hashes, strict=False):
        if stored != module_hash(parent):
            raise ValueError(
                f"the weights of {run} are not those that {name} was trained on; restore its checkpoint, or "
                f"train again with jepa train {name} --init {run}"
            )
    return found


def module_hash(module: nn.Module) -> str:
    """A hash of a module's state dict."""
    found = blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str, skip: tuple[str, ...] = ()) -> None:
    """Copy `tensors` into `module`. Raises ValueError unless every key outside `skip` matches in name and shape."""
    own = {k: v for k, v in module.state_dict().items() if k not in skip}
    given = {k: v for k, v in tensors.items() if k not in skip}
    copy_into(own, given, source, "give both the same method and encoder settings")


def signal_from(entries: Mapping[str, Any]) -> Signal:
    """A Signal from its JSON form. Earlier versions stored only the size of an action, 0 for no action."""
    values = _with_tuples(entries)
    action = values.pop("action", None)
    if isinstance(action, int):
        action = {"size": action} if action else None
    return Signal(**values, action=None if action is None else ActionSpec(**_with_tuples(action)))


def _with_tuples(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()}


def optimizer_tensors(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, keyed `PARAMETER/ENTRY`, so that it survives a change of group order."""
    names: dict[Tensor, str] = {p: name for name, p in method.named_parameters()}
    state = [(names[p], entries) for p, entries in optimizer.state.items()]
    return {f"{name}/{key}": torch.as_tensor(v).contiguous() for name, entries in state for key, v in entries.items()}


def load_optimizer(method: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    parameters = dict(method.named_parameters())
    fused = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        p = parameters[name]
        # Moments are on their parameter's device; AdamW's step counter is there only if fused, otherwise on the CPU.
        optimizer.state[p][entry] = value.clone().to(p.device if value.ndim or p in fused else "cpu")


def _sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point_last(link: Path, target: str) -> None:
    part = link.with_name(".last.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def _error_text(error: Exception) -> str:
    plain = isinstance(error, (OSError, EOFError, ValueError))
    return str(error) if plain else f"{type(error).__name__}: {error}"
