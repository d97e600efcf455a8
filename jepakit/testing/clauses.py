"""The clauses of the method contract: each raises AssertionError with what fails and how to fix it."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, cast

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..collapse import effective_rank, normalized_loss
from ..methods.base import Method
from ..methods.head import Head
from ..methods.masked import Masked
from ..types import Batch, Grid, Masks, Rng, Size
from .case import BATCH_SIZE, Case
from .ranks import run_ranks

MAX_TOKENS: Final = 32
LEARNING_STEPS: Final = 80
MAX_NORMALIZED_LOSS: Final = 3  # after training; the best constant prediction has 1


def encodes_every_token(case: Case) -> None:
    """Encode gives finite (B, N, D) for both weights; the loss is a sum of scalars; monitored values are detached."""
    method = case.build().eval()
    tokens = {weights: method.encode(case.batch, weights) for weights in ("target", "context")}
    for weights, s in tokens.items():
        require(
            s.ndim == 3 and len(s) == BATCH_SIZE,
            f"encode(batch, {weights!r}) has shape {tuple(s.shape)}; give (B, N, D)",
        )
        require(
            s.shape[1] <= MAX_TOKENS, f"Config.tiny makes {s.shape[1]} tokens; at most {MAX_TOKENS} keep this quick"
        )
        require(bool(s.isfinite().all()), f"encode(batch, {weights!r}) is not finite")
    require(
        tokens["target"].shape == tokens["context"].shape, "encode has another shape for target and context weights"
    )
    terms = method.loss(case.batch, Rng(0))
    require(bool(terms.loss), "loss returned Terms without a scalar; put each weighted term in Terms(loss={…})")
    read = [*terms.log.values(), *(terms.compared or ())]
    require(not any(t.requires_grad for t in read), "Terms.log and compared still carry gradients; detach them")
    shapes = [tuple(t.shape) for t in terms.compared or ()]
    require(len(set(shapes)) < 2, f"Terms.compared holds shapes {shapes}; give a target for every prediction")


def normalises_first(case: Case) -> None:
    """The model applies the data's mean and std, once: raw units give the same tokens as standard units."""
    method, plain = case.build().eval(), case.build(signal=replace(case.signal, mean=(), std=())).eval()
    standard = replace(case.batch, x=method.normalize(case.batch.x))
    equal = torch.equal(method.encode(case.batch), plain.encode(standard))
    require(equal, "encode does not see x as normalize(x) once; call self.normalize(x) first thing, and nowhere else")


