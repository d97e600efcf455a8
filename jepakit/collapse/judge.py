"""The verdict on a run from its panel rows: a state, the numbers behind it, and the setting to change.

FULL, DIMENSIONAL and FALLEN were chosen on some forced collapses and healthy runs, and tested on others (the study
`calibration`, docs/collapse-calibration.md); the other thresholds are proposals. No verdict uses labels, so it can be
wrong: only a probe can tell.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import isfinite
from statistics import fmean
from typing import Any, Final, Literal

from ..core.words import percent
from .names import measure_name

State = Literal["healthy", "drifting", "dimensional", "full", "exploding", "slow", "passive", "idle", "unknown"]
Row = Mapping[str, float]

FULL_STD_RATIO: Final = 0.1  # std below this share of its value at step 0
EXPLODING_RATIO: Final = 100.0  # std or norm above this multiple of its value at step 0
DIMENSIONAL_RANK_SHARE: Final = 0.08  # rank below this share of min(N, D) …
FALLING_RANK_RATIO: Final = 0.8  # … and below this share of its best value so far
DRIFTING_RANK_RATIO: Final = 0.7  # rank below this share of its best for PATIENCE rows, while the loss improves …
RISEN_RANK_RATIO: Final = (
    1.1  # … where best is the best rank above this multiple of the lowest before it: built by training
)
FALLEN_RANK_RATIO: Final = 0.25  # drifting too: rank below this share of step 0 for PATIENCE rows, whatever the loss
NAMED_FALL_RATIO: Final = 0.7  # a healthy run's reason names a rank at its lowest and below this share of step 0
IDLE_LOSS: Final = 0.98  # prediction loss above this share of a blind prediction's, and of its earlier value
STILL_CHANGE: Final = 0.002  # spread and rank within this share of step 0 for PATIENCE rows
PATIENCE_ROWS: Final = 3
SLOW_SPREAD: Final = 0.01  # share of the latents' variance that is over time, for PATIENCE rows …
SLOW_SPREAD_RATIO: Final = 0.2  # … and that share relative to step 0
PASSIVE_ENERGY_RATIO: Final = 0.9  # energy of the true actions above this share of that of others', for PATIENCE rows
# What a world model says of its latents and actions, among a method's own diagnostics, and a verdict reads.
DYNAMICS_KEYS: Final = ("spread/within", "actions/energy_ratio")

LOWER_LR: Final = "lower --optim.lr"
# The remedies of each state, the most promising first; those whose option the method lacks are skipped.
REMEDIES: Final[Mapping[State, tuple[str, ...]]] = {
    "exploding": (LOWER_LR, "set --optim.clip 1"),
    "full": (
        "raise --method.ema towards 1",
        "raise --method.std",
        "raise --method.weight",
        "begin with a trained encoder and set --method.below frozen",
        LOWER_LR,
    ),
    "dimensional": (
        "raise --method.ema towards 1",
        "raise --method.cov",
        "raise --method.weight",
        "lower --optim.final_weight_decay",
        "make --method.masks harder",
    ),
    "drifting": (LOWER_LR, "lower --optim.final_weight_decay", "raise --method.ema"),
    "idle": ("raise --optim.lr", "give more --steps", "lower --method.ema"),
    "slow": ("raise --method.inverse", "lower --method.temporal", "raise --method.std"),
    "passive": ("raise --method.inverse", "give more --steps"),
}


@dataclass(frozen=True)
class Verdict:
    """The state of a run, the numbers behind it, and what to change (empty if nothing should be changed)."""

    name: State
    reason: str
    advice: str = ""


def verdict(history: Sequence[Row], settings: Mapping[str, Any] | None = None) -> Verdict:
    """The state of a run from its panel rows, oldest first, each with `normalized_loss` if it is known.

    `history[0]` is the row of step 0. The verdict is "unknown" until there are two rows, and while the loss is no
    better than a constant prediction's but either still falls or is known for fewer than twice PATIENCE rows. The
    gravest state that applies is returned: exploding, full, dimensional, slow, passive, drifting, idle, else healthy.
    A world model is slow if its latents show only what does not move, and passive if actions do not influence what it
    predicts. `settings` is the run's nested config: advice names only options that it has.
    """
    if len(history) < 2:
        return Verdict("unknown", f"there are {len(history)} of the 2 panel rows that a verdict needs")
    checks = (
        _check_exploding,
        _check_constant,
        _check_full,
        _check_dimensional,
        _check_slow,
        _check_passive,
        _check_drifting,
        _check_idle,
        _check_still,
    )
    found = (check(history, side) for check in checks for side in ("target", "context"))
    verdict = next((v for v in found if v is not None), _healthy_verdict(history))
    return verdict if verdict.advice else Verdict(verdict.name, verdict.reason, advise(verdict.name, settings))


def advise(state: State, settings: Mapping[str, Any] | None = None) -> str:
    """The two most promising remedies for a state whose options are in `settings` (None: any option); "" if none."""
    fitting = [
        text for text in REMEDIES.get(state, ()) if all(_has_option(settings, key) for key in _option_names(text))
    ]
    return ", or ".join(fitting[:2])


def is_constant(first: Row) -> bool:
    """Whether an encoder gave all samples the same vector at step 0, before any training setting could cause it."""
    return any(first.get(f"std_ratio_{side}", 1.0) <= 0 for side in ("target", "context"))


def verdict_inputs(row: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a panel row that a verdict reads, and any number that is not finite."""
    read = ("std_ratio_", "norm_ratio_", "rank_share_", "rank_target", "rank_context", "normalized_loss")
    numbers = {key: float(value) for key, value in row.items() if isinstance(value, (int, float))}
    return {
        key: value for key, value in numbers.items() if key.startswith((*read, *DYNAMICS_KEYS)) or not isfinite(value)
    }


