"""Shared code of `bijepa-sine` and `bijepa-lorenz`: the forms of BiJEPA to train, and the measurements on each.

Every training has the paper's networks, optimiser, batch and normalisation. Only our own settings, chosen by B_ridge on
the seeds 0 to 2 (docs/LOG.md), differ, but they keep the paper's steps and batch. Seeds are 10, 11, …; all seeds of a
form train together (`studies/together.py`). The probes read the value one step after the cut:

    A_adam, B_adam      the paper's probe: a linear layer after 100 (Lorenz: 200) full-batch Adam steps, and its error
                        on the 1,000 windows that it was fitted to
    A_ridge, B_ridge    a ridge on the same windows, its strength chosen on a fifth of them; error on 1,000 others

A reads f(past), B reads the method's prediction from it. Windows are drawn anew for every seed; no training uses them.
Unlike the paper's, our weight decay does not apply to biases and LayerNorms.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from jaxtyping import Float

from ...data.series import generated
from ...data.series.dataset import Series
from ...evals.kinds.forecast import last_value_errors
from ...evals.metrics.readers import Reader, adam_train_error, choose_reader
from ...evals.windows import Windows, as_raw, steps_seen
from ...evals.windows import represent_windows as represented
from ...masks.halves import Halves
from ...methods import bijepa, build
from ...methods.bijepa import BiJEPA
from ...nn.mlp import MLP, Norm, Perceptron
from ...run.optim import Optim
from ...run.settings import Evals, Length, Loop, Run
from ...types import Rng, Signal
from . import together

FIRST_SEED: Final = 10
NUM_WINDOWS: Final = 1000
BATCH_SIZE: Final = 64
MapMeasure = Callable[["Task", int | None], dict[str, Any]]
PROTOCOLS: Final = {"A": "s", "B": "pred"}
METRICS: Final = ("A_adam", "B_adam", "A_ridge", "B_ridge")
UNTRAINED, LINEAR = "untrained", "linear autoregression"


@dataclass(frozen=True)
class Form:
    """One row of the table: its differences from the paper's BiJEPA.

    These are method settings; `norm`, without which there are neither LayerNorms nor weight decay; a factor on the
    length; the numbers of features and hidden features, 0 for the task's; and the final share of a cosine schedule.
    """

    method: Mapping[str, Any] = field(default_factory=dict)
    norm: bool = True
    longer: int = 1
    width: int = 0
    hidden: int = 0
    end: float = 1.0


FORMS: Final[Mapping[str, Form]] = {
    "classic": Form({"alpha": 1.0}),
    "bijepa": Form(),
    "sphere": Form({"sphere": True}),
    "unconstrained": Form(norm=False),
    "classic, doubled steps": Form({"alpha": 1.0}, longer=2),
    "classic, swapped pairs": Form({"alpha": 1.0, "masks": (Halves(context="either"),)}),
}
OUR_FORM: Final = "bijepa, our settings"


@dataclass(frozen=True)
class Task:
    """The data and sizes of one of the paper's experiments; `shifts` are test windows of another kind, by name.

    `fresh`: every training sample is seen once; else there are `count`. `pooled`: one mean and deviation for all
    channels; else values are taken as they are. Given a seed, `further` reads more of a method, `portrait` gives paths
    to draw and `beside` further rows. The trainings of the map have `map_steps`, where that is not 0. `ours` is the
    form chosen by ourselves.
    """

    data: generated.Config
    steps: int
    patch: int
    width: int
    hidden: int
    lr: float
    probe_steps: int
    fresh: bool
    pooled: bool
    shifts: Mapping[str, Mapping[str, Any]]
    ours: Form
    further: Callable[[BiJEPA, int], Mapping[str, float]] = lambda method, seed: {}
    portrait: Callable[[BiJEPA, int], Mapping[str, Any]] = lambda method, seed: {}
    beside: Callable[[int], Mapping[str, Mapping[str, float]]] = lambda seed: {}
    map_steps: int = 0


def training_run(
    task: Task, form: Form, seed: int, steps: int | None = None, lr: float = 0.0, decay: float = 1e-4
) -> Run:
    """The training of a form; `steps` and `lr` default to the task's."""
    norm: Norm = "layer" if form.norm else "none"
    length, lr = (steps or task.steps) * form.longer, lr or task.lr
    width, hidden = form.width or task.width, form.hidden or task.hidden
    method = bijepa.Config(MLP((task.patch,), width, hidden, 2, norm), Perceptron(hidden, 1, norm), **form.method)
    decay = decay if form.norm else 0.0
    rule = Optim(lr=lr, start_lr=lr, final_lr=form.end * lr, warmup=0.0, weight_decay=decay, final_weight_decay=decay)
    count = BATCH_SIZE * length if task.fresh else task.data.count
    where = Loop(device="cpu", amp=False, workers=0)
    return Run(
        method,
        replace(task.data, count=count),
        rule,
        Length(length, batch=BATCH_SIZE),
        where,
        Evals((), False),
        FIRST_SEED + seed,
    )