def uses_every_parameter(case: Case) -> None:
    """After two optimiser steps every trained parameter has had a finite gradient, non-zero at least once."""
    method, moved = case.build(), set[str]()
    for _ in case.steps(method, 2):
        for name, p in method.named_parameters():
            require(p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
            if p.grad is not None and bool(p.grad.any()):
                moved.add(name)
    idle = [name for name, p in method.named_parameters() if p.requires_grad and name not in moved]
    require(not idle, f"no gradient reaches {', '.join(idle)}; build only what the config uses, or freeze it")


def draws_from_rng_alone(case: Case) -> None:
    """The same rng gives the same loss for any global random state, and leaves that state unchanged."""
    method = case.build()
    losses = []
    for seed in (1, 2):
        with _global_seed(seed):
            before = _global_state()
            losses.append(method(case.batch, Rng(5, step=3)).total)
            method.encode(case.batch)
            require(before == _global_state(), "loss or encode draws from the global random state; draw from rng")
    require(torch.equal(*losses), "the same rng gave two losses; draw everything from rng.generator()")


def follows_rng(case: Case) -> None:
    """Another rng gives another loss if a random masker is configured."""
    if not case.maskers or not _draws_vary(case):
        return
    method = case.build()
    losses = {method(case.batch, Rng(0, step=step)).total.item() for step in range(4)}
    require(len(losses) > 1, "a random masker is configured, but four rngs gave one loss; pass rng on to it")


def hides_what_is_masked(case: Case) -> None:
    """Changing pixels of hidden patches leaves the context, and predictions from it, bit-equal."""
    for masker in case.maskers:
        seen: list[Masks] = []
        method: Any = case.build(cfg=replace(case.cfg, masks=(_Recorder(masker, seen),))).eval()
        require(
            isinstance(method, Masked | Head),
            "cfg has masks; make the method a Masked (methods/masked.py), with context(x, masks) on raw x",
        )
        before = method.loss(case.batch, Rng(0)).compared
        masks = seen.pop()
        visible = _visible_pixels(masks.context, method.encoder.grid, case.signal.size)
        other = replace(case.batch, x=torch.where(visible, case.batch.x, 1 - case.batch.x))
        context = method.context(case.batch.x, masks)
        require(torch.equal(context, method.context(other.x, masks)), "hidden patches change context(x, masks)")
        require(not torch.equal(context, method.context(1 - case.batch.x, masks)), "context(x, masks) ignores x")
        if isinstance(method, Masked):
            shapes = [tuple(of(case.batch.x, masks).shape) for of in (method.predict, method.expected)]
            require(shapes[0] == shapes[1], f"predict gives shape {shapes[0]}, but expected {shapes[1]}")
        after = method.loss(other, Rng(0)).compared
        leak = before is not None and after is not None and not torch.equal(before[0], after[0])
        require(not leak, "hidden patches change the prediction; predict from the context alone")


def moves_the_target_by_the_stated_fraction(case: Case) -> None:
    """After a step at progress p, target = d target + (1 - d) encoder with d on the line from ema[0] to ema[1]."""
    ema = getattr(case.cfg, "ema", None)
    if ema is None:
        return
    method: Any = case.build().double()
    encoder, target = dict(method.encoder.named_parameters()), dict(method.target_encoder.named_parameters())
    for progress in (0.0, 0.5, 1.0):
        decay = ema[0] + progress * (ema[1] - ema[0])
        with torch.no_grad():
            for p in encoder.values():
                p.add_(1.0)
        expected = {name: decay * p + (1 - decay) * encoder[name] for name, p in target.items()}
        method.after_step(progress)
        wrong = [name for name, p in target.items() if not torch.allclose(p, expected[name], rtol=1e-6, atol=1e-9)]
        require(not wrong, f"at progress {progress} the target does not move by 1 - {decay:g}: {', '.join(wrong[:3])}")


def learns_one_batch(case: Case) -> None:
    """The method can learn one batch without loss of rank; afterwards energy separates matching from other pairs.

    The normalised loss after training is between 0 and 3. Before training it is no guide: fresh targets can
    differ so little from one another that a correct method begins at 100.
    """
    method, batch = case.build(), case.batch
    loss, rank, std = _mean_loss(case, method), _token_rank(method, batch), _spread_over_samples(method, batch)
    for _ in case.steps(method, LEARNING_STEPS):
        pass
    method.eval()
    learnt = _mean_loss(case, method)
    require(
        learnt < 0.9 * loss, f"{LEARNING_STEPS} steps on one batch took the loss from {loss:.4g} to {learnt:.4g} only"
    )
    if compared := method.loss(batch, Rng(1)).compared:
        found = normalized_loss(*compared, method.distance) / method.chance_loss
        require(
            0 < found < MAX_NORMALIZED_LOSS,
            f"the normalised loss of a batch that was learnt is {found:.3g}, where 1 is chance; give in Terms.compared "
            "both sides as the loss compares them, normalised where the loss does that",
        )
    require(
        _token_rank(method, batch) > 0.5 * rank,
        f"learning one batch took the rank from {rank:.1f} to {_token_rank(method, batch):.1f}",
    )
    spread = _spread_over_samples(method, batch)
    require(spread > 0.02 * std, f"learning one batch took the std from {std:.3g} to {spread:.3g}")
    with torch.no_grad():
        own, other = method.energy(batch, batch), method.energy(batch, batch[torch.arange(BATCH_SIZE).roll(1)])
    require(own.shape == (BATCH_SIZE,), f"energy has shape {tuple(own.shape)}; give one number per sample")
    below = bool(own.mean() < 0.99 * other.mean())
    require(below, f"energy(x, y) is {own.mean():.4g} and {other.mean():.4g} with y shuffled; it must be lower")


def saves_everything(case: Case) -> None:
    """State saved and loaded into other weights, built without the data's statistics, gives bit-equal encodings.

    Energies are bit-equal too; they are all that a head adds to its parents, which are saved as their own runs.
    """
    method, batch = case.build(), case.batch
    for _ in case.steps(method, 1):
        pass
    state = safetensors.torch.load(safetensors.torch.save(method.state_dict()))
    bare = replace(case.signal, mean=(), std=())
    copy = case.build(seed=1, signal=bare, parents=method.parents if isinstance(method, Head) else ())
    copy.load_state_dict(state)
    for weights in ("target", "context"):
        s, again = (m.eval().encode(batch, weights) for m in (method, copy))
        require(torch.equal(s, again), "encode changes when saved and loaded; keep all state in parameters and buffers")
    one, other = (m.energy(batch, batch) for m in (method, copy))
    require(torch.equal(one, other), "energy changes when saved and loaded; keep all state in parameters and buffers")


def leaves_its_parents_alone(case: Case) -> None:
    """A head trains and saves only its own weights; its parents move with it and stay in evaluation mode."""
    if not issubclass(case.method, Head):
        return
    head = cast(Head, case.build())
    before = [{name: value.clone() for name, value in parent.state_dict().items()} for parent in head.parents]
    for _ in case.steps(head.train(), 2):
        pass
    for state, parent in zip(before, head.parents, strict=True):
        after = parent.state_dict()
        changed = [name for name, value in state.items() if not torch.equal(value, after[name])]
        require(not changed, f"training a head changes {', '.join(changed[:3])} of its parent; read it under no_grad")
        require(not parent.training, "the parent of a head is in training mode; it is given in evaluation mode")
    require(not any(name.startswith("parent") for name in head.state_dict()), "a head saves its parent; leave it out")
    moved = all(parent.mean.dtype == torch.float64 for parent in head.double().parents)
    require(moved, "a head is moved without its parent; see Head._apply")


def is_finite_in_bf16(case: Case) -> None:
    """Loss and gradients are finite under bfloat16 autocast."""
    method = case.build()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(case.batch, Rng(0)).total
    loss.backward()
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    finite = bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in grads)
    require(finite, "loss or gradients are not finite in bfloat16; do the sensitive part in float32")


