"""Keeps the means over the steps since the last row, and the newest predictions."""

from collections import deque
from typing import Final

import torch
from torch import Tensor

from ...types import Terms

MAX_STEPS: Final = 256  # steps whose predictions enter the normalised loss …
MAX_TOKENS: Final = 16  # … and tokens of each


class Recent:
    """Running means since the last row, and the predictions of the last MAX_STEPS steps."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=MAX_STEPS)

    def add_step(self, terms: Terms) -> None:
        """Add a step."""
        assert terms.compared is not None
        self.count += 1
        for name, value in (("loss", float(terms.loss["prediction"])), *((k, float(v)) for k, v in terms.log.items())):
            self.sums[name] = self.sums.get(name, 0.0) + value
        pred, target = terms.compared
        stride = -(-len(pred) // MAX_TOKENS)
        self.pairs.append((pred[::stride], target[::stride]))

    def mean_terms(self) -> Terms:
        """The means, and the newest predictions with their targets."""
        means = {name: torch.tensor(value / max(self.count, 1)) for name, value in self.sums.items()}
        loss = means.pop("loss", torch.tensor(torch.nan))
        pred, target = (torch.cat(side) for side in zip(*self.pairs, strict=True))
        return Terms({"prediction": loss}, means, (pred, target))

    def clear(self) -> None:
        """Start new means."""
        self.sums, self.count = {}, 0
