"""Watches a run: encodes the same samples from time to time, and keeps the verdict.

The samples are drawn once from the data, are never augmented, and their number is fixed, because ranks and spectra of
different numbers of samples cannot be compared.
"""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from . import collapse
from .data import sample
from .data.base import unit
from .session import Session
from .types import Terms

CHUNK = 128
TOKENS = 4096


class Monitor:
    """Keeps its memory, the values at step 0 and the rows so far, in `session.panel`, so that a resumed run has it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rows: list[dict[str, float]] = session.panel.setdefault("rows", [])
        self.fresh: dict[str, Any] = {}
        self.x = (
            sample(session.dataset, session.method.signal, session.run.loop.panel_size) if session.dist.main else None
        )

    @property
    def verdict(self) -> collapse.Verdict:
        """The verdict on the rows so far."""
        return collapse.verdict(self.rows)

    def observe(self, terms: Terms | None = None) -> None:
        """Measure both encoders on the samples; at step 0, where there are no terms yet, keep what to compare with."""
        if self.x is None:
            return
        target, context = self.encode("target"), self.encode("context")
        panel = self.session.panel
        start = collapse.Panel(**panel["start"]) if "start" in panel else collapse.start(target, context)
        panel["start"] = asdict(start)
        row = collapse.panel(target, context, start)
        self.rows.append(row if terms is None else {**row, **self.loss(terms)})
        spectra = {"target": target, "context": context}
        self.fresh = {**row, "spectrum": {k: collapse.spectrum(v.mean(1)).tolist() for k, v in spectra.items()}}

    def loss(self, terms: Terms) -> dict[str, float]:
        """The normalised loss of a step, from up to 4,096 of its tokens."""
        if terms.pred is None or terms.target is None:
            return {}
        method = self.session.method
        stride = max(1, len(terms.pred) // TOKENS)
        target = method.compared(terms.target[::stride])
        return {"normalized_loss": collapse.normalized_loss(terms.pred[::stride], target, method.distance)}

    def take(self) -> dict[str, Any]:
        """The verdict, and the measures that no row has reported yet."""
        fresh, self.fresh = self.fresh, {}
        return {**fresh, "verdict": self.verdict.name}

    @torch.inference_mode()
    def encode(self, weights: Any) -> Float[Tensor, "n t d"]:
        """Tokens of the samples, on the CPU."""
        assert self.x is not None
        method = self.session.method
        return torch.cat(
            [method.encode(unit(x).to(method.mean), weights).float().cpu() for x in torch.split(self.x, CHUNK)]
        )
