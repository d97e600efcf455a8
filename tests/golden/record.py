"""The losses of a few tiny trainings, in fp32 on one thread of the CPU: `python tests/golden/record.py` writes them.

Every method of the house is recorded without being named here. A list that still agrees with what is committed stays as
it is, to the digit, so that the difference under version control shows what has moved, and nothing else.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from jepakit import methods, recipes, testing
from jepakit.core import schedules
from jepakit.data import loader
from jepakit.masks.multiblock import MultiBlock
from jepakit.nn.predictor import Predictor
from jepakit.run import optim
from jepakit.testing.case import parents_for
from jepakit.types import Batch, Rng, Signal

FILE = Path(__file__).with_name("losses.json")
COMMAND = "python tests/golden/record.py"
RTOL = 1e-5
STEPS = 6


@dataclass(frozen=True)
class Training:
    """What one list of losses comes from; `batches` begins anew each time it is called."""

    method: Any
    signal: Signal
    batches: Callable[[], Iterator[Batch]]
    optim: optim.Optim


def contract(name: str, axes: int = 0) -> Training:
    """A method's tiny settings on the contract's batch, of the first signal it takes (with `axes` axes, if given)."""
    method = methods.load(name)
    taken = [s for s in testing.variants() if method.Method.needs <= s.has and axes in (0, len(s.size))]
    batch = testing.example(taken[0])
    return Training(method.Config.tiny(taken[0]), taken[0], lambda: repeat(batch), optim.Optim())


def demo(**changes: Any) -> Training:
    """The recipe `demo`, its pictures and their loader with it, at a batch of 8; `changes` are to its method."""
    run: Any = recipes.load_recipe("demo")
    cfg = replace(run.data, count=64)
    dataset = cfg.open()
    signal = dataset.signal()
    stream = partial(loader.batches, dataset, signal, seed=0, batch=8, start=0, stop=STEPS, workers=0)
    return Training(replace(run.method, **changes), signal, stream, run.optim)


def trainings() -> dict[str, Callable[[], Training]]:
    """Name → how the training is put together: every method of the house, and what its tiny settings leave out."""
    own = [name for name, place in methods.METHODS.places().items() if not place.owner]
    exact = Predictor(width=64, depth=2, heads=2, mlp_ratio=2.0)
    return {
        **{name: partial(contract, name) for name in own},
        "ijepa-video": partial(contract, "ijepa", 3),
        "ijepa-series": partial(contract, "ijepa", 1),
        "demo-shared-context": demo,
        "demo-published-masks": partial(demo, masks=(MultiBlock(compat="ijepa", min_context=4),), predictor=exact),
    }


def losses(training: Training, count: int = STEPS) -> list[float]:
    """The loss of each of the first `count` steps, as the training loop would see it."""
    head = methods.load(methods.name_of(training.method)).Method if methods.is_head(training.method) else None
    parents = parents_for(head, training.signal) if head else ()
    method = methods.build(training.method, training.signal, parents=parents)
    optimizer = optim.build_optimizer(training.optim, method)
    values = []
    for step, batch in zip(range(count), training.batches(), strict=False):
        progress = schedules.run_progress(step, STEPS)
        optim.set_schedule(optimizer, training.optim, progress)
        total = method(batch.to("cpu"), Rng(0, step, total=len(batch))).total
        optimizer.zero_grad()
        total.backward()
        optim.clip_gradients(method.parameters(), training.optim.clip)
        optimizer.step()
        method.after_step(progress)
        values.append(total.item())
    return values


def recorded() -> dict[str, list[float]]:
    """What is committed."""
    found: dict[str, list[float]] = json.loads(FILE.read_text())["losses"] if FILE.exists() else {}
    return found


def agree(a: list[float], b: list[float]) -> bool:
    """Whether two lists are the same but for what one processor rounds otherwise than another."""
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=RTOL) for x, y in zip(a, b, strict=True))


def compare(before: Mapping[str, list[float]], now: Mapping[str, list[float]]) -> list[str]:
    """One line per training: what became of it."""
    lines = [f"{name}: gone" for name in before if name not in now]
    for name, values in now.items():
        if name not in before:
            lines.append(f"{name}: new, from {values[0]:.6g} to {values[-1]:.6g}")
        elif agree(before[name], values):
            lines.append(f"{name}: as before")
        else:
            lines.append(f"{name}: MOVED, the last loss from {before[name][-1]:.6g} to {values[-1]:.6g}")
    return lines


def main() -> None:
    torch.set_num_threads(1)
    before = recorded()
    now = {name: losses(make()) for name, make in trainings().items()}
    kept = {name: before[name] if agree(before.get(name, []), now[name]) else now[name] for name in sorted(now)}
    FILE.write_text(json.dumps({"torch": torch.__version__, "losses": kept}, indent=1) + "\n")
    print("\n".join(compare(before, now)))


if __name__ == "__main__":
    main()
