"""Settings of a run on a stream, whose end is not known, before step 1."""

from dataclasses import replace
from typing import Any, cast

from .. import methods
from ..methods.base import Method
from ..nn import Pixels
from ..run.settings import Loop, Run
from ..types import Signal
from . import resolve as prepare
from .resolve import Note

SAVE, PANEL, DEAR = 5000, 5000, 50_000


def resolve(run: Run, signal: Signal, samples: int, world: int) -> tuple[Run, list[Note]]:
    """The run with no auto left, and a note for each choice. ValueError where a stream cannot be learnt like that."""
    check(run, world)
    method, notes = vectors(run.method, signal)
    method, patch = prepare.fit_patch(method, signal)
    loop, chosen = fit_loop(run.loop, samples)
    loop, device = prepare.resolve_loop(loop, 1, 1)
    rate = run.optim
    steady = replace(rate, start_lr=rate.lr, final_lr=rate.lr, warmup=0.0, final_weight_decay=rate.weight_decay)
    if steady != rate:
        why = "of a stream nobody knows the end, so lr and weight_decay stay what they are"
        notes.append(Note("optim.warmup", 0.0, why))
    return replace(run, method=method, optim=steady, loop=loop), [*notes, *patch, *chosen, *device]


def check(run: Run, world: int) -> None:
    """Raises ValueError where settings do not go with a stream."""
    method: Any = run.method
    if not methods.is_predictive(method) or getattr(method, "rule", "") != "rfp":
        raise ValueError(
            f"{methods.name_of(method)} as it is set cannot learn from a stream, which takes the method rjepa with "
            "rule rfp; use the recipe rjepa-online, or --method.rule rfp"
        )
    if world > 1:
        raise ValueError(f"a stream is one sequence, but {world} processes were started; start one")
    if run.length.accumulate > 1:
        raise ValueError(f"length.accumulate is {run.length.accumulate}, but a stream is learnt as it comes; give 1")
    if run.loop.amp:
        raise ValueError("loop.amp is true, but forward propagation keeps its traces in full precision; give false")
    if run.loop.on_collapse == "rollback":
        raise ValueError("a stream cannot be gone back to, so on_collapse rollback is none for it; give warn or stop")


def check_steps(method: Method) -> None:
    """Raises ValueError where a method does not read one frame after the other."""
    patch = cast(Any, method).encoder.patch
    if patch[0] != 1:
        raise ValueError(f"a stream is learnt frame by frame, but the encoder's patch {patch} spans {patch[0]}; give 1")


def vectors(method: Any, signal: Signal) -> tuple[Any, list[Note]]:
    """The method's settings without an encoder, where frames are vectors and its patch was left open."""
    encoder = method.encoder
    if len(signal.size) > 1 or getattr(encoder, "patch", ()) is not None:
        return method, []
    note = Note("method.encoder", "pixels", f"a frame is a vector of {signal.channels}: the circuit reads it as it is")
    return replace(method, encoder=Pixels()), [note]


def fit_loop(loop: Loop, samples: int) -> tuple[Loop, list[Note]]:
    """The loop's settings for steps that are many and small."""
    chosen = {
        "amp": (False, "a frame at a time is too little for it"),
        "workers": (0, "a stream has one reader"),
        "save_every": (SAVE, "and 100, 200, 400 … before that"),
        "panel_every": (PANEL, "and 100, 200, 400 … before that"),
        "dear_every": (DEAR, "ten times as rare"),
        "panel_size": (samples, "windows of the first frames"),
    }
    wanted = {key: value for key, value in chosen.items() if getattr(loop, key) is None}
    notes = [Note(f"loop.{key}", *value) for key, value in wanted.items()]
    return replace(loop, **cast(Any, {key: value for key, (value, _) in wanted.items()})), notes