def _option_names(text: str) -> list[str]:
    return re.findall(r"--([\w.]+\w)", text)


def _has_option(settings: Mapping[str, Any] | None, key: str) -> bool:
    node: Any = settings
    for part in key.split("."):
        if node is None:
            return True
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _check_exploding(history: Sequence[Row], side: str) -> Verdict | None:
    last = history[-1]
    wild = next((k for k, v in last.items() if not isfinite(v)), "")
    if wild:
        return Verdict("exploding", f"{measure_name(wild)} is {last[wild]}")
    # Norms as well as spread: if all samples move away together, the spread stays small.
    ratios = {what: last.get(f"{what}_ratio_{side}", 1.0) for what in ("std", "norm")}
    what = max(ratios, key=ratios.__getitem__)
    if ratios[what] <= EXPLODING_RATIO:
        return None
    return Verdict("exploding", f"{side} {what} is {ratios[what]:.3g} times its value at step 0")


def _check_constant(history: Sequence[Row], side: str) -> Verdict | None:
    if history[0].get(f"std_ratio_{side}", 1.0) > 0:
        return None
    advice = "look at the data with `jepa check-data`: to the untrained encoder all samples are the same"
    return Verdict("full", f"{side} std is already 0 at step 0, before any training", advice)


def _check_full(history: Sequence[Row], side: str) -> Verdict | None:
    ratio = history[-1].get(f"std_ratio_{side}", 1.0)
    return Verdict("full", std_sentence(side, ratio, 2)) if ratio < FULL_STD_RATIO else None


def _check_dimensional(history: Sequence[Row], side: str) -> Verdict | None:
    share = history[-1].get(f"rank_share_{side}", 1.0)
    best = max(_values_of(history, f"rank_share_{side}"), default=share)
    if share >= DIMENSIONAL_RANK_SHARE or share >= FALLING_RANK_RATIO * best:
        return None
    return Verdict("dimensional", f"{_rank_sentence(side, share)}, down from {percent(best, 1)}")


def _check_slow(history: Sequence[Row], side: str) -> Verdict | None:
    """Slow features: for PATIENCE rows, or all after the first, what is left of the variance over time is little."""
    shares = _values_of(history, "spread/within")
    if side != "target" or len(shares) < 2 or "spread/within" not in history[0]:
        return None
    highest = max(shares[1:][-PATIENCE_ROWS:])
    if highest >= min(SLOW_SPREAD, SLOW_SPREAD_RATIO * shares[0]):
        return None
    return Verdict(
        "slow",
        f"{percent(shares[-1], 1)} of the latents' variance is over time, down from {percent(shares[0], 1)} at step 0: "
        "they show what stands still",
    )


def _check_passive(history: Sequence[Row], side: str) -> Verdict | None:
    ratios = _values_of(history, "actions/energy_ratio")[1:]  # an untrained predictor knows no action
    last = ratios[-PATIENCE_ROWS:]
    if side != "target" or not last or min(last) < PASSIVE_ENERGY_RATIO:
        return None
    reason = f"the energy of the true actions is {percent(last[-1], 1)} of that of other samples' actions"
    if len(last) < PATIENCE_ROWS:
        return Verdict("unknown", f"{reason}, measured in {len(last)} of the {PATIENCE_ROWS} rows needed to tell")
    return Verdict("passive", f"{reason}: actions have no influence")


