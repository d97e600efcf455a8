"""What compares samples sees those of all ranks: two processes have the loss and the gradient of one, to 1e-9."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import joined_rank, run_ranks
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from jepakit import losses, methods, testing
from jepakit.core import distributed
from jepakit.masks.random import Random
from jepakit.nn.heads import Projector
from jepakit.types import Rng, Signal

WORLD, VIEWS, BATCH, DIM = 2, 3, 8, 5
SIGNAL = Signal(3, (16, 16), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2), views=2)
VIDEO = Signal(3, (6, 8, 8), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2))


def projected(z: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = Projector(layers=3, hidden=7, out=4).build(DIM).to(z)
    return projector(z)


# Of this rank's part of z, (views, samples, features).
TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "invariance": losses.invariance,
    "variance": lambda z: losses.variance(0.4 * z[0]),
    "covariance": lambda z: losses.covariance(z[0]),
    "vicreg": lambda z: torch.stack(list(losses.vicreg(0.6 * z).values())).sum(),
    "sigreg": lambda z: losses.sigreg(z, losses.unit_directions(DIM, 6, Rng(1))),
    "info_nce": lambda z: losses.info_nce(z[0], z[1], 0.3),
    "info_nce-decoupled": lambda z: losses.info_nce(z[0], z[1], 0.3, decoupled=True),
    "projector": lambda z: projected(z).pow(3).mean(),
    "all_gather": lambda z: distributed.all_gather(z[0]).cumsum(0).pow(2).mean(),
}
# Method, and the settings that differ from the smallest.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cjepa-blocks": ("cjepa", {"b_vic": 1.0, "masks": (Random(num_targets=2), Random(num_targets=3))}),
    "cjepa-context-target": ("cjepa", {"b_vic": 1.0, "pairs": "context-target"}),
    "cjepa-views": ("cjepa", {"b_vic": 1.0, "pairs": "views"}),
    "vicreg": ("vicreg", {}),
    "lejepa": ("lejepa", {}),
    "simclr": ("simclr", {}),
    "simclr-decoupled": ("simclr", {"decoupled": True}),
    "mae": ("mae", {}),
    "rjepa-bptt": ("rjepa", {}),
    "rjepa-rfp": ("rjepa", {"rule": "rfp", "chunk": 4, "below": "frozen"}),
}


def part(dist: distributed.Dist) -> slice:
    return slice(dist.rank * BATCH // dist.world, (dist.rank + 1) * BATCH // dist.world)


def term(name: str, dist: distributed.Dist) -> dict[str, Tensor]:
    """The loss, mean over ranks, and this rank's gradient as DDP would average it."""
    gen = torch.Generator().manual_seed(0)
    z = 1 + torch.randn(VIEWS, BATCH, DIM, generator=gen, dtype=torch.float64)
    mine = z[:, part(dist)].clone().requires_grad_()
    loss = TERMS[name](mine)
    (grad,) = torch.autograd.grad(loss, mine)
    return {"loss": distributed.all_reduce_sum(loss.detach()) / dist.world, "grad": grad / dist.world}


def method(name: str, dist: distributed.Dist) -> dict[str, Any]:
    """The terms of one step of a whole method, and its gradients."""
    key, changes = METHODS[name]
    entry = methods.load(key)
    signal = VIDEO if key == "rjepa" else SIGNAL
    built = methods.build(replace(entry.Config.tiny(signal), **changes), signal).double()
    model = DistributedDataParallel(built) if dist.world > 1 else built
    batch = testing.example(signal, BATCH).to("cpu", torch.float64)[part(dist)]
    terms = model(batch, Rng(2, offset=part(dist).start, total=BATCH))
    terms.total.backward()
    values = {k: distributed.all_reduce_sum(v.detach()) / dist.world for k, v in terms.loss.items()}
    return {"loss": values, "grad": {n: p.grad for n, p in built.named_parameters() if p.requires_grad}}


def worker(rank: int, port: int, folder: str) -> None:
    with joined_rank(rank, port, WORLD) as dist:
        done = {"term": {k: term(k, dist) for k in TERMS}, "method": {k: method(k, dist) for k in METHODS}}
        torch.save(done, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(worker, tmp_path_factory.mktemp("gathered"), WORLD)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_on_two_ranks_is_that_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = term(name, distributed.Dist())
    assert alone["grad"].any()
    for rank, found in enumerate(ranks):
        assert_close(found["term"][name]["loss"], alone["loss"], atol=1e-9, rtol=0)
        mine = alone["grad"][:, part(distributed.Dist(rank, WORLD))]
        assert_close(found["term"][name]["grad"], mine, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_two_ranks_is_that_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = method(name, distributed.Dist())
    for found in ranks:
        assert_close(found["method"][name], alone, atol=1e-9, rtol=0)


def test_forward_propagation_on_two_ranks_is_bptt_in_one_process(ranks: list[dict[str, Any]]) -> None:
    alone = method("rjepa-bptt", distributed.Dist())
    for found in ranks:
        mine = found["method"]["rjepa-rfp"]
        assert_close(mine["loss"], alone["loss"], atol=1e-9, rtol=0)
        assert mine["grad"]
        for name, grad in mine["grad"].items():
            assert_close(grad, alone["grad"][name], atol=1e-9, rtol=0)
