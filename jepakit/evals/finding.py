"""What probes find: whether an encoder is clearly better than its baselines, not clearly better, or clearly worse.

This is the only place with that rule; the page, the command line, comparisons and the API read it from here. It needs
nothing but the content of evals/*.json: `value`, `low`, `high`, the baselines `random_init` and `raw` with their own
intervals under `baselines` (a baseline without one counts as a point), `lower_is_better`, and `leading`, which says of
each of several results of one kind whether it decides. A result whose value is below its own `notes.least` qualifies
the finding of its kind: what `notes.factor` names is unknown, such as the door to a model that follows the dot alone.

    clearly better    than every baseline: the intervals are apart
    clearly worse     than at least one baseline: the intervals are apart
    not clearly better   otherwise
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

Outcome = Literal["better", "unclear", "worse"]
Result = Mapping[str, Any]

BASELINE_NAMES: Final = {"random_init": "untrained encoder", "raw": "raw input"}
OUTCOME_WORDS: Final[Mapping[Outcome, str]] = {
    "better": "clearly better",
    "unclear": "not clearly better",
    "worse": "clearly worse",
}
ADVICE: Final[Mapping[Outcome, str]] = {
    "better": "",
    "unclear": "train for more steps or on more data",
    "worse": "try another method, more --steps, or a pretrained encoder",
}
GRAVITY: Final[tuple[Outcome, ...]] = ("better", "unclear", "worse")
SAME_DATA: Final = "the test data are the training data"
UNKNOWN_ADVICE: Final = (
    "train for longer, or raise the weights against collapse; plans cannot reckon with what a model does not know"
)
LEADING_KINDS: Final = ("linear", "attentive", "knn")  # the first that a run has decides; then any other


class Finding(NamedTuple):
    """What a run's probes found: the `outcome` of the leading `kind`, and the baselines that it is about.

    Those are all known baselines if the encoder is clearly better, else those that it is worse, or not better, than.
    `also_worse` names the other kinds that are clearly worse than a baseline. `seen`: training saw what was scored.
    `unknown` is what the leading kind knows least, if that is too little, and `unknown_value` how well it knows it.
    """

    kind: str
    outcome: Outcome
    baselines: tuple[str, ...]
    also_worse: tuple[str, ...] = ()
    seen: bool = False
    unknown: str = ""
    unknown_value: float = 0.0

    @property
    def words(self) -> str:
        """The outcome in words, such as "clearly worse", or "clearly better, door unknown"."""
        return OUTCOME_WORDS[self.outcome] + (f", {self.unknown} unknown" if self.unknown else "")

    @property
    def advice(self) -> str:
        """What to do about it; "" if nothing."""
        if self.unknown and self.outcome == "better" and not self.also_worse:
            return UNKNOWN_ADVICE
        return ADVICE["worse" if self.also_worse and self.outcome != "worse" else self.outcome]

    def to_json(self) -> dict[str, str]:
        """The outcome, the sentence and the advice, as an API result."""
        return {"outcome": self.outcome, "sentence": str(self), "advice": self.advice}

    def __str__(self) -> str:
        others = f", and {' and '.join(self.also_worse)} clearly worse than a baseline" if self.also_worse else ""
        both = self.outcome == "better" and len(self.baselines) == 2
        against = "both baselines" if both else " and ".join(f"the {name}" for name in self.baselines)
        where = " on samples seen in training" if self.seen else ""
        missing = f", but {self.unknown} is unknown to it (R² {self.unknown_value:.2f})" if self.unknown else ""
        return f"{self.kind} is {OUTCOME_WORDS[self.outcome]} than {against}{where}{others}{missing}"


def read_finding(paths: Sequence[Path]) -> Finding | None:
    """What the probes saved in these evals/*.json files found."""
    return run_finding(json.loads(path.read_text()) for path in paths)


def run_finding(results: Iterable[Result]) -> Finding | None:
    """What the probes of a run found at its newest probed step; None if no score stands beside a baseline.

    A score on the training data themselves does not count.
    """
    ranked = _ranked_results(results)
    if not ranked:
        return None
    leading = ranked[0][1]
    worse = {f.kind for _, f in ranked if f.outcome == "worse"} - {leading.kind}
    unknown, value = least_known([result for result, f in ranked if f.kind == leading.kind])
    return leading._replace(also_worse=tuple(sorted(worse)), unknown=unknown, unknown_value=value)


def least_known(results: Iterable[Result]) -> tuple[str, float]:
    """What is known least of all that is known too little, and how well; "" if there is none."""
    found = []
    for result in results:
        notes, value = result.get("notes") or {}, finite_number(result.get("value"))
        least = finite_number(notes.get("least"))
        if value is not None and least is not None and value < least:
            found.append((value, str(notes.get("factor") or result.get("name") or result.get("metric"))))
    value, name = min(found, default=(0.0, ""))
    return name, value


def leading_result(results: Iterable[Result]) -> Result | None:
    """The result that `run_finding` is about."""
    ranked = _ranked_results(results)
    return ranked[0][0] if ranked else None


def _ranked_results(results: Iterable[Result]) -> list[tuple[Result, Finding]]:
    """The results of the newest step that say something, the leading one first: by kind, its leading one, gravity."""
    found = [(r, f) for r in results if not _is_on_training_data(r) and (f := probe_finding(r)) is not None]
    newest = max((r.get("step") or 0 for r, _ in found), default=0)

    def rank(pair: tuple[Result, Finding]) -> tuple[int, str, bool, int]:
        kind = pair[1].kind
        place = LEADING_KINDS.index(kind) if kind in LEADING_KINDS else len(LEADING_KINDS)
        return place, kind, not pair[0].get("leading", True), -GRAVITY.index(pair[1].outcome)

    return sorted(((r, f) for r, f in found if (r.get("step") or 0) == newest), key=rank)


def probe_finding(result: Result) -> Finding | None:
    """What one probe found; None if it has no score or no baseline."""
    value, kind = finite_number(result.get("value")), str(result.get("kind") or "probe")
    known = {name: r for name, r in ((n, _range(result, n)) for n in BASELINE_NAMES) if r is not None}
    if value is None or not known:
        return None
    low, high = (finite_number(result.get(key)) for key in ("low", "high"))
    own = (value if low is None else low, value if high is None else high)
    if result.get("lower_is_better"):
        own, known = _mirrored(own), {name: _mirrored(r) for name, r in known.items()}
    ahead = [name for name, r in known.items() if own[0] > r[1]]
    behind = [name for name, r in known.items() if own[1] < r[0]]
    outcome: Outcome = "worse" if behind else "better" if len(ahead) == len(known) else "unclear"
    about = behind or [name for name in known if outcome == "better" or name not in ahead]
    return Finding(kind, outcome, tuple(BASELINE_NAMES[name] for name in about), seen=bool(result.get("seen")))


def _range(result: Result, name: str) -> tuple[float, float] | None:
    """The interval of a baseline, its value twice if it has none; None if the baseline is unknown."""
    value = finite_number(result.get(name))
    if value is None:
        return None
    stored = (result.get("baselines") or {}).get(name) or {}
    low, high = (finite_number(stored.get(key)) for key in ("low", "high"))
    return (value if low is None else low, value if high is None else high)


def _mirrored(ends: tuple[float, float]) -> tuple[float, float]:
    return -ends[1], -ends[0]


def _is_on_training_data(result: Result) -> bool:
    """Whether the readers were scored on the very samples that they were fitted to."""
    return str((result.get("notes") or {}).get("warning", "")).startswith(SAME_DATA)


def finite_number(value: Any) -> float | None:
    """A finite number from JSON, None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
