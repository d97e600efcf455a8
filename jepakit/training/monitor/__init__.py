"""Monitors a run: measures the same samples at intervals and derives the verdict.

The samples are drawn once, from held-out data if there are any, and are never augmented. Their number is fixed, because
ranks and spectra of different numbers of samples cannot be compared. Cheap measures, which need one encoding, are taken
at every observation. Costly measures, which need several views or pairs, are taken every `views_every` steps and at the
last step.
"""

from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from ... import collapse
from ...methods.base import Method, Weights
from ...methods.head import Head
from ...methods.masked import Masked
from ...run import write
from ...types import Batch, Terms
from ..session import Session
from . import measure, samples

MAX_TOKENS = 1024


class Monitor:
    """Measures the panel; stores the values at step 0 and all rows in `session.panel`, so that a resumed run has them.

    `last` is the complete newest row. Only the main process measures.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.settings = write.dump_settings(session.run)
        self.fresh: dict[str, Any] = {}
        self.last: dict[str, float] = {}
        self.samples = _panel_samples(session) if session.dist.main else None

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows that the verdict is based on, oldest first."""
        return self.session.panel.rows

    @property
    def verdict(self) -> collapse.Verdict:
        """The verdict on the rows so far."""
        return collapse.verdict(self.rows, self.settings)

    @cached_property
    def encoders(self) -> tuple[Weights, ...]:
        """The encoders that the method has."""
        assert self.samples is not None
        return measure.distinct_encoders(self.session.method, self.samples.batch)

    def observe(self, terms: Terms | None = None, last: bool = False) -> None:
        """Measure the samples; at step 0, which has no loss terms, store the values to compare with."""
        if self.samples is None:
            return
        if isinstance(self.session.method, Head):
            # A head's representations are its parent's and do not change, so only the loss can be judged.
            row = {} if terms is None else self.loss(terms)
            self.session.panel.start = self.session.panel.start or {}
            self.rows.append(collapse.verdict_inputs(row))
            self.last = self.fresh = row
            return
        with measure.evaluation_mode(self.session.method):
            tokens = {
                side: measure.encode_tokens(self.session.method, self.samples.batch, side) for side in self.encoders
            }
            row = {**self._spread_row(tokens), **({} if terms is None else self.loss(terms)), **self._costly_row(last)}
        self.rows.append(collapse.verdict_inputs(row))
        self.last = row
        self.fresh = {**row, "spectrum": {k: collapse.spectrum(v.mean(1)).tolist() for k, v in tokens.items()}}

    def _spread_row(self, tokens: dict[Weights, Tensor]) -> dict[str, float]:
        panel, target, context = self.session.panel, tokens["target"], tokens.get("context")
        start = collapse.Panel(**panel.start) if panel.start is not None else collapse.start_panel(target, context)
        panel.start = asdict(start)
        return collapse.panel_row(target, context, start)

    def _costly_row(self, last: bool) -> dict[str, float]:
        """The measures of views and of pairs, if they are due."""
        loop, step = self.session.run.loop, self.session.step
        every, since = loop.views_every or 1, step - (loop.panel_every or 1)
        if not last and (step == 0 or step // every == max(since, 0) // every):
            return {}
        method, (x, y) = self.session.method, self._energy_pairs
        views = measure.picture_views(method, self._augmented_views) if self._augmented_views is not None else None
        if views is None and isinstance(method, Masked):
            views = measure.masked_views(method, x.x[: measure.MAX_LIDAR_SAMPLES])
        found = {} if views is None or len(views) < 2 else measure.view_measures(views)
        if type(method).energy is not Method.energy and len(x) > 1:
            with torch.autocast(self.session.dist.device.type, torch.bfloat16, enabled=bool(loop.amp)):
                found |= measure.energy_measures(method, x, y)
        return found

    @cached_property
    def _augmented_views(self) -> Shaped[Tensor, "n q c ..."] | None:
        """Augmented pictures of samples, for a method that compares views; None for a method that masks."""
        assert self.samples is not None
        run, method = self.session.run, self.session.method
        if isinstance(method, Masked) or not run.data.augment.changes:
            return None
        n = min(measure.MAX_LIDAR_SAMPLES, len(self.samples.batch))
        return samples.view_samples(self.samples.dataset, method.signal, n, measure.NUM_VIEWS)

    @property
    def _energy_pairs(self) -> tuple[Batch, Batch]:
        """Samples x and the matching y: another view, or the same sample under a mask."""
        assert self.samples is not None
        if self._augmented_views is None:
            return self.samples.batch, self.samples.batch
        return Batch(self._augmented_views[:, 0]), Batch(self._augmented_views[:, 1])

    def loss(self, terms: Terms) -> dict[str, float]:
        """The normalised loss of a step, from up to 1,024 of its tokens, and its ratio to a chance prediction's."""
        if terms.compared is None:
            return {}
        pred, target = terms.compared
        rows = collapse.row_sample(len(pred), MAX_TOKENS).to(pred.device)
        over_constant = collapse.normalized_loss(pred[rows], target[rows], self.session.method.distance)
        return {"normalized_loss": over_constant / self.session.method.chance_loss}

    def said(self) -> dict[str, float]:
        """The method's own diagnostics, from its parameters and some of the samples."""
        assert self.samples is not None
        with measure.evaluation_mode(self.session.method):
            return measure.method_diagnostics(self.session.method, self.samples.batch)

    def take(self) -> dict[str, Any]:
        """The measures not yet reported in a row; clears them."""
        fresh, self.fresh = self.fresh, {}
        return fresh


def _panel_samples(session: Session) -> samples.Samples:
    # Ranks of a different number of samples cannot be compared with the existing rows.
    session.panel.size = session.panel.size or session.run.loop.panel_size or 2
    method, size = session.method, session.panel.size
    return samples.choose_samples(session.run.data, session.dataset, method.signal, size, method.patch_steps)
