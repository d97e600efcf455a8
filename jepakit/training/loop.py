"""The loop. Step k is a pure function of the settings and the state before it, so a resumed run is the same run."""

import json
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..collapse import Verdict
from ..core import distributed, files
from ..core.progress import Interrupted, Silent, Watch
from ..core.schedules import progress as progress_of
from ..data import loader
from ..data.stream import First
from ..run import optim
from ..run.settings import Loop
from ..types import Batch, Rng, Terms, averaged
from . import rollback
from .monitor import Monitor
from .recorder import Recorder
from .session import Session


def train(session: Session, watch: Watch | None = None) -> dict[str, Any]:
    """Train from `session.step` to the end; write metrics.jsonl, checkpoints and summary.json; return the summary.

    A collapse ends or rolls back the run where loop.on_collapse says so. Raises Interrupted after saving, on SIGTERM or
    Ctrl-C; FloatingPointError, with the batch's ids saved, on a loss that is not finite, unless it is rolled back.
    """
    watch = watch or Silent()
    if session.step == session.steps:
        watch.note(f"nothing left to train: {session.out} stands at step {session.step} of {session.steps}")
        return finished(session)
    model = wrap(session)
    monitor = Monitor(session)
    recorder = Recorder(session, monitor, watch)
    for chosen in (monitor.samples, recorder.online):
        if chosen:
            watch.note(chosen.note)
    with stop_requests() as asked, recorder:
        if session.step == 0 and "start" not in session.panel:
            recorder.observe()
            recorder.judge()
            recorder.save()
        while (lost := stretch(session, model, recorder, asked)) is not None:
            watch.note(rollback.undo(session, lost))
            recorder.back()
    return recorder.summary


def stretch(session: Session, model: nn.Module, recorder: Recorder, asked: list[int]) -> Verdict | None:
    """Train to the end of the run; or to a collapse that is to be undone, whose verdict it returns."""
    steps, (log_every, save_every, panel_every) = session.steps, intervals(session.run.loop)
    schedules = rollback.slowed(session.run.optim, len(session.rollbacks))
    for batch in batches(session):
        try:
            terms, lr, norm = advance(session, model, batch, schedules)
        except FloatingPointError as error:
            if not rollback.allowed(session):
                raise
            return Verdict("exploding", str(error).partition("; ")[0])
        last, stopping = session.step == steps, agreed(asked, session)
        action: rollback.Action = "go on"
        if session.step % panel_every == 0 or last:
            recorder.observe(terms, last)
            action = rollback.decide(session, recorder.verdict)
        if action == "roll back":
            return recorder.verdict
        ended = last or action == "stop"
        saving = session.step % save_every == 0 or ended or stopping
        if saving:
            recorder.judge()
        if session.step % log_every == 0 or ended:
            recorder.log(terms, lr, norm)
        if saving:
            recorder.save(ended)
        if action == "stop" and not last:
            recorder.watch.note(stopped(session, recorder.verdict))
            return None
        if stopping and not last:
            raise Interrupted(f"stopped at step {session.step} of {steps} and saved; go on with --resume")
    return None


def advance(
    session: Session, model: nn.Module, batch: Batch, schedules: optim.Optim
) -> tuple[Terms, float, torch.Tensor]:
    """One optimiser step; its terms, learning rate and gradient norm."""
    progress = progress_of(session.step, session.steps)
    lr = optim.set_schedule(session.optimizer, schedules, progress)
    terms, norm = gradients(session, model, batch)
    session.optimizer.step()
    session.optimizer.zero_grad(set_to_none=True)
    session.method.after_step(progress)
    session.step += 1
    return terms, lr, norm


def stopped(session: Session, verdict: Verdict) -> str:
    """The sentence on a run that its collapse has ended."""
    spent = f" {rollback.spent(session.rollbacks)}," if session.rollbacks else ""
    return (
        f"stopped at step {session.step} of {session.steps}{spent} and saved: the verdict is {verdict.name}, "
        f"{verdict.reason}; {verdict.advice}. --resume --on-collapse warn goes on all the same"
    )


def finished(session: Session) -> dict[str, Any]:
    """The summary of a run whose last step is saved."""
    if not session.dist.main:
        return {}
    path = session.out / "summary.json"
    if not path.is_file():
        raise ValueError(f"{session.out} is finished but {path} is gone; put it back, or train again with --overwrite")
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def intervals(loop: Loop) -> tuple[int, int, int]:
    """Steps between two logged rows, two checkpoints, two measurements by the panel."""
    return loop.log_every, loop.save_every or 1, loop.panel_every or 1