def signal_of(task: Task, dataset: Series) -> Signal:
    """The paper's normalisation statistics: none for sines, one mean and deviation for all of Lorenz's axes."""
    values, channels = dataset.steps.values.astype(np.float64), dataset.channels
    mean, std = (float(values.mean()), float(values.std())) if task.pooled else (0.0, 1.0)
    return Signal(channels, dataset.native, (mean,) * channels, (std,) * channels)


def train_form(task: Task, form: Form, seeds: Sequence[int], steps: int | None) -> together.TrainedForms:
    """Train a form with every seed."""
    runs = [training_run(task, form, seed, steps) for seed in seeds]
    dataset = cast(Series, runs[0].data.open())
    return together.train_together(runs, dataset, signal_of(task, dataset))


def probe_set(task: Task, seed: int, **changes: Any) -> Series:
    """NUM_WINDOWS new windows for probes, drawn by `seed`."""
    return replace(task.data, count=NUM_WINDOWS, seed=seed, **changes).open()


def represent_windows(method: BiJEPA, dataset: Series) -> Windows:
    """The windows of a data set with the method's representations and predictions."""
    ids, cut = np.arange(len(dataset), dtype=np.int64), steps_seen(method)
    x, _ = dataset.whole(ids, method.signal.size)
    values = method.normalize(x).numpy()
    return Windows(*represented(method, x), values[..., :cut], values[..., cut:], ids)


