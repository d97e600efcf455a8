"""Monitors a run: measures the same samples at intervals and derives the verdict.

The samples are drawn once, from held-out data if there are any, and are never augmented. Their number is fixed, because
ranks and spectra of different numbers of samples cannot be compared. Cheap measures, which need one encoding, are taken
at every observation. Costly measures, which need several views or pairs, are taken every `views_every` steps and at the
last step.
"""

from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ... import collapse
from ...core import distributed
from ...core.words import count_text
from ...methods.base import Method, Weights
from ...methods.head import Head
from ...methods.masked import Masked
from ...methods.predictive import Predictive
from ...run import intervals, write
from ...run.settings import Loop
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
        """The verdict on the rows so far; where it is unknown and will stay so, it says that the run is too short."""
        found, steps = collapse.verdict(self.rows, self.settings), self.session.steps
        if found.name != "unknown" or not intervals.is_too_short(steps, self.session.run.loop.panel_every or 1):
            return found
        short = f"a run of {count_text(steps, 'step')} is too short to judge: {found.reason}"
        return replace(found, reason=short, advice="give more --steps")

    @cached_property
    def encoders(self) -> tuple[Weights, ...]:
        """The encoders that the method has."""
        assert self.samples is not None
        return measure.distinct_encoders(self.session.method, self.samples.batch)

    def observe(self, terms: Terms | None = None, last: bool = False) -> None:
        """Measure the samples; at step 0, where there are no terms yet, keep what to compare with.

        Every rank calls it, as the loss is that of the whole global batch.
        """
        loss = {} if terms is None else self.loss(terms)
        if self.samples is None:
            return
        if isinstance(self.session.method, Head):
            # Its representations are its parent's, which stay what they are: there is the loss alone to judge.
            self.session.panel.start = self.session.panel.start or {}
            self.rows.append(collapse.verdict_inputs(loss))
            self.last = self.fresh = loss
            return
        with measure.evaluation_mode(self.session.method):
            tokens = {
                side: measure.encode_tokens(self.session.method, self.samples.batch, side) for side in self.encoders
            }
            row = {**self._spread_row(tokens), **loss, **self._dynamics_row(), **self._costly_row(last)}
        self.rows.append(collapse.verdict_inputs(row))
        self.last = row
        self.fresh = {**row, "spectrum": {k: collapse.spectrum(v.mean(1)).tolist() for k, v in tokens.items()}}

    def _spread_row(self, tokens: dict[Weights, Tensor]) -> dict[str, float]:
        panel, target, context = self.session.panel, tokens["target"], tokens.get("context")
        start = collapse.Panel(**panel.start) if panel.start is not None else collapse.start_panel(target, context)
        panel.start = asdict(start)
        return collapse.panel_row(target, context, start)

    def _dynamics_row(self) -> dict[str, float]:
        """What a world model says of its latents over time and of its actions, for the verdict."""
        method = self.session.method
        if not isinstance(method, Predictive) or not method.judges_dynamics:
            return {}
        return {key: value for key, value in self.said().items() if key in collapse.DYNAMICS_KEYS}

    def _costly_row(self, last: bool) -> dict[str, float]:
        """Of views and of pairs, where it is time for them."""
        loop = self.session.run.loop
        if not last and not are_views_due(self.session.step, loop):
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
        """The normalised loss of a step, from up to 1,024 tokens of all ranks, and over that of a chance prediction.

        Every rank calls it and gets the same.
        """
        if terms.compared is None:
            return {}
        pred, target = _compared_rows(*terms.compared)
        over_constant = collapse.normalized_loss(pred, target, self.session.method.distance)
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


def are_views_due(step: int, loop: Loop) -> bool:
    """Whether the row of a step has the numbers of views: the first row after every `views_every`-th step."""
    every, since = loop.views_every or 1, step - (loop.panel_every or 1)
    return step > 0 and step // every != max(since, 0) // every


def _compared_rows(
    pred: Float[Tensor, "... d"], target: Float[Tensor, "... d"]
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    """Up to MAX_TOKENS rows of the predictions and targets of all ranks, the same on every rank."""
    pred, target = pred.reshape(-1, pred.shape[-1]), target.reshape(-1, target.shape[-1])
    counts = distributed.rank_counts(len(pred), pred.device)
    rows = collapse.row_sample(sum(counts), MAX_TOKENS) - sum(counts[: distributed.process_rank()])
    own = (rows >= 0) & (rows < len(pred))
    picked = rows[own].to(pred.device)
    return distributed.gather_rows(pred[picked], own), distributed.gather_rows(target[picked], own)


def _panel_samples(session: Session) -> samples.Samples:
    # Ranks of a different number of samples cannot be compared with the existing rows.
    session.panel.size = session.panel.size or session.run.loop.panel_size or 2
    method, size = session.method, session.panel.size
    seen = session.test_part_seen
    return samples.choose_samples(session.run.data, session.dataset, method.signal, size, method.patch_steps, seen)
