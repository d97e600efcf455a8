"""Evaluates the encoder with labels during training: kNN on a fixed set of labelled samples.

Training never sees the labels. A fifth of the samples of each class is scored, and the rest are the neighbours. If
training reads the train part, the samples come from the test part, like the panel's.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from ...data import Dataset
from ...evals import Features, held_out
from ...evals.kinds import knn
from ...methods.base import Method
from ...types import Batch, Rng
from ..session import Session
from . import measure, samples

MIN_LABELLED = 10
"""The least number of labelled samples: a fifth of fewer is too little to score."""


@dataclass(frozen=True, eq=False)
class Online:
    """Labelled samples `x` with labels `y`; the others classify those in `scored`. `note` describes them."""

    x: Shaped[Tensor, "n c ..."]
    y: Int64[np.ndarray, " n"]
    scored: Bool[np.ndarray, " n"]
    note: str

    def judge(self, method: Method) -> float:
        """The share of scored samples that kNN on the target encoder classifies correctly."""
        with measure.evaluation_mode(method):
            s = measure.encode_tokens(method, Batch(self.x), "target").mean(1)
        features = Features(s.numpy(), self.y, np.arange(len(self.y)))
        told = knn.predict_labels(features.where(~self.scored), features.x[self.scored], knn.Config())
        return float((told == self.y[self.scored]).mean())


def choose_labelled(session: Session, count: int) -> Online:
    """Up to `count` labelled samples for a session. Raises ValueError; see `check_labels`."""
    dataset, whose, known = labelled_items(session, count)
    found = dataset.read(known, session.method.signal.size)
    y, scored = split_items(dataset, found.id.numpy())
    note = f"kNN while training: {int(scored.sum())} of {len(y)} labelled samples {whose} are scored"
    return Online(found.batch().x, y, scored, note)


def check_labels(session: Session, count: int) -> None:
    """Raise ValueError if the data have no labels, or too few to score; reads no sample."""
    dataset, _, known = labelled_items(session, count)
    split_items(dataset, known)


def labelled_items(session: Session, count: int) -> tuple[Dataset, str, Int64[np.ndarray, " n"]]:
    """The data set, its description, and up to `count` labelled items spread over it, always the same ones."""
    held, _ = samples.test_part(session.run.data, session.method.signal)
    dataset, whose = (session.dataset, "of the training data") if held is None else (held, "of the test part")
    order = torch.randperm(len(dataset), generator=Rng(0).fork("data", "online").generator()).numpy()
    known = (i for i in order if dataset.label(int(i)) >= 0) if dataset.classes else ()
    return dataset, whose, np.fromiter(islice(known, count), dtype=np.int64)


def split_items(
    dataset: Dataset, ids: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The labels of items, and which items are scored. Raises ValueError if there are too few labels to score."""
    y = np.array([dataset.label(int(i)) for i in ids], dtype=np.int64)
    if len(y) < MIN_LABELLED or len(np.unique(y)) < 2:
        raise ValueError(
            f"evals.online scores with labels, but the data have only {len(y)} labelled samples of "
            f"{len(np.unique(y))} classes; give labelled data with {MIN_LABELLED} samples and 2 classes or more, or "
            "set evals.online 0"
        )
    scored = held_out([dataset.name(int(i)) for i in ids], y)
    if not scored.any():
        raise ValueError(
            f"evals.online scores a fifth of each class, but no class has two of the {len(y)} labelled samples; raise "
            "evals.online, or set it to 0"
        )
    return y, scored
