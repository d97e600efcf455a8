"""The test case of the method contract: a method, a signal and a learnable batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.nn.functional import one_hot

from .. import methods
from ..masks.base import Masker
from ..methods.base import Method
from ..methods.head import Head
from ..types import ActionSpec, Batch, Rng, Signal

BATCH_SIZE: Final = 8
LEARNING_RATE: Final = 3e-3
SIGNALS: Final = (
    Signal(channels=3, size=(16, 16), mean=(0.4, 0.5, 0.6), std=(0.3, 0.25, 0.2)),
    Signal(channels=2, size=(4, 8, 8), mean=(0.4, 0.5), std=(0.3, 0.25)),
    Signal(channels=2, size=(32,), mean=(0.4, 0.6), std=(0.3, 0.2)),
)


@dataclass(frozen=True)
class Case:
    """One method on one signal, with a batch."""

    method: type[Method]
    signal: Signal
    batch: Batch

    @property
    def cfg(self) -> Any:
        """The method's own smallest configuration for the signal."""
        return self.method.Config.tiny(self.signal)

    def build(
        self, seed: int = 0, cfg: Any = None, signal: Signal | None = None, parents: Sequence[Method] = ()
    ) -> Method:
        """The method with weights drawn from `seed`; the global random state is restored afterwards.

        A head is built over `parents`, by default over `parents_for` the signal.
        """
        cfg, signal = self.cfg if cfg is None else cfg, signal or self.signal
        below = [parents or parents_for(self.method, signal)] if issubclass(self.method, Head) else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.method(cfg, signal, *below)

    def steps(self, method: Method, count: int) -> Iterator[int]:
        """Train on the batch, one optimiser step per item; the caller can read gradients in between."""
        optimizer = torch.optim.AdamW(
            [p for p in method.parameters() if p.requires_grad], LEARNING_RATE, weight_decay=0.0
        )
        for step in range(count):
            optimizer.zero_grad()
            method(self.batch, Rng(0, step=step)).total.backward()
            optimizer.step()
            method.after_step((step + 1) / count)
            yield step

    @property
    def maskers(self) -> tuple[Masker, ...]:
        """The maskers of the configuration: those of a masked method, or of a head that hides parts of its input."""
        return tuple(vars(self.cfg).get("masks", ()))


def parents_for(head: type[Head], signal: Signal) -> tuple[Method, ...]:
    """The parents of a head: for each of its `Parents` a small untrained method of that class, always the same.

    Raises ValueError if no method of that class accepts the signal.
    """
    return tuple(_build_untrained(_of_kind(kind, signal), signal, seed) for seed, kind in enumerate(head.Parents))


def _of_kind(kind: type[Method], signal: Signal) -> type[Method]:
    """The class itself if it has its own settings, else the first built-in method of that class."""
    if "Config" in vars(kind):
        return kind
    heads = issubclass(kind, Head)
    ours = [methods.load(name).Method for name, place in methods.METHODS.places().items() if not place.owner]
    for found in ours:
        if issubclass(found, kind) and issubclass(found, Head) == heads and found.needs <= signal.has:
            return found
    raise ValueError(
        f"no {kind.__name__} to stand on takes a signal of size {signal.size} with "
        f"{', '.join(sorted(signal.has)) or 'x only'}; say in needs what the parents need"
    )


def _build_untrained(kind: type[Method], signal: Signal, seed: int) -> Method:
    below = parents_for(kind, signal) if issubclass(kind, Head) else ()
    return methods.build(kind.Config.tiny(signal), signal, seed, below)


def variants() -> tuple[Signal, ...]:
    """Image, video and series signals, each plain and with everything that a batch of that kind may carry."""
    full = tuple(replace(s, views=2, classes=2, action=ActionSpec(2) if "time" in s.has else None) for s in SIGNALS)
    return (*SIGNALS, *full)


def example(signal: Signal, batch: int = BATCH_SIZE) -> Batch:
    """A batch of smooth waves, (B, C, *size) in [0, 1]: the visible part determines the hidden part.

    Where there are actions, the reward of a step is the mean value of the next frame, and a high one ends the episode.
    """
    generator = Rng(0).fork("example").generator()
    rank = len(signal.size)
    axes = torch.meshgrid(*[torch.linspace(0, 1, n) for n in signal.size], indexing="ij")
    speed = 4 * torch.rand(batch, signal.channels, rank, *[1] * rank, generator=generator)
    phase = 6 * torch.rand(batch, signal.channels, *[1] * rank, generator=generator)
    x = 0.5 + 0.5 * torch.sin(phase + (speed * torch.stack(axes)).sum(2))
    noise = 0.05 * torch.randn(batch, signal.views, *x.shape[1:], generator=generator)
    actions = (batch, signal.size[0] - 1, signal.action_size)
    action = torch.randn(*actions, generator=generator) if signal.action else None
    if signal.action is not None and signal.action.discrete and action is not None:
        action = one_hot(action.argmax(-1), signal.action.size).float()
    later = x[:, :, 1:].movedim(2, 1).flatten(2).mean(2) if action is not None else None
    return Batch(
        x=x,
        views=((x[:, None] + noise).clamp(0, 1),) if signal.views else (),
        action=action,
        reward=later,
        done=None if later is None else later > 0.6,
        label=torch.arange(batch) % signal.classes if signal.classes else None,
        id=torch.arange(batch),
    )
