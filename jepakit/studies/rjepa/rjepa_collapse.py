"""Study: when does R-JEPA collapse? It varies stop-gradient, predictor, weight decay and initial weights.

The trainings are small R-JEPAs (24 gated units above a perceptron) on Lorenz paths and on generated fixations over
pictures of shapes (`studies/rjepa_training.py`), and single modes compared with theory (`studies/rjepa_modes.py`). The
study records which of these is lost first:

- spread is lost if the panel calls the states fully collapsed: their std is under a limit relative to step 0;
- rank is lost if the effective rank of the states is under half of that at step 0;
- structure is lost if more than a limit of the squares of W Wᵀ (W from the input to the units) or of Pᵀ P (the
  predictor) lie off the diagonal. Random weights have about half there, weights of rank 1 nearly all.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ... import collapse
from ...types import Rng
from ..claims import AtMost, Equal, Numbers, Statement
from ..study import Own, Scores, Study
from . import rjepa_modes as modes
from .rjepa_figures import draw_figures
from .rjepa_training import ARMS, DATA, STEPS, group_shapes, train_arms

MAX_OFF_DIAGONAL: Final = 0.8
FAR_FROM_THEORY: Final = 0.05  # the largest distance of a mode from theory
GRID_STEP: Final = 10 ** (1 / 6)  # between two weight decays that are tried
OPTIMISERS: Final = {"gradient descent": False, "AdamW": True}
SeedNumbers = Mapping[str, Any]


def measure_seeds(seeds: Sequence[int], steps: int | None, _: Path) -> Iterator[dict[str, Any]]:
    """Run all trainings of all seeds, grouped by shape, then yield each seed's rows and modes."""
    runs: list[dict[str, Any]] = [{} for _ in seeds]
    for data in DATA:
        for names in group_shapes():
            found = train_arms([ARMS[name] for name in names], data, seeds, steps or STEPS)
            for k, one in enumerate(found):
                arm, seed = divmod(k, len(seeds))
                runs[seed][f"{data} · {names[arm]}"] = one if seeds[seed] == 0 else {"rows": one["rows"]}
    for seed, one in zip(seeds, runs, strict=True):
        yield {"runs": one, "modes": {name: train_modes(adam, seed, steps) for name, adam in OPTIMISERS.items()}}


def train_modes(adam: bool, seed: int, steps: int | None) -> list[list[float]]:
    """The remaining weight of every mode at every weight decay."""
    rng = Rng(seed).fork("modes", str(adam))
    left: list[list[float]] = modes.train_modes(
        modes.MODES, modes.WEIGHT_DECAYS, rng, adam, steps or modes.STEPS
    ).tolist()
    return left


