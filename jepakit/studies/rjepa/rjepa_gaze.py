"""Study: R-JEPA on fixations: do errors fall as fixations accumulate, does memory help, does the human order matter?

The runs train on OSIE scanpaths (of every viewer, on the pictures that are not held out) and are measured on unseen
pictures:

- `error`: the prediction error of the next state after k fixations, over that of the best constant (the mean of the
  next states) and over that of persistence (the present state)
- `next feature`: the R² on held-out pictures of a ridge from h_k to the encoder's next feature
- `gate`, `change`: how open the circuit is, and how far its state moves, relative to the state's size
- `picture`: how often the nearest state of another viewer, after as many fixations, belongs to the same picture
- `least std ratio`, `rows without collapse`: the panel's findings during training

Errors count as falling only if both ratios fall and the ridge gains, each beyond the spread of the seeds. `memoryless`
is the circuit without a past. A second data set has digits with fixations on salient places: a linear probe reads the
class after k fixations.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Float, Int64

from ...data.scanpaths import settings
from ...data.scanpaths.dataset import Scanpaths
from ...methods.rjepa import RJEPA
from ...recipes.rjepa import gaze_rjepa
from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure
from ...run import checkpoint
from ...run.metrics import read_rows
from ...run.settings import Length, Run
from ..cells import Cell
from ..claims import AtLeast, Better, Every, Falls, Numbers, Rises, Statement
from ..study import Arm, Study
from .rjepa_probes import SequenceStates, class_accuracy, next_feature, prediction_errors
from .rjepa_states import encode_fixations, record_circuit

FIRST, LAST = 2, 7  # fixations between which errors have to fall; almost all scanpaths have that many
STEPS, DIGIT_STEPS = 10, 10
MAX_SCANPATHS = 1500
LENGTH: Final = Length(steps=200, batch=64)
OSIE_FILE: Final = "gaze_osie/fixations.json.gz"
DIGITS_FILE: Final = "mnist/train-images-idx3-ubyte.gz"
LEAST_STD_RATIO: Final = "least std ratio"
SOUND_ROWS: Final = "rows without collapse"
ORDERS: Final = ("human", "shuffled", "repeated", "uniform", "raster")


def record_states(method: RJEPA, data: Scanpaths, most: int) -> SequenceStates:
    """The states and features of up to `most` scanpaths."""
    ids = np.arange(len(data)) if len(data) <= most else np.linspace(0, len(data) - 1, most).astype(int)
    y, action = encode_fixations(method, data, ids)
    found, length = record_circuit(method, y, action), data.lengths[ids].clip(max=data.steps)
    return SequenceStates(
        found.h,
        found.pred,
        y.flatten(2).numpy(),
        mean_gate(found.gate, length),
        length,
        np.array([data.label(int(i)) for i in ids]),
        data.rows.subject[ids],
    )


def mean_gate(gate: Float[np.ndarray, "t n v"], length: Int64[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    """The mean gate at every step over the scanpaths that reach it; NaN if none does."""
    real = np.arange(len(gate))[:, None] < length
    count = real.sum(1)
    mean: Float[np.ndarray, " t"] = np.where(real, gate.mean(2), 0.0).sum(1) / np.where(count, count, np.nan)
    return mean


def picture_accuracy(test: SequenceStates, k: int) -> float:
    """How often the nearest state of another viewer, after k fixations, belongs to the same picture.

    The states of a third of the viewers are the queries and those of the others the candidates. The training saw all
    viewers, but on other pictures. States are compared by cosine similarity.
    """
    real = test.length >= k
    h, label = test.h[k - 1, real], test.label[real]
    asks = test.subject[real] % 3 == 0
    unit_h = (h - h[~asks].mean(0)) / np.linalg.norm(h - h[~asks].mean(0), axis=1, keepdims=True)
    nearest = (unit_h[asks] @ unit_h[~asks].T).argmax(1)
    return float((label[~asks][nearest] == label[asks]).mean())


def run_measures(folder: Path) -> Mapping[str, float]:
    """The rows of a finished run: the accuracy of the class for digits, all other measures for scanpaths of people."""
    found = read_curves(folder)
    keep = {f"{name}, {k}" for name in found for k in (FIRST, LAST) if len(found[name]) > 2}
    flat = {f"{name}, {k}": value for name, values in found.items() for k, value in values.items()}
    read = {key: value for key, value in flat.items() if key in keep or key.startswith("accuracy")}
    return {**read, **panel_summary(folder)}


def panel_summary(folder: Path) -> dict[str, float]:
    """The least spread during training over that at step 0, and the share of panel measurements without collapse."""
    rows = [row["metrics"] for row in read_rows(folder) if row and "std_ratio_target" in row["metrics"]]
    sound = [row["verdict"] not in ("dimensional", "full") for row in rows]
    return {LEAST_STD_RATIO: min(row["std_ratio_target"] for row in rows), SOUND_ROWS: statistics.fmean(sound)}


@cache
def read_curves(folder: Path) -> Mapping[str, Mapping[int, float]]:
    """Every measure over the number of fixations."""
    loaded = checkpoint.load_run(folder)
    method, cfg = cast(RJEPA, loaded.method.eval()), cast(settings.Config, loaded.run.data)
    human = bool(cfg.fixations) or cfg.path.endswith(".json.gz")
    label: Any = "image" if human else "class"
    parts = [
        replace(cfg, split=split, label=label, limit=0 if human else MAX_SCANPATHS).open()
        for split in ("train", "test")
    ]
    train, test = (record_states(method, part, MAX_SCANPATHS) for part in parts)
    found: dict[str, dict[int, float]] = {}
    for k in range(1, train.h.shape[0] + 1):
        row = {} if human else {f"accuracy of the class, {k}": class_accuracy(train, test, k)}
        if human and k < train.h.shape[0]:
            row = (
                prediction_errors(test, k)
                | next_feature(train, test, k, train.label)
                | {f"picture, {k}": picture_accuracy(test, k)}
            )
        for key, value in row.items():
            found.setdefault(key.rpartition(", ")[0], {})[k] = value
    return found


def claims() -> tuple[Statement, ...]:
    """The strict claim for every order of fixations, the benefit of memory, and whether a run collapsed."""
    human, memoryless = "OSIE · human", "OSIE · memoryless"
    labels = tuple(arm.label for arm in STUDY_ARMS)
    later = (f"next feature R² from the state, {LAST}", f"picture, {LAST}")
    return (
        *(strict_claim(f"OSIE · {name}") for name in (*ORDERS, "memoryless")),
        *(Better(human, memoryless, metric, words="Memory helps") for metric in later),
        AtLeast(labels, SOUND_ROWS, 1.0, words="No run collapses at any time"),
        Numbers(labels, (LEAST_STD_RATIO,), words="Spread of the states over that at step 0"),
        *(
            Rises(tuple((row, f"accuracy of the class, {k}") for k in (1, DIGIT_STEPS)))
            for row in ("digits · gated", "digits · memoryless")
        ),
    )


def strict_claim(row: str) -> Every:
    """The claim that both errors fall from the first to the last measured fixation, while the ridge's R² rises."""

    def points(metric: str) -> tuple[Cell, ...]:
        return tuple((row, f"{metric}, {k}") for k in (FIRST, LAST))

    errors = (Falls(points(f"error over {rival}")) for rival in ("constant", "persistence"))
    parts = (*errors, Rises(points("next feature R² from the state")))
    return Every("the claim in its strict form", parts, words=row)