def mean_error(reader: Reader, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> float:
    """The mean squared error of a reader."""
    return float(((reader(x) - y) ** 2).mean())


def probe_form(task: Task, method: BiJEPA, seed: int) -> dict[str, float]:
    """The errors of both probes on a method, on windows of the training kind and of other kinds."""
    probe, test = (represent_windows(method, probe_set(task, start + seed)) for start in (1000, 2000))
    others = {k: represent_windows(method, probe_set(task, 3000 + seed, **v)) for k, v in task.shifts.items()}
    found: dict[str, float] = {}
    for protocol, part in PROTOCOLS.items():
        x, y = getattr(probe, part), probe.future[..., :1]
        rng = Rng(FIRST_SEED + seed).fork("probe", protocol)
        rows = torch.from_numpy(x), torch.from_numpy(y[..., 0])
        found[f"{protocol}_adam"] = adam_train_error(*rows, rng, task.probe_steps)
        reader, _ = choose_reader(x, y, probe.held)
        found[f"{protocol}_ridge"] = mean_error(reader, getattr(test, part), test.future[..., 0])
        for name, other in others.items():
            found[f"{protocol}_ridge, {name}"] = mean_error(reader, getattr(other, part), other.future[..., 0])
    every, _ = choose_reader(probe.pred, probe.future, probe.held)
    found["B_ridge, all steps"] = mean_error(every, test.pred, test.future.reshape(len(test), -1))
    return found


def naive_rows(task: Task, method: BiJEPA, seed: int) -> dict[str, dict[str, float]]:
    """The rows without an encoder: repeating the last value, and a ridge on the raw past."""
    raw, test = (as_raw(represent_windows(method, probe_set(task, start + seed))) for start in (1000, 2000))
    reader, _ = choose_reader(raw.s, raw.future[..., :1], raw.held)
    every, _ = choose_reader(raw.s, raw.future, raw.held)
    held: dict[str, float] = {}
    read = {"B_ridge, all steps": mean_error(every, test.s, test.future.reshape(len(test), -1))}
    others = {
        f", {k}": as_raw(represent_windows(method, probe_set(task, 3000 + seed, **v))) for k, v in task.shifts.items()
    }
    for name, other in {"": test, **others}.items():
        held[f"A_ridge{name}"] = float(last_value_errors(other)[:, 0].mean())
        read[f"A_ridge{name}"] = mean_error(reader, other.s, other.future[..., 0])
    return {"last value": held, LINEAR: read}


def sample_forecasts(method: BiJEPA, task: Task, seed: int) -> dict[str, Any]:
    """Twenty test windows and B_ridge's forecasts of their future, for the figures."""
    probe, test = (represent_windows(method, probe_set(task, start + seed)) for start in (1000, 2000))
    reader, _ = choose_reader(probe.pred, probe.future, probe.held)
    read = reader(test.pred[:20]).reshape(test.future[:20].shape)
    parts = {"past": test.past[:20], "future": test.future[:20], "read": read}
    return {key: np.round(value.astype(np.float64), 5).tolist() for key, value in parts.items()}


def measure_seeds(
    task: Task, mapped: MapMeasure | None, seeds: Sequence[int], steps: int | None, _: Path
) -> Iterator[dict[str, Any]]:
    """Yield the numbers of one seed after another. Each form trains all its seeds together; seed 0 also has the map."""
    every: list[dict[str, Any]] = [{"rows": {}, "curves": {}, "shown": {}} for _ in seeds]
    for name, form in {**FORMS, OUR_FORM: task.ours}.items():
        found = train_form(task, form, seeds, steps)
        for k, (seed, method) in enumerate(zip(seeds, found.methods, strict=True)):
            forward, norm = found.forward[:, k].tolist(), found.norm[:, k].tolist()
            here = {**probe_form(task, method, seed), "forward loss": statistics.fmean(forward[-5:])}
            here["norm"], here["growth of norm"] = norm[-1], norm_growth(norm)
            here |= task.further(method, seed)
            every[k]["rows"][name] = here
            every[k]["curves"][name] = {"step": found.steps, "forward": forward, "norm": norm}
            if seed == 0:
                every[k]["shown"][name] = {**sample_forecasts(method, task, seed), **task.portrait(method, seed)}
    maps = mapped(task, steps) if mapped and 0 in seeds else {}
    for seed, one in zip(seeds, every, strict=True):
        fresh = build_untrained(task, seed)
        one["rows"] |= {UNTRAINED: probe_form(task, fresh, seed), **naive_rows(task, fresh, seed), **task.beside(seed)}
        yield {**one, "map": maps if seed == 0 else {}}


def build_untrained(task: Task, seed: int, form: str = "bijepa") -> BiJEPA:
    """The untrained method of a form."""
    start = training_run(task, FORMS[form], seed, 1)
    dataset = replace(task.data, count=NUM_WINDOWS).open()
    method = build(start.method, signal_of(task, dataset), start.seed)
    assert isinstance(method, BiJEPA)
    return method.eval()


def norm_growth(norm: Sequence[float]) -> float:
    """The final norm over the norm after a tenth of the training."""
    return norm[-1] / norm[len(norm) // 10]


def tabulate_forms(seeds: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """The values of every metric of every row, by seed."""
    first = seeds[0]["rows"]
    return {(name, metric): [one["rows"][name][metric] for one in seeds] for name in first for metric in first[name]}


def paper_figures(paper: Mapping[str, tuple[float, float, float]]) -> dict[tuple[str, str], float]:
    """The paper's figures by (name, metric): forward loss, A and B of every form."""
    metrics = ("forward loss", "A_adam", "B_adam")
    return {(name, metric): v for name, row in paper.items() for metric, v in zip(metrics, row, strict=True)}
