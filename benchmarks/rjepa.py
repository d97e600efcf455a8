"""How many observations per second can R-JEPA learn from online, with one optimiser step each?

Each observation takes one step of recurrent forward propagation (chunk 1, batch 1) and one fused AdamW step. The model
is a gated circuit of n = 256 units under a linear predictor. It reads vectors of d = 32, or frames of 3 x 32 x 32
through a small CNN to 32 features, which is frozen or learns from the error of each step alone. Peak memory is that of
all tensors alive at once in one step, including traces but not weights. All variants take turns, round by round;
numbers are medians, in CPU time of one core.

    python benchmarks/rjepa.py [--rounds 9] [--steps 100]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from record import save
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.nn import CNN
from jepakit.recurrent import rfp, unroll
from jepakit.recurrent.cells import Gated
from jepakit.recurrent.circuit import Circuit
from jepakit.studies.rjepa.alive import measure_peak
from jepakit.types import Signal

N, D, SIDE = 256, 32, 32
Step = Callable[[], None]


def give(parameters: list[nn.Parameter], gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    optimizer.step()


def vectors() -> Step:
    """Online learning on vectors; a call is one observation."""
    cell, predictor = Gated(D, N), nn.Linear(N, N)
    above = list(predictor.parameters())
    parameters = [cell.weight, cell.bias, cell.own, *above]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    at = {"state": cell.start(1), "traces": rfp.start(cell, 1)}

    loss = rfp.SquaredError(predictor)

    def step() -> None:
        found = rfp.observe(cell, torch.randn(1, D), loss, above, **at)
        at.update(state=found.state, traces=found.traces)
        give(parameters, list(found.gradients.values()), optimizer)

    return step


def frames(learns: bool) -> Step:
    """Online learning on frames through a CNN; a call is one frame."""
    encoder = CNN(patch=(1, SIDE, SIDE), width=D, channels=(16, 32)).build(Signal(3, (2, SIDE, SIDE)))
    encoder.requires_grad_(learns)
    net, predictor = Circuit(width=N).build(D, (1, 1)), nn.Linear(N, N)
    below = [p for p in encoder.parameters() if p.requires_grad]
    seen: list[Tensor] = [torch.zeros(3, SIDE, SIDE)] * 2

    def maps(first: int, last: int) -> Tensor:
        x = torch.stack(seen[-(last - first) :], 1)[None]
        return encoder(x)[0, :, None, :, None, None]

    def loss(h: Tensor, t: int) -> Tensor:
        return F.mse_loss(predictor(h[:-1]), h[1:].detach())

    rule = unroll.ForwardPropagation(
        net, maps, loss, list(predictor.parameters()), below, "instant" if learns else "frozen"
    )
    optimizer = torch.optim.AdamW(rule.parameters, fused=True)
    # Two steps that are not learnt from: from then on every window holds a pair.
    at = {"stream": rule.run(unroll.start_stream(net, 1), 2)[2]}

    def step() -> None:
        seen[:] = [seen[-1], torch.randn(3, SIDE, SIDE)]
        stream = at["stream"]
        _, found, at["stream"] = rule.run(stream, stream.step + 1)
        give(rule.parameters, found, optimizer)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = {"vectors": vectors(), "frames, CNN frozen": frames(False), "frames, CNN learns": frames(True)}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(args.rounds + 1):
        for name, step in steps.items():
            begun = time.process_time()
            for _ in range(args.steps):
                step()
            if k:
                rates[name].append(args.steps / (time.process_time() - begun))
    memory = {name: round(measure_peak(step) / 2**20, 2) for name, step in steps.items()}
    found = {name: round(statistics.median(values)) for name, values in rates.items()}
    save("rjepa", threads=1, clock="CPU time", rounds=args.rounds, **{"steps per second": found, "MiB": memory})
    print("\n".join(f"{name:22}{rate:7,} steps/s {memory[name]:8.2f} MiB" for name, rate in found.items()))


if __name__ == "__main__":
    main()
