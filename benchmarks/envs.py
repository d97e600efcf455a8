"""How much faster are trajectories of Two Rooms generated at once than one after the other?

Three ways to data of the same kind, with actions held for two steps and 33 × 33 pictures of every second frame, on one
thread:

- at once: `behave` with a batch of ids;
- one by one: the same function with one id after the other;
- plain loop: one trajectory after the other in plain Python and NumPy, step by step, with the geometry in floats and a
  picture drawn for each frame. It has no walks through the door, so it does less.

    python benchmarks/envs.py
"""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from record import save

from jepakit.envs import build_environment
from jepakit.types import Rng

ROUNDS, BATCH, SINGLE, STEPS = 7, 2000, 12, 32


def plain_walk(seed: int, steps: int, size: int = 33) -> tuple[np.ndarray, np.ndarray]:
    """One trajectory: pictures (2, F, size, size) and actions (steps, 2)."""
    rng = np.random.default_rng(seed)
    wall, door = rng.uniform(20, 45), rng.uniform(10, 55)
    x, y = rng.uniform(4, wall - 1.01), rng.uniform(4, 60)
    heading = rng.uniform(0, 2 * math.pi)
    places, actions = [(x, y)], []
    for step in range(steps):
        if step % 2 == 0:
            heading += 0.45 * rng.standard_normal()
            length = 0.0
            while not 0.2 <= length <= 2.45:
                length = 1.5 + 0.6 * rng.standard_normal()
            dx, dy = length * math.cos(heading), length * math.sin(heading)
        share = first_hit(x, y, dx, dy, wall, door)
        x, y = x + share * dx, y + share * dy
        actions.append((dx, dy))
        if step % 2:
            places.append((x, y))
    grid = np.linspace(0, 64, size, dtype=np.float32)
    frames = [np.exp(-((grid[None] - px) ** 2 + (grid[:, None] - py) ** 2) / 8) for px, py in places]
    background = np.zeros((size, size), np.float32)
    background[:, np.abs(grid - wall) < 2] = 1
    background[np.abs(grid - door) < 4] = 0
    background[[2, -3]] = background[:, [2, -3]] = 1
    return np.stack([np.stack(frames), np.broadcast_to(background, (len(frames), size, size))]), np.array(actions)


def first_hit(x: float, y: float, dx: float, dy: float, wall: float, door: float) -> float:
    """The share of a move before the first obstacle."""
    share = 1.0
    for start, along in ((x, dx), (y, dy)):
        if along:
            share = min(share, max(((60.0 if along > 0 else 4.0) - start) / along, 0.0))
    if dx:
        side = wall - math.copysign(1.01, dx)
        when = (side - x) / dx
        if -1e-4 < when < share and abs(y + when * dy - door) > 3.99:
            share = max(when, 0.0)
    if dy and abs(y - door) <= 4:
        when = (door + math.copysign(3.99, dy) - y) / dy
        if -1e-4 < when < share and abs(x + when * dx - wall) < 1.01:
            share = max(when, 0.0)
    return share


def milliseconds(generate: Callable[[], object], count: int) -> float:
    """Processor time for one trajectory."""
    begin = time.process_time()
    generate()
    return (time.process_time() - begin) * 1e3 / count


def measure() -> dict[str, float]:
    """Medians over rounds in which the ways alternate, so that a slow machine slows all."""
    env = build_environment("two-rooms-random")

    def behave(ids: np.ndarray, seed: int) -> None:
        env.behave(ids, Rng(seed), STEPS, hold=2, every=2)

    rows = []
    for k in range(ROUNDS + 1):
        at_once = milliseconds(lambda k=k: behave(np.arange(BATCH), k), BATCH)
        alone = milliseconds(lambda k=k: [behave(np.array([i]), k) for i in range(SINGLE)], SINGLE)
        plain = milliseconds(lambda k=k: [plain_walk(SINGLE * k + i, STEPS) for i in range(SINGLE)], SINGLE)
        rows.append((at_once, alone, plain, alone / at_once, plain / at_once))
    names = ("at_once_ms", "one_by_one_ms", "plain_loop_ms", "one_by_one_ratio", "plain_loop_ratio")
    columns = zip(*rows[1:], strict=True)
    return {name: round(statistics.median(column), 4) for name, column in zip(names, columns, strict=True)}


def main() -> None:
    torch.set_num_threads(1)
    found = measure()
    for name, value in found.items():
        print(f"{name:18} {value:9.3f}")
    save("envs", threads=1, rounds=ROUNDS, batch=BATCH, steps=STEPS, frames=STEPS // 2 + 1, size=33, **found)


if __name__ == "__main__":
    main()
