"""Chooses the simplest candidate whose errors, on windows that the encoder never saw, are the lowest within noise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from .candidates import Candidate
from .unseen import Judged

WORDS = {
    "last-value": "repeating the last value",
    "last-season": "repeating the last season",
    "linear": "a linear model of the values",
    "linear-per-channel": "a linear model of each channel's values",
    "linear-level": "a linear model of the values and their level",
}
MIN_INDEPENDENT = 4
"""The fewest independent forecasts whose spread says how uncertain a mean is."""


class Comparison(NamedTuple):
    """Candidates beside each other: the squared errors (N,) of each.

    They are means over channels and steps, at the model's normalisation. The simplest candidate is the first.
    """

    candidates: Sequence[Candidate]
    squared: Mapping[str, Float64[np.ndarray, " n"]]
    independent: float

    @property
    def errors(self) -> dict[str, float]:
        """The mean squared error of every candidate."""
        return {name: float(squared.mean()) for name, squared in self.squared.items()}

    def is_tied(self, name: str, other: str) -> bool:
        """Whether `name` is at most one standard error of the difference worse than `other`.

        Fewer than MIN_INDEPENDENT forecasts give no standard error, so there the lower error counts.
        """
        if self.independent < MIN_INDEPENDENT:
            return self.errors[name] <= self.errors[other]
        difference = self.squared[name] - self.squared[other]
        return bool(difference.mean() <= difference.std() / np.sqrt(self.independent))

    @property
    def choice(self) -> Candidate:
        """The simplest candidate that is as good as the best within noise."""
        best = min(self.errors, key=self.errors.__getitem__)
        return next(one for one in self.candidates if self.is_tied(one.name, best))

    @property
    def encoder_sentence(self) -> str:
        """A sentence if the encoder adds nothing; else empty."""
        choice = self.choice
        if choice.encoder:
            return ""
        readers = {one.name: self.errors[one.name] for one in self.candidates if one.encoder}
        best = min(readers, key=readers.__getitem__)
        verb = "as good within one standard error" if self.is_tied(best, choice.name) else "better"
        return f"the encoder adds nothing here: {WORDS[choice.name]} is {verb}"

    @property
    def caution(self) -> str:
        """A sentence if too few independent forecasts were judged; else empty."""
        if self.independent >= MIN_INDEPENDENT:
            return ""
        return (
            f"the held-out part has room for only {self.independent:.1f} independent forecasts of this horizon, so the "
            "errors are uncertain and the lowest one decides"
        )


def compare(candidates: Sequence[Candidate], judged: Judged, std: Float64[np.ndarray, "c 1"]) -> Comparison:
    """The candidates on the same forecasts; `std` (C, 1) brings errors to the model's normalisation."""
    horizon = judged.truth.shape[2]
    # One candidate's forecasts at a time: those of all would take gigabytes for hundreds of channels.
    squared = {
        one.name: np.square((one.forecast(judged.past, horizon) - judged.truth) / std).mean((1, 2))
        for one in candidates
    }
    return Comparison(candidates, squared, judged.independent)