def accumulates_in_halves(case: Case) -> None:
    """One batch of B equals two halves accumulated, gradients included, to 1e-9 in float64."""
    if case.method.batch_statistics:
        return
    whole, halves = case.build().double(), case.build().double()
    batch, half = case.batch.to("cpu", torch.float64), BATCH_SIZE // 2
    loss = whole(batch, Rng(0)).total
    loss.backward()
    total = torch.zeros((), dtype=torch.float64)
    for start in (0, half):
        part = halves(batch[start : start + half], Rng(0, offset=start, total=BATCH_SIZE)).total / 2
        part.backward()
        total += part.detach()
    advice = "draw for rng.global_batch(B), or say batch_statistics = True"
    require(
        torch.allclose(loss.detach(), total, rtol=1e-9), f"two halves give loss {total:.6g}, not {loss:.6g}; {advice}"
    )
    for (name, p), q in zip(whole.named_parameters(), halves.parameters(), strict=True):
        close = p.grad is None or (q.grad is not None and torch.allclose(p.grad, q.grad, rtol=1e-7, atol=1e-9))
        require(close, f"two halves give another gradient for {name}; {advice}")


def sees_the_samples_of_all_ranks(case: Case) -> None:
    """Two ranks of half the batch each have the loss and the gradient of one process, to 1e-9 in float64."""
    if not case.method.batch_statistics:
        return  # then `accumulates_in_halves` says so
    whole, halves = case.build().double(), [case.build().double() for _ in range(2)]
    batch, half = case.batch.to("cpu", torch.float64), BATCH_SIZE // 2
    loss = whole(batch, Rng(0)).total
    loss.backward()

    def work(rank: int) -> Tensor:
        start = rank * half
        part = halves[rank](batch[start : start + half], Rng(0, offset=start, total=BATCH_SIZE)).total
        part.backward()
        return cast(Tensor, part.detach())

    total = torch.stack(run_ranks(2, work)).mean()
    advice = (
        "take statistics over all processes: by jepakit.losses, by nn.heads.BatchNorm in place of torch's, or by "
        "core.distributed.global_moments, all_gather and all_reduce_sum"
    )
    require(
        torch.allclose(loss.detach(), total, rtol=1e-9),
        f"two processes with half the batch each have loss {total:.6g}, one with all of it {loss:.6g}; {advice}",
    )
    for (name, p), *parts in zip(whole.named_parameters(), *(rank.parameters() for rank in halves), strict=True):
        found = [torch.zeros_like(p) if q.grad is None else q.grad for q in parts]
        close = p.grad is None or torch.allclose(p.grad, torch.stack(found).mean(0), rtol=1e-7, atol=1e-9)
        require(close, f"two processes have another gradient for {name} than one; {advice}")