def loss_steps(rows: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """The first step at which structure, rank and spread are lost; None if they are not."""
    first = rows[0]["rank_target"]
    gone = {
        "structure": [
            max(r["input/off_diagonal"], r.get("balance/off_diagonal", 0.0)) > MAX_OFF_DIAGONAL for r in rows
        ],
        "rank": [r["rank_target"] < first / 2 for r in rows],
        "spread": [r["std_ratio_target"] < collapse.FULL_STD_RATIO for r in rows],
    }
    return {what: next((int(r["step"]) for r, g in zip(rows, w, strict=True) if g), None) for what, w in gone.items()}


def training_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The row of a training: the panel's final verdict and numbers, what was lost, and what was lost first."""
    last, gone = rows[-1], loss_steps(rows)
    name = collapse.verdict([collapse.verdict_inputs(row) for row in rows]).name
    found = {"full collapse": float(name == "full"), "dimensional": float(name == "dimensional")}
    found |= {"std ratio": last["std_ratio_target"], "rank": last["rank_target"]}
    found |= {"rank at step 0": rows[0]["rank_target"], "error / best constant": last["normalized_loss"]}
    if "balance" in last:
        found |= {"imbalance": last["balance"], "off-diagonal P": last["balance/off_diagonal"]}
    found |= {f"{what} lost": float(step is not None) for what, step in gone.items()}
    if gone["rank"] is not None:
        before = gone["structure"] is not None and gone["structure"] < gone["rank"]
        found["structure lost before rank"] = float(before)
    return found


def tabulate(seeds: Sequence[SeedNumbers]) -> dict[tuple[str, str], list[float]]:
    """Every number of every training by seed; some numbers exist only in some seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in seeds:
        for name, run in one["runs"].items():
            for metric, value in training_row(run["rows"]).items():
                found.setdefault((name, metric), []).append(value)
    for name, adam in OPTIMISERS.items():
        for i, (r, v) in enumerate(modes.MODES):
            label = f"one mode · {name} · r {r:g}, v {v:g}"
            ends = [predicted_mode(adam, r, v, d) for d in modes.WEIGHT_DECAYS]
            found[label, "largest decay survived"] = [surviving_decay(one["modes"][name][i]) for one in seeds]
            found[label, "largest decay survived, theory"] = [surviving_decay(ends)] * len(seeds)
            off = [max(abs(a - b) for a, b in zip(one["modes"][name][i], ends, strict=True)) for one in seeds]
            found[label, "furthest from theory"] = off
    return found


def predicted_mode(adam: bool, r: float, v: float, decay: float) -> float:
    """The final weight of a mode by theory, from a large start."""
    if adam:
        return modes.adam_fixed_point(r, decay, modes.BATCH)
    root = modes.fixed_points(r, v, decay)
    return root.stable if root.border < modes.START else 0.0


def surviving_decay(left: Sequence[float]) -> float:
    """The largest decay at which a mode survives; 0 if it never does."""
    return max((d for d, p in zip(modes.WEIGHT_DECAYS, left, strict=True) if p > FAR_FROM_THEORY), default=0.0)


def claims() -> Iterator[Statement]:
    """Claims on single modes compared with theory, and on the balance of weights and predictor."""
    for name in OPTIMISERS:
        labels = [f"one mode · {name} · r {r:g}, v {v:g}" for r, v in modes.MODES]
        survived_decays = "largest decay survived"
        yield Equal(
            "the largest weight decay that each mode survives, from 0.001 to 10, and the one by theory",
            tuple(((label, survived_decays), (label, f"{survived_decays}, theory")) for label in labels),
            GRID_STEP - 1,
            words=f"One mode, {name}",
        )
        yield Numbers(tuple(labels), (survived_decays,), words=f"One mode, {name}")
    linear = tuple(f"Lorenz · {name}" for name, arm in ARMS.items() if "predictor" not in arm.method)
    yield AtMost(
        linear,
        "imbalance",
        0.1,
        words="AdamW, with gates that follow the input, reaches the balance |W Wᵀ - Pᵀ P| / |W Wᵀ| that theory has for "
        "gradient flow, fixed gates and a linear circuit",
    )


def conclusions(scores: Scores) -> list[str]:
    """Sentences on what collapses, what is lost first, and what that means for weight decay."""
    return [*collapse_verdicts(scores), *loss_order(scores), ADAM_NOTE]


ADAM_NOTE: Final = (
    "AdamW has no threshold at r² v / 4: it divides gradients by their own size, and holds a weak mode as firmly as a "
    "strong one. It kills where a mode shrinks faster than AdamW forgets its earlier gradients, which the theory "
    "leaves out. Weight decays that are harmless with one optimiser say nothing about the other."
)


def collapse_verdicts(scores: Scores) -> list[str]:
    """Sentences on the effect of each change over both data sets, and whether the claim holds."""
    starts = [n for n in ARMS if n.startswith(("initial", "correlated"))]
    stopped = [n for n in starts if "no stop" not in n]
    plain, open_, none = (collapse_share(scores, name) for name in ("as it is", "no stop-gradient", "predictor none"))
    worst = max(collapse_share(scores, name) for name in stopped)
    return [
        f"No collapse without negatives, with stop-gradient, a linear predictor and a weight decay of 1e-4: "
        f"{_verdict_word(plain < 0.1)}. {describe_arms(scores, ['as it is'])}.",
        f"Stop-gradient is needed: {_verdict_word(open_ > 0.9)}. {describe_arms(scores, ['no stop-gradient'])}.",
        f"A predictor is needed: {_verdict_word(none > 0.9)}. "
        f"{describe_arms(scores, ['predictor none', 'predictor mlp'])}.",
        "Weight decay takes rank first and then everything: "
        f"{describe_arms(scores, [n for n in ARMS if n.startswith('weight decay')])}. The trainings have {STEPS} "
        "steps, in which a decay of 0.1 alone shrinks a weight by about a tenth: longer trainings tolerate less.",
        "First weights that are correlated, of low rank, small or large bring collapse: "
        f"{_verdict_word(worst > 0.9, worst > 0.1)} with stop-gradient. {describe_arms(scores, stopped)}. Without "
        f"stop-gradient: {describe_arms(scores, [n for n in starts if n not in stopped])}.",
    ]


def _verdict_word(whole: bool, partly: bool = False) -> str:
    return "holds" if whole else "in some trainings" if partly else "does not hold"


def collapse_flags(scores: Scores, name: str) -> list[float]:
    """Per training of an arm, on all data: 1 if it ends in a full or dimensional collapse, else 0."""
    pairs = ((scores.values[f"{data} · {name}", what] for what in ("full collapse", "dimensional")) for data in DATA)
    return [max(both) for full, flat in pairs for both in zip(full, flat, strict=True)]


def collapse_share(scores: Scores, name: str) -> float:
    """The share of an arm's trainings that collapse."""
    return statistics.fmean(collapse_flags(scores, name))


def describe_arms(scores: Scores, names: Sequence[str]) -> str:
    """A text with each arm's count of collapses, and the remaining spread and rank on each data set."""
    parts = []
    for name in names:
        found = collapse_flags(scores, name)
        std, rank = (
            " and ".join(f"{scores.mean(f'{data} · {name}', 'std ratio'):.2g}" for data in DATA),
            " and ".join(
                f"{scores.mean(f'{data} · {name}', 'rank'):.1f} of "
                f"{scores.mean(f'{data} · {name}', 'rank at step 0'):.1f}"
                for data in DATA
            ),
        )
        parts.append(f"{name}: {int(sum(found))} of {len(found)} collapse (std ratio {std}, rank {rank})")
    return "; ".join(parts)


def loss_order(scores: Scores) -> list[str]:
    """Sentences on whether the loss of structure precedes and predicts the loss of rank."""
    names = [label for label, what in scores.values if what == "rank lost"]
    kinds = ("structure lost", "rank lost", "spread lost")
    rows = [row for n in names for row in zip(*(scores.values[n, kind] for kind in kinds), strict=True)]
    before = [b for n in names for b in scores.values.get((n, "structure lost before rank"), ())]
    intact = sum(1 for s, _, spread in rows if spread and not s)
    nothing = sum(1 for s, rank, spread in rows if s and not rank and not spread)
    return [
        f"Does loss of structure precede loss of rank? In {int(sum(before))} of the {len(before)} trainings that lost "
        f"rank, of {len(rows)}. Of {sum(1 for s, _, _ in rows if s)} that lost structure, {nothing} lost neither rank "
        f"nor spread; of {sum(1 for *_, g in rows if g)} that lost spread, {intact} kept their structure. So the "
        "share off the diagonal is no reliable warning.",
        "Nor is the rank: without stop-gradient the states shrink in all directions, and their effective rank rises "
        "while their spread is lost. Read both.",
    ]


STUDY = Study(
    title="When R-JEPA collapses",
    source="Velarde & Parra 2024, arXiv:2411.16695, for the claims; theory for one mode in studies/rjepa_modes.py",
    claim=(
        "R-JEPA does not collapse, even without negatives: stop-gradient keeps the weights of circuit and predictor "
        "nearly orthogonal, and weight decay balances them. Representations collapse if that structure is lost, "
        "stop-gradient is left out, or weights are initially correlated."
    ),
    arms=(),
    claims=tuple(claims()),
    conclusions=conclusions,
    kinds=(),
    own=Own(measure_seeds, tabulate, draw_figures),
    seeds=5,
)
