"""How much faster is it to draw a batch of masks at once than one sample after another, like the reference?

The loop below follows the structure of the published sampler (per sample: place a block, paint it, collect its indices;
the context retries until it is large enough; then everything is stacked), written from its description. One thread.

    python benchmarks/masks.py
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
from record import save

from jepakit.masks.multiblock import MultiBlock
from jepakit.types import Grid, Masks, Rng

# With the reference's 10, the loop never ends on an 8 × 8 grid, where a target may have 9 tokens.
ROUNDS, BATCH, MIN_TOKENS = 9, 256, 4


def place(
    grid: Grid, shape: Grid, allowed: list[torch.Tensor], gen: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One block of the reference's loop: its tokens within the allowed regions, and the mask of its complement."""
    tries = 20 * (len(allowed) + 1)
    while True:
        top = int(torch.randint(0, grid[0] - shape[0], (1,), generator=gen))
        left = int(torch.randint(0, grid[1] - shape[1], (1,), generator=gen))
        mask = torch.zeros(grid, dtype=torch.int32)
        mask[top : top + shape[0], left : left + shape[1]] = 1
        for region in allowed[: tries // 20]:
            mask *= region
        tokens = torch.nonzero(mask.flatten())
        if len(tokens) > MIN_TOKENS:
            break
        tries -= 1
    complement = torch.ones(grid, dtype=torch.int32)
    complement[top : top + shape[0], left : left + shape[1]] = 0
    return tokens.squeeze(1), complement


def loop(grid: Grid, batch: int, seed: int) -> Masks:
    """Masks drawn like the reference: a Python loop over samples and blocks."""
    gen = torch.Generator().manual_seed(seed)
    u, v = torch.rand(2, generator=gen).tolist()
    area, ratio = math.prod(grid) * (0.15 + 0.05 * u), 0.75 + 0.75 * u
    shape = (round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio)))
    side = math.sqrt(0.85 + 0.15 * v)
    window = tuple(min(round(side * g), g - 1) for g in grid)
    contexts, targets = [], []
    for _ in range(batch):
        blocks = [place(grid, shape, [], gen) for _ in range(4)]
        targets.append([tokens for tokens, _ in blocks])
        contexts.append(place(grid, window, [free for _, free in blocks], gen)[0])
    keep = min(len(c) for c in contexts)
    return Masks(torch.stack([c[:keep] for c in contexts]), torch.stack([torch.stack(t) for t in targets]))


def milliseconds(draw: Callable[..., Masks], *args: object) -> float:
    # CPU time: on a busy machine, wall time would include what other processes do during the long loop.
    begin = time.process_time()
    draw(*args)
    return (time.process_time() - begin) * 1e3


def measure(grid: Grid) -> dict[str, object]:
    """Medians over rounds in which both ways alternate, so that a slow machine slows both."""
    sampler, rows = MultiBlock(), []
    for k in range(ROUNDS + 1):
        slow = milliseconds(loop, grid, BATCH, k)
        fast = statistics.median(milliseconds(sampler, grid, BATCH, Rng(k, j)) for j in range(20))
        rows.append((slow, fast, slow / fast))
    slow, fast, ratio = (round(statistics.median(column), 3) for column in zip(*rows[1:], strict=True))
    return {"grid": list(grid), "batch": BATCH, "loop_ms": slow, "ours_ms": fast, "ratio": ratio}


def main() -> None:
    torch.set_num_threads(1)
    results = [measure(grid) for grid in ((8, 8), (14, 14), (16, 16))]
    print("grid      batch   loop ms   ours ms   ratio")
    for r in results:
        print(f"{r['grid']!s:9} {r['batch']:5} {r['loop_ms']:9.2f} {r['ours_ms']:9.2f} {r['ratio']:7.1f}")
    save("masks", threads=1, seed=0, rounds=ROUNDS, rows=results)


if __name__ == "__main__":
    main()
