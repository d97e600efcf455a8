"""Study: recurrent forward propagation versus back-propagation through time: exactness, memory, time and learning.

The circuit is the gated one with n = 256 units on d = 32 inputs under a linear predictor (`studies/propagation.py`).
Peak bytes are those of all tensors alive at once, besides weights and input (`studies/alive.py`): states or traces,
the predictor's graph and all gradients. Seconds are total processor time; the rules take turns.
`studies/rjepa_curves.py` compares the learning curves.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...core.files import file_slug
from ...reporting.charts import Line, line_chart
from ...reporting.figures import Figure
from ...types import Rng
from ..claims import AtMost, Better, Equal, Numbers, Statement
from ..study import Own, Study
from . import propagation as rules
from . import rjepa_curves as learning

SEQUENCE_LENGTHS: Final = (64, 256, 1024, 4096)
MEMORY_LENGTH: Final = 1024  # the length at which memory is compared
BPTT_LENGTHS: Final = (8, 16, 32, 64, 128, 256, 512, 1024)
INPUT_WIDTHS: Final = (32, 128, 256)
STATE_WIDTHS: Final = (32, 64, 128, 256, 512)
DENSE_WIDTHS: Final = (32, 64, 128, 256)  # 512 would take 2 GiB
CHUNK_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
FORWARD_RULES: Final = ("rfp", "rfp, chunk 1")
TIMING_ROUNDS: Final = {1: (256, 3), 64: (64, 2)}  # steps and rounds, by batch


def measure_seeds(seeds: Sequence[int], steps: int | None, data: Path) -> Iterator[dict[str, Any]]:
    """Yield the numbers of one seed after another; seed 0 also has the numbers that do not depend on the seed."""
    for seed in seeds:
        found = {
            "errors": rules.rule_errors(seed),
            "seconds": {
                str(batch): time_rules(seed, batch, length, rounds) for batch, (length, rounds) in TIMING_ROUNDS.items()
            },
            "curves": learning.loss_curves(data, seed, steps),
        }
        yield {**found, **(seedless_numbers() if seed == 0 else {})}


def time_rules(seed: int, batch: int, steps: int, rounds: int) -> dict[str, float]:
    """The median seconds per step of every rule."""
    problem = rules.Problem(Rng(seed).fork("time"), steps, batch=batch)
    return {k: statistics.median(v) for k, v in rules.step_seconds(rules.GRADIENT_RULES, problem, rounds).items()}


def seedless_numbers() -> dict[str, Any]:
    """The numbers that do not depend on the seed: memory, time over the chunk, and dense RTRL."""
    problem = rules.Problem(Rng(0), TIMING_ROUNDS[1][0])
    chunks = {str(c): (lambda p, c=c: rules.forward_gradient(p, c)) for c in CHUNK_SIZES}
    dense = rules.Problem(Rng(0), 2, block=rules.N)
    slow = rules.step_seconds({"rtrl": lambda p: rules.forward_gradient(p, 1)}, dense, 2)
    return {
        "peak": {
            name: [rules.peak_bytes(rule, t) for t in SEQUENCE_LENGTHS] for name, rule in rules.GRADIENT_RULES.items()
        },
        "chunk": {
            "seconds": {
                k: statistics.median(v)
                for k, v in rules.step_seconds({**chunks, "bptt": rules.bptt_gradient}, problem, 5).items()
            },
            "bytes": {k: rules.peak_bytes(rule, MEMORY_LENGTH) for k, rule in chunks.items()},
        },
        "inputs": {str(d): rules.memory_crossing(d, BPTT_LENGTHS) for d in INPUT_WIDTHS},
        "traces": {
            "rfp": {
                "measured": rules.trace_bytes(STATE_WIDTHS, False),
                "formula": rules.trace_formula(STATE_WIDTHS, False),
            },
            "rtrl, dense": {
                "measured": rules.trace_bytes(DENSE_WIDTHS, True),
                "formula": rules.trace_formula(STATE_WIDTHS, True),
            },
        },
        "rtrl": min(slow["rtrl"]),
    }


def log_slope(sizes: Sequence[int], values: Sequence[int]) -> float:
    """The slope of log values over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def tabulate(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Every rule's metrics by seed; metrics that do not depend on the seed have one value."""
    first, found = seeds[0], {}
    for name in rules.GRADIENT_RULES:
        for metric in first["errors"][name]:
            found[name, metric] = [one["errors"][name][metric] for one in seeds]
        for t, value in zip(SEQUENCE_LENGTHS, first["peak"][name], strict=True):
            found[name, f"peak_bytes_T{t}"] = [float(value)]
        for batch in TIMING_ROUNDS:
            found[name, metric_name(batch)] = [one["seconds"][str(batch)][name] for one in seeds]
    for data, each in first["curves"].items():
        for name in each:
            found[name, f"final_loss, {data}"] = [learning.final_loss(one["curves"][data][name]) for one in seeds]
    for d, one in first["inputs"].items():
        found["rfp", f"peak_bytes, d {d}"] = [float(one["rfp"])]
        found["rfp", f"trace_bytes by formula, d {d}"] = [float(one["formula"])]
        if one["T"]:
            found["rfp", f"wins from T, d {d}"] = [one["T"]]
    for name, each in first["traces"].items():
        sizes = STATE_WIDTHS[: len(each["measured"])]
        found[name, "slope of trace bytes, measured"] = [log_slope(sizes, each["measured"])]
        found[name, "slope of trace bytes, formula"] = [log_slope(STATE_WIDTHS, each["formula"])]
    found["rtrl, dense", metric_name(1)] = [first["rtrl"]]
    return found


def metric_name(batch: int) -> str:
    """The name of the metric of seconds per step."""
    return "seconds_per_step" + ("" if batch == 1 else f", batch {batch}")


def claims() -> tuple[Statement, ...]:
    """Claims on exactness, memory, time and learning, each relative to back-propagation through time."""
    rounded = f"gradient_error_float32_T{rules.ERROR_STEPS['float32'][-1]}"
    short, long = (f"peak_bytes_T{t}" for t in (SEQUENCE_LENGTHS[0], SEQUENCE_LENGTHS[-1]))
    fewer: dict[str, Any] = {"lower": True, "by": "ratio"}
    losses = [f"final_loss, {data}, {n} steps" for data, task in learning.TASKS.items() for n in task.steps]
    by_rule = {rule: tuple(((rule, loss), ("bptt", loss)) for loss in losses) for rule in ("rfp", "truncated")}
    memory, dense = "Memory, all gradients included", f"Beside real-time recurrent learning, n = {rules.N}"
    crossings = tuple(f"wins from T, d {d}" for d in INPUT_WIDTHS)
    return (
        AtMost(FORWARD_RULES, "gradient_error_float64", 1e-12, words="Exact, as a share of the largest entry"),
        AtMost(FORWARD_RULES, rounded, 1e-5, words="Exact but for rounding"),
        Numbers(("bptt", "truncated"), ("gradient_error_float64", rounded), words="Errors of the other rules"),
        Equal(f"{short} and {long}", tuple(((rule, long), (rule, short)) for rule in FORWARD_RULES), 0.01),
        *(
            Better(rule, "bptt", f"peak_bytes_T{MEMORY_LENGTH}", **fewer, exact=True, words=memory)
            for rule in FORWARD_RULES
        ),
        *(
            Better(rule, "bptt", metric_name(batch), **fewer, words="Time")
            for batch in TIMING_ROUNDS
            for rule in FORWARD_RULES
        ),
        Numbers(("rfp",), crossings, words=f"bptt takes more memory than rfp, n = {rules.N}"),
        Numbers(("rfp", "rtrl, dense"), ("slope of trace bytes, formula",), words="Traces grow with n to the power"),
        Better("rfp", "rtrl, dense", metric_name(1), **fewer, words=dense),
        Equal("final losses of rfp and bptt", by_rule["rfp"], 1e-3),
        Equal("final losses of truncated learning and bptt", by_rule["truncated"], 0.01),
    )


def draw_figures(seeds: Sequence[Mapping[str, Any]]) -> list[tuple[str, Figure]]:
    """Memory over T, memory and time over the chunk, traces over n, and learning curves."""
    first = seeds[0]
    t = np.array(SEQUENCE_LENGTHS, float)
    lines = [Line(n, t, np.array(v) / 2**20, color=k) for k, (n, v) in enumerate(first["peak"].items())]
    body = line_chart(lines, "Peak memory over the length", x_label="steps T", log_x=True, log_y=True)
    found = [("memory", Figure("Peak memory (MiB) over the length", body, MEMORY_NOTE))]
    c, each = np.array(CHUNK_SIZES, float), first["chunk"]
    taken = np.array([each["seconds"][str(k)] for k in CHUNK_SIZES]) * 1e6
    back = (each["seconds"]["bptt"] * 1e6, "bptt")
    body = line_chart(
        [Line("rfp", c, taken)], "Time over the chunk", x_label="steps per chunk", log_x=True, log_y=True, marks=[back]
    )
    found.append(("chunk-time", Figure("Microseconds per step over the chunk", body, TIME_NOTE)))
    most = np.array([each["bytes"][str(k)] for k in CHUNK_SIZES]) / 2**20
    body = line_chart([Line("rfp", c, most)], "Memory over the chunk", x_label="steps per chunk", log_x=True)
    found.append(
        ("chunk-memory", Figure("Peak memory (MiB) over the chunk", body, f"At T = {MEMORY_LENGTH} and batch 1."))
    )
    lines = []
    for k, (name, one) in enumerate(first["traces"].items()):
        n = np.array(STATE_WIDTHS, float)
        lines.append(Line(f"{name}, formula", n, np.array(one["formula"]) / 2**20, color=k, dashed=True))
        lines.append(Line(name, n[: len(one["measured"])], np.array(one["measured"]) / 2**20, color=k))
    body = line_chart(lines, "Traces over the width", x_label="units n", log_x=True, log_y=True)
    found.append(("traces", Figure("Traces of one row (MiB) over the width", body, "With as many inputs as units.")))
    return found + [_curve_figure(seeds, data) for data in first["curves"]]


def _curve_figure(seeds: Sequence[Mapping[str, Any]], data: str) -> tuple[str, Figure]:
    lines = []
    for k, name in enumerate(learning.GRADIENT_RULES):
        mean = np.array([one["curves"][data][name] for one in seeds]).mean(0)
        lines.append(Line(name, np.arange(1.0, len(mean) + 1), mean, color=k, dashed=name == "bptt"))
    body = line_chart(lines, f"Loss on {data}", log_y=True)
    return f"curves-{file_slug(data)}", Figure(f"Loss: {data}", body, LEARNING_NOTE)


MEMORY_NOTE: Final = (
    "The most bytes of tensors alive at once, besides weights and input, both axes logarithmic: back-propagation keeps "
    "every step, forward propagation its traces. rfp takes 32 steps at once; chunk 1 is the rule as published."
)
TIME_NOTE: Final = (
    "Processor time of one core, everything included, at batch 1 and T = 256, median of five rounds in which all take "
    "turns. Traces are read and written once per chunk."
)
LEARNING_NOTE: Final = "Mean over the seeds, which share weights and batches between rules: rfp lies on bptt (dashed)."
STUDY = Study(
    title="Recurrent forward propagation",
    source="Velarde & Parra 2024, arXiv:2411.16695, which states the claim and gives no figures",
    claim=(
        "Recurrent forward propagation is exact gradient descent for recurrent circuits of its class, takes memory "
        "that does not grow with time, and n² of it where real-time recurrent learning takes n³."
    ),
    arms=(),
    claims=claims(),
    kinds=(),
    own=Own(measure_seeds, tabulate, draw_figures),
    seeds=5,
)
