"""What do C-JEPA's terms cost? The time of its training step and its peak memory, relative to I-JEPA's.

vit_tiny/16 at 224 px, batch 64, a predictor of 6 x 384, in fp32 and bfloat16. Both methods have the same weights and
see the same images and masks; C-JEPA adds its projector and its terms. The steps run interleaved, round by round. The
table shows medians; ratios are medians of the ratios within a round, of CPU time and of wall time. Memory is the peak
resident size of a process that takes a step, less its size before the method is built.

    python benchmarks/cjepa.py [--rounds 3] [--threads 1] [--precisions fp32 bf16]
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from record import save
from torch import Tensor

from jepakit.methods import cjepa, ijepa
from jepakit.nn import Predictor, vit
from jepakit.run import optim
from jepakit.types import Batch, Rng, Signal

SEED, SIZE, BATCH, FEW = 0, (224, 224), 64, 4
METHODS, PRECISIONS = ("I-JEPA", "C-JEPA"), ("fp32", "bf16")
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}
Step = Callable[[Tensor, Rng], float]


def method(name: str) -> ijepa.IJEPA:
    torch.manual_seed(SEED)
    settings: dict[str, Any] = {"encoder": vit("tiny"), "predictor": Predictor(width=384, depth=6, heads=3)}
    signal = Signal(3, SIZE)
    if name == "C-JEPA":
        return cjepa.CJEPA(cjepa.Config(**settings), signal)
    return ijepa.IJEPA(ijepa.Config(**settings), signal)


def step(name: str, precision: str) -> Step:
    """A training step like the loop's: forward, backward, AdamW and moving average."""
    model = method(name)
    optimizer = optim.build_optimizer(optim.Optim(), model)

    def take(x: Tensor, rng: Rng) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(Batch(x), rng).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.after_step(0.0)
        return loss.item()

    return take


def pictures(round_: int, count: int = BATCH) -> tuple[Tensor, Rng]:
    rng = Rng(SEED, round_)
    return torch.randn(count, 3, *SIZE, generator=rng.generator()), rng


def measure(rounds: int, precisions: list[str]) -> dict[tuple[str, str, str], list[float]]:
    """Seconds by method, precision and clock in every round, after a round with few images to warm up."""
    steps = {(name, precision): step(name, precision) for precision in precisions for name in METHODS}
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for k in range(rounds + 1):
        x, rng = pictures(k, BATCH if k else FEW)
        # Each method goes first in half of the rounds.
        for key in list(steps)[:: 1 if k % 2 else -1]:
            begun = {clock: read() for clock, read in CLOCKS.items()}
            steps[key](x, rng)
            for clock, read in CLOCKS.items():
                if k:
                    seconds.setdefault((*key, clock), []).append(read() - begun[clock])
    return seconds


def peak(name: str, precision: str, threads: int) -> float:
    """The MiB that a step needs, in its own process; a first step, with few images, makes the moments."""
    torch.set_num_threads(threads)
    few, many = pictures(0, FEW), pictures(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    take = step(name, precision)
    take(*few)
    take(*many)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def memory(threads: int, precisions: list[str]) -> dict[str, dict[str, float]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return {p: {name: round(pool.submit(peak, name, p, threads).result()) for name in METHODS} for p in precisions}


def result(rounds: int, threads: int, precisions: list[str]) -> dict[str, Any]:
    # Memory first: a new process inherits the peak size of the process that starts it.
    peaks, seconds = memory(threads, precisions), measure(rounds, precisions)
    time_ratios = {
        f"{precision}, {clock} time": round(
            statistics.median(
                c / i for i, c in zip(*(seconds[name, precision, clock] for name in METHODS), strict=True)
            ),
            3,
        )
        for precision in precisions
        for clock in CLOCKS
    }
    return {
        "threads": threads,
        "seed": SEED,
        "rounds": rounds,
        "milliseconds": {", ".join(k): round(1e3 * statistics.median(v)) for k, v in seconds.items()},
        "MiB": peaks,
        "C-JEPA / I-JEPA": {
            **time_ratios,
            **{f"{p}, memory": round(peaks[p]["C-JEPA"] / peaks[p]["I-JEPA"], 3) for p in precisions},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = result(args.rounds, args.threads, args.precisions)
    save("cjepa-step", **found)
    print("\n".join(f"{name:24}{ms:9,.0f} ms" for name, ms in found["milliseconds"].items()))
    print(
        "\n".join(f"{name + ', ' + p:24}{mib:9,.0f} MiB" for p, of in found["MiB"].items() for name, mib in of.items())
    )
    print("\n".join(f"{name:24}{value:9.2f} x" for name, value in found["C-JEPA / I-JEPA"].items()))


if __name__ == "__main__":
    main()