def gradients(session: Session, model: nn.Module, batch: Batch) -> tuple[Terms, torch.Tensor]:
    """Backward of one global step: this rank's share, in micro-batches. The terms are the whole global batch's."""
    run, dist = session.run, session.dist
    parts = run.length.accumulate
    size = len(batch) // parts
    terms = []
    for i in range(parts):
        rng = Rng(run.seed, session.step, offset=dist.rank * len(batch) + i * size, total=run.length.batch)
        with no_sync(model, last=i == parts - 1), precision(session):
            part = model(batch[i * size : (i + 1) * size], rng)
        (part.total / parts).backward()
        terms.append(part)
    whole, norm = average(terms), optim.clip_gradients(session.method.parameters(), run.optim.clip)
    if not torch.isfinite(whole.total + norm):
        refuse(session, batch, whole, norm)
    return whole, norm


def average(terms: list[Terms]) -> Terms:
    """The mean of equal micro-batches over all of them and all ranks; `pred` and `target` are this rank's."""
    world, own = distributed.world(), averaged(terms, [1 / len(terms)] * len(terms))

    def mean(entries: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: distributed.all_reduce_sum(v.detach()) / world for k, v in entries.items()}

    return replace(own, loss=mean(own.loss), log=mean(own.log))


def refuse(session: Session, batch: Batch, terms: Terms, norm: torch.Tensor) -> None:
    """Save the ids of a global batch whose loss or gradient is not finite, and raise FloatingPointError."""
    names = distributed.merge({session.dataset.name(int(i)): "" for i in batch.id})
    path = session.out / f"not-finite-step-{session.step:08d}.json"
    values = {k: str(float(v)) for k, v in terms.loss.items()}
    if session.dist.main:
        content = {"step": session.step, "loss": values, "gradient_norm": str(float(norm)), "ids": [*names]}
        files.write_json(path, content)
    raise FloatingPointError(
        f"the loss is {float(terms.total)} and the gradient's norm {float(norm)} at step {session.step}; the batch's "
        f"ids are in {path}. Lower --optim.lr, set --optim.clip 1, or look at those samples"
    )


def precision(session: Session) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the run asks for it."""
    if not session.run.loop.amp:
        return nullcontext()
    return torch.autocast(session.dist.device.type, torch.bfloat16)


def wrap(session: Session) -> nn.Module:
    """The method, under DDP where there are several processes."""
    if session.dist.world == 1:
        return session.method
    return DistributedDataParallel(session.method)


def no_sync(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients cross the ranks once per step, with the last micro-batch."""
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def batches(session: Session) -> Generator[Batch]:
    """This rank's share of every global batch from `session.step` to the end, on its device; notes what was skipped."""
    run, dist = session.run, session.dist
    local = run.length.batch // dist.world
    stream = loader.batches(
        session.dataset,
        session.method.signal,
        seed=run.seed,
        batch=local,
        start=session.step,
        stop=session.steps,
        workers=run.loop.workers or 0,
        offset=dist.rank * local,
        total=run.length.batch,
        include_x=session.method.reads_x,
    )
    with closing(stream):
        for batch in stream:
            session.skipped.update(stream.skipped)
            yield batch.to(dist.device, getattr(torch, run.loop.dtype))


def rehearsal(session: Session) -> tuple[Batch, Callable[[Batch, Rng], None]]:
    """A few samples of the first batch, and forward and backward of a batch, for estimates."""
    if isinstance(session.dataset, First):
        few = Batch(session.dataset.raw(0)[None, :, :2], id=torch.zeros(1, dtype=torch.int64)).to(session.dist.device)
    else:
        with closing(batches(session)) as stream:
            few = next(stream)[: min(4, session.run.length.batch)]

    def step(batch: Batch, rng: Rng) -> None:
        with precision(session):
            total = session.method(batch, rng).total
        total.backward()

    return few, step


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that fills with the signals SIGTERM and SIGINT; a second Ctrl-C interrupts at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    old = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.signal(number, note)
    except ValueError:
        pass  # Not the main thread: signals are the host program's.
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def agreed(asked: list[int], session: Session) -> bool:
    """Whether any rank was asked to stop; the same answer on every rank."""
    return bool(distributed.all_reduce_sum(torch.tensor(float(len(asked)), device=session.dist.device)))