CLAUSES: Final[tuple[Callable[[Case], None], ...]] = (
    encodes_every_token,
    normalises_first,
    uses_every_parameter,
    draws_from_rng_alone,
    follows_rng,
    hides_what_is_masked,
    moves_the_target_by_the_stated_fraction,
    saves_everything,
    leaves_its_parents_alone,
    is_finite_in_bf16,
    accumulates_in_halves,
    sees_the_samples_of_all_ranks,
    learns_one_batch,
)


@dataclass(frozen=True)
class _Recorder:
    masker: Any
    seen: list[Masks]

    def check(self, grid: Grid) -> None:
        self.masker.check(grid)

    def __call__(self, grid: Grid, batch: int, rng: Rng) -> Masks:
        self.seen.append(self.masker(grid, batch, rng))
        return self.seen[-1]


def require(holds: bool, sentence: str) -> None:
    """Raises AssertionError with `sentence` unless `holds`."""
    if not holds:
        raise AssertionError(sentence)


def _draws_vary(case: Case) -> bool:
    method: Any = case.build()
    grid = method.encoder.grid
    draws = [[masker(grid, BATCH_SIZE, Rng(0, step=step)) for masker in case.maskers] for step in range(4)]
    return any(not torch.equal(a.context, b.context) for d in draws[1:] for a, b in zip(draws[0], d, strict=True))


def _visible_pixels(kept: Int[Tensor, "b k"], grid: Grid, size: Size) -> Bool[Tensor, "b 1 ..."]:
    """True if a pixel belongs to a kept patch."""
    mask = torch.zeros(len(kept), prod(grid), dtype=torch.bool).scatter_(1, kept, True)
    mask = mask.reshape(-1, 1, *grid)
    for axis, (cells, length) in enumerate(zip(grid, size, strict=True)):
        mask = mask.repeat_interleave(length // cells, dim=axis + 2)
    return mask


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def _global_state() -> tuple[object, ...]:
    # Python's own state is varied, not compared: run-time annotation checkers such as beartype draw from it.
    numpy = np.random.get_state(legacy=False)["state"]
    return numpy["key"].tolist(), numpy["pos"], torch.get_rng_state().tolist()


@torch.no_grad()
def _mean_loss(case: Case, method: Method) -> float:
    losses = [method(case.batch, Rng(1, step=step)).total for step in range(4)]
    return float(torch.stack(losses).mean())


@torch.no_grad()
def _token_rank(method: Method, batch: Batch) -> float:
    return effective_rank(method.encode(batch).flatten(0, 1))


@torch.no_grad()
def _spread_over_samples(method: Method, batch: Batch) -> float:
    """Spread over samples at each position; zero for a representation that encodes only positions."""
    return float(method.encode(batch).std(0).mean())
