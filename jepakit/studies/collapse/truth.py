"""Determines the true outcome of a training from checkpoints and held-out labels, without the collapse panel."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...core.statistics import wilson_interval
from ...evals import Features
from ...evals.kinds import linear
from ...methods.base import Method
from ...run import checkpoint
from ...training.monitor import measure, samples
from ...types import Batch, Rng

NUM_PICTURES: Final = 2000  # the most held-out pictures: a linear probe is fitted to one half and scored on the other
VARIANCE_PICTURES: Final = 256  # how many of the last pictures are used to follow the variance over the run
LOST_VARIANCE_SHARE: Final = 0.01  # a share of the variance at step 0: below it, under a tenth of the spread is left
NO_CHANGE_SHARE: Final = 0.01  # a share of the variance at step 0: a smaller mean squared change counts as none


@dataclass(frozen=True)
class Truth:
    """A run's linear probe before and after training, and the variance of its target features over the run.

    The probes are accuracies over `scored` pictures. `variance` is relative to step 0, one number for each of `steps`;
    `change` is the mean squared change of a feature from the first to the last step, in the same unit.
    """

    untrained: float
    trained: float
    scored: int
    change: float
    steps: tuple[int, ...]
    variance: tuple[float, ...]

    @property
    def collapse_onset(self) -> float | None:
        """The moment, in % of the run, from which the variance stays below the collapse limit, or None."""
        return lasting_onset(self.steps, self.variance, LOST_VARIANCE_SHARE)

    @property
    def worse(self) -> bool:
        """Whether the trained encoder's probe is below the untrained encoder's, with separate 95 % intervals."""
        return is_below(self.trained, self.untrained, self.scored)


def lasting_onset(steps: tuple[int, ...], values: tuple[float, ...], limit: float) -> float | None:
    """The first step from which all values are below `limit`, in % of the last step; None if the last value is not."""
    low = [value < limit for value in values]
    if not low[-1]:
        return None
    first = max((k + 1 for k, is_low in enumerate(low) if not is_low), default=0)
    return 100 * steps[first] / steps[-1]


def is_below(share: float, other: float, n: int) -> bool:
    """Whether a proportion of `n` is below another, with separate 95 % intervals."""
    return wilson_interval(round(share * n), n)[1] < wilson_interval(round(other * n), n)[0]


def read_truth(run: Path) -> Truth:
    """The true outcome of the run in a folder that keeps all its checkpoints, including step 0.

    The pictures come from the part that `data.split` train leaves out; the panel may use some of them too. Raises
    ValueError if there is no such part.
    """
    loaded = checkpoint.load_run(run)
    x, y = held_out(loaded)
    steps, method = checkpoint.saved_steps(run), loaded.method
    features = {
        step: pooled_tokens(run, step, method, x if step in (steps[0], steps[-1]) else x[-VARIANCE_PICTURES:])
        for step in steps
    }
    first, last = features[steps[0]], features[steps[-1]]
    spread = {step: float(s[-VARIANCE_PICTURES:].var(0, correction=0).mean()) for step, s in features.items()}
    start = spread[steps[0]] or inf
    change = float((last - first)[-VARIANCE_PICTURES:].square().mean()) / start
    variance = tuple(spread[step] / start for step in steps)
    return Truth(
        probe_accuracy(first, y), probe_accuracy(last, y), len(y) - len(y) // 2, change, tuple(steps), variance
    )


def held_out(loaded: checkpoint.LoadedRun) -> tuple[Shaped[Tensor, "n c ..."], Int64[np.ndarray, " n"]]:
    """Up to NUM_PICTURES held-out pictures, the same for every run on these data, and their labels."""
    dataset, why = samples.test_part(loaded.run.data, loaded.method.signal)
    if dataset is None:
        raise ValueError(f"the truth about a run needs pictures that it did not see: {why}")
    order = torch.randperm(len(dataset), generator=Rng(0).fork("study", "truth").generator()).numpy()
    found = dataset.read(order[:NUM_PICTURES], loaded.method.signal.size)
    return found.batch().x, np.array([dataset.label(int(i)) for i in found.id], dtype=np.int64)


def pooled_tokens(run: Path, step: int, method: Method, x: Shaped[Tensor, "n c ..."]) -> Float[Tensor, "n d"]:
    """The mean token of every picture, computed by the target encoder of the checkpoint at `step`."""
    checkpoint.load_tensors(method, checkpoint.load_checkpoint(run, step).model, f"{run} at step {step}")
    with measure.evaluation_mode(method):
        return measure.encode_tokens(method, Batch(x), "target").mean(1)


def probe_accuracy(s: Float[Tensor, "n d"], y: Int64[np.ndarray, " n"]) -> float:
    """The accuracy, on the second half of the features, of a linear probe fitted to the first half."""
    ids = np.arange(len(y))
    features, second = Features(s.numpy(), y, ids), ids >= len(y) // 2
    fit, scored = features.where(~second), features.where(second)
    return float(dict(linear.evaluate(fit, scored, linear.Config()))["value"])  # type: ignore[arg-type]