def draw_figures(folders: Mapping[str, Path]) -> Sequence[tuple[str, Figure]]:
    """Each measure over the number of fixations, for the first seed."""
    every = {label: read_curves(folder) for label, folder in folders.items()}
    shown = {
        "error over constant": "1 is the mean of the next states at the same step. Held-out pictures, first seed.",
        "error over persistence": "1 is the current state as the prediction. Held-out pictures, first seed.",
        "next feature R² from the state": "R² of a ridge for the next fixation's feature. Held-out pictures.",
        "picture": "How often another viewer's nearest state belongs to the same picture, which training never saw.",
        "gate": "The mean update gate: 1 passes the input, 0 keeps the past.",
        "change": "How far the state moves in a step, over its size.",
        "accuracy of the class": "A linear classifier on the state, digits looked at in ten places. First seed.",
    }
    found = []
    for name, caption in shown.items():
        has = {label.partition(" · ")[2]: c[name] for label, c in every.items() if name in c}
        lines = [
            Line(arm, np.array(list(v)), np.array(list(v.values())), color=i) for i, (arm, v) in enumerate(has.items())
        ]
        found.append(
            (name, Figure(f"{name[0].upper()}{name[1:]}", line_chart(lines, f"{name} over fixations"), caption))
        )
    return found


def find_arm(name: str) -> Arm:
    """The arm with this name on human scanpaths."""
    return next(arm for arm in STUDY_ARMS if arm.label == f"OSIE · {name}")


def _gaze_run(order: str = "human", **circuit: Any) -> Run:
    base = gaze_rjepa()
    method: Any = base.method
    data = settings.Config(
        OSIE_FILE, timing="duration", size=(32, 32), steps=STEPS, order=cast(Any, order), split="train", held_out=0.2
    )
    return replace(base, method=replace(method, circuit=replace(method.circuit, **circuit)), data=data, length=LENGTH)


def _digit_run(**circuit: Any) -> Run:
    data = settings.Config(
        DIGITS_FILE, size=(8, 8), crop=0.3, steps=DIGIT_STEPS, count=DIGIT_STEPS, split="train", limit=6000
    )
    return replace(_gaze_run(**circuit), data=data)


STUDY_ARMS: Final = (
    *(Arm("OSIE", order, _gaze_run(order), OSIE_FILE) for order in ORDERS),
    Arm("OSIE", "memoryless", _gaze_run(recurrence="none"), OSIE_FILE),
    Arm("digits", "gated", _digit_run(), DIGITS_FILE),
    Arm("digits", "memoryless", _digit_run(recurrence="none"), DIGITS_FILE),
)
STUDY = Study(
    title="R-JEPA on human fixations",
    source="Velarde & Parra 2024, arXiv:2411.16695, and the questions that it leaves open; no published figures",
    claim="The prediction error falls as fixations accumulate, because the circuit remembers what was seen.",
    arms=STUDY_ARMS,
    claims=claims(),
    kinds=(),
    run_metrics=run_measures,
    figures=draw_figures,
    seeds=3,
)