def _check_drifting(history: Sequence[Row], side: str) -> Verdict | None:
    ranks, losses = _values_of(history, f"rank_{side}"), _values_of(history, "normalized_loss")
    if len(ranks) <= PATIENCE_ROWS:
        return None
    highest = max(ranks[-PATIENCE_ROWS:])
    if highest < FALLEN_RANK_RATIO * ranks[0]:
        return Verdict("drifting", f"{side} rank fell from {ranks[0]:.3g} at step 0 to {ranks[-1]:.3g}")
    if len(losses) <= PATIENCE_ROWS or losses[-1] >= losses[-1 - PATIENCE_ROWS]:
        return None
    best = max(_built_ranks(ranks), default=0.0)
    if highest >= DRIFTING_RANK_RATIO * best:
        return None
    return Verdict("drifting", f"{side} rank fell from {best:.3g} to {ranks[-1]:.3g} while the loss improves")


def _built_ranks(ranks: Sequence[float]) -> list[float]:
    """The ranks that training has built up: an untrained encoder's rank is high and falls in healthy runs too."""
    lowest = accumulate(ranks, min)
    return [rank for rank, low in zip(ranks, lowest, strict=True) if rank > RISEN_RANK_RATIO * low]


def _check_idle(history: Sequence[Row], side: str) -> Verdict | None:
    losses = _values_of(history, "normalized_loss")
    last, before = losses[-PATIENCE_ROWS:], losses[-2 * PATIENCE_ROWS : -PATIENCE_ROWS]
    if not last or last[-1] < IDLE_LOSS:
        return None
    reason = _loss_sentence(last[-1])
    if len(before) < PATIENCE_ROWS:
        return Verdict("unknown", f"{reason}, measured in {len(losses)} of the {2 * PATIENCE_ROWS} rows needed to tell")
    if min(*before, *last) < IDLE_LOSS:
        return None
    # Each loss is that of a single batch: only means show whether there is progress.
    if fmean(last) < IDLE_LOSS * fmean(before):
        return Verdict("unknown", f"{reason}, but it is falling")
    return Verdict("idle", f"{reason}, and does not fall")


def _check_still(history: Sequence[Row], side: str) -> Verdict | None:
    """Idle if nothing moves: on fixed samples, the numbers of an encoder that learns change, however little."""
    trained = "context" if "std_ratio_context" in history[0] else "target"
    if side != trained or len(history) <= PATIENCE_ROWS:
        return None
    keys = (f"std_ratio_{side}", f"rank_{side}")
    pairs = [(row.get(key), history[0].get(key)) for row in history[-PATIENCE_ROWS:] for key in keys]
    moved = [abs(now / then - 1) for now, then in pairs if now is not None and then]
    if not moved or max(moved) >= STILL_CHANGE:
        return None
    return Verdict("idle", f"spread and rank of the {side} encoder are within {percent(max(moved), 2)} of step 0")


def _healthy_verdict(history: Sequence[Row]) -> Verdict:
    row = history[-1]
    sentences: dict[str, Callable[[float], str]] = {
        "normalized_loss": _loss_sentence,
        "std_ratio_target": partial(std_sentence, "target"),
        "rank_share_target": partial(_rank_sentence, "target"),
    }
    numbers = [sentence(row[key]) for key, sentence in sentences.items() if key in row]
    if not numbers:
        return Verdict("unknown", "nothing is measured that tells of a collapse; look at the loss")
    falls = (_fall_note(_values_of(history, f"rank_{side}"), side) for side in ("target", "context"))
    return Verdict("healthy", ", ".join([*numbers, *[note for note in falls if note][:1]]))


def _loss_sentence(share: float) -> str:
    return f"the prediction loss is {percent(share, 1)} of the loss of a prediction that does not know the sample"


def std_sentence(side: str, ratio: float, digits: int = 0) -> str:
    """The spread of an encoder's features in words: "target std is 104 % of its value at step 0"."""
    return f"{side} std is {percent(ratio, digits)} of its value at step 0"


def _rank_sentence(side: str, share: float) -> str:
    return f"{side} rank is {percent(share, 1)} of the possible rank"


def _fall_note(ranks: Sequence[float], side: str) -> str:
    """A rank that has fallen since step 0 and is at its lowest, in words; "" otherwise. Healthy runs may have it."""
    if len(ranks) <= PATIENCE_ROWS or ranks[-1] > min(ranks) or ranks[-1] >= NAMED_FALL_RATIO * ranks[0]:
        return ""
    return f"{side} rank has fallen from {ranks[0]:.3g} at step 0 to {ranks[-1]:.3g}, its lowest"


def _values_of(history: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in history if key in row]
