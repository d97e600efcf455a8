"""Two processes (gloo) must have the loss and the gradient of one process with the same global batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import joined_rank, run_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from jepakit import losses
from jepakit.core import distributed
from jepakit.nn.heads import BatchNorm

WORLD, BATCH, TOKENS, DIM = 2, 8, 3, 5
PARTS = (({"b": "no image", "a\udcff": "größe"}, {}), ({}, {"c": "x" * 5000}), ({"d": "0"}, {"d": "1", "a": "2"}))


class Program(nn.Module):
    """A loss whose terms need the whole batch: batch normalisation, the spread of means."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(DIM, DIM)
        self.norm = BatchNorm(DIM)
        self.outer = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        s = self.norm(self.inner(x))
        pred = losses.prediction(self.outer(s), x, "l2")
        own = s.mean(1)
        return pred + distributed.global_moments(own)[1].add(1e-4).sqrt().mean()


def data() -> Tensor:
    return torch.randn(BATCH, TOKENS, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def train(dist: distributed.Dist) -> dict[str, Any]:
    """Three steps on this rank's part of the batch; what came out, for comparison."""
    x = data()
    part = slice(dist.rank * BATCH // dist.world, (dist.rank + 1) * BATCH // dist.world)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        program = Program().double()
    model = DistributedDataParallel(program) if dist.world > 1 else program
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    out: dict[str, Any] = {"loss": []}
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x[part])
        loss.backward()
        out["loss"].append(distributed.all_reduce_sum(loss.detach()) / dist.world)
        optimizer.step()
    out["grad"] = {name: p.grad for name, p in program.named_parameters()}
    out["state"] = program.state_dict()
    return out


def plain(dist: distributed.Dist) -> dict[str, Any]:
    """The functions by themselves, with gradients that differ from rank to rank."""
    x = torch.tensor([1.0 + dist.rank, 10.0], dtype=torch.float64, requires_grad=True)
    total = distributed.all_reduce_sum(x)
    loss = (dist.rank + 1) * total.square().sum()
    (grad,) = torch.autograd.grad(loss, x)
    second = torch.autograd.grad(
        torch.autograd.grad(distributed.all_reduce_sum(x).pow(3).sum(), x, create_graph=True)[0].sum(), x
    )[0]
    distributed.wait_for_all()
    return {
        "sum": total.detach(),
        "grad": grad,
        "second": second,
        "rank": (distributed.process_rank(), distributed.world_size(), dist.main),
        # Of unequal length, one of them empty; a name that is no UTF-8 text has a lone surrogate.
        "merged": [distributed.merge_ranks(part[dist.rank]) for part in PARTS],
    }


def worker(rank: int, port: int, folder: str) -> None:
    with joined_rank(rank, port, WORLD) as dist:
        out = {"train": train(dist), "plain": plain(dist)}
    assert not torch.distributed.is_initialized()
    torch.save({**out, "threads": thread_names()}, f"{folder}/{rank}.pt")


def thread_names() -> list[str]:
    """The names of this process's threads, where the system lists them."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(worker, tmp_path_factory.mktemp("ranks"), WORLD)


def test_two_ranks_train_as_one_process_with_the_same_global_batch(ranks: list[dict[str, Any]]) -> None:
    alone = train(distributed.Dist())
    for rank in ranks:
        assert_close(rank["train"], alone, atol=1e-9, rtol=0)


def test_sums_are_the_same_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert_close(rank["plain"]["sum"], torch.tensor([3.0, 20.0]).double())


def test_merged_entries_are_those_of_all_ranks_in_order_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    expected = [list((first | second).items()) for first, second in PARTS]
    for rank in ranks:
        assert [list(merged.items()) for merged in rank["plain"]["merged"]] == expected


def test_a_gradient_through_a_sum_collects_the_losses_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    # Losses weigh 1 and 2: each rank's input meets both.
    for rank in ranks:
        assert_close(rank["plain"]["grad"], 3 * 2 * torch.tensor([3.0, 20.0]).double())


def test_a_second_derivative_through_a_sum_is_right(ranks: list[dict[str, Any]]) -> None:
    # d²/dx² of W·(Σx)³ with the second gradient summed over the W ranks: W · W · 6 Σx.
    for rank in ranks:
        assert_close(rank["plain"]["second"], 4 * 6 * torch.tensor([3.0, 20.0]).double())


def test_ranks_know_their_place(ranks: list[dict[str, Any]]) -> None:
    assert [rank["plain"]["rank"] for rank in ranks] == [(0, 2, True), (1, 2, False)]


def test_no_thread_of_a_group_outlives_it(ranks: list[dict[str, Any]]) -> None:
    # At interpreter shutdown, a thread that still held a tensor would abort the process.
    for rank in ranks:
        assert not [name for name in rank["threads"] if "gloo" in name]


def test_in_one_process_everything_is_the_identity() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    with distributed.process_group() as dist:
        assert dist == distributed.Dist(0, 1, torch.device("cpu"))
        assert distributed.all_reduce_sum(x) is x
        assert distributed.merge_ranks({"a": "b"}) == {"a": "b"}
        assert (distributed.process_rank(), distributed.world_size()) == (0, 1)


def test_an_incomplete_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ValueError, match="MASTER_PORT, RANK is not set; start with torchrun"),
        distributed.process_group(),
    ):
        pass


def test_moments_are_those_of_the_rows_even_far_from_zero() -> None:
    x = 1000 + torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    mean, var, count = distributed.global_moments(x)
    assert count == 50
    assert_close(mean, x.mean(0))
    assert_close(var, x.var(0, correction=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(16,), (4, 5), (3, 2, 4)])
def test_batch_norm_equals_torchs_in_one_process(shape: tuple[int, ...]) -> None:
    gen = torch.Generator().manual_seed(1)
    ours, theirs = BatchNorm(DIM).double(), nn.BatchNorm1d(DIM).double()
    theirs.weight.data = torch.randn(DIM, generator=gen, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):
        x = (2 + 3 * torch.randn(*shape, DIM, generator=gen, dtype=torch.float64)).requires_grad_()
        y = x.detach().clone().requires_grad_()
        a, b = ours(x), theirs(y.reshape(-1, DIM)).reshape(y.shape)
        assert_close(a, b)
        a.pow(3).sum().backward()
        b.pow(3).sum().backward()
        assert_close(x.grad, y.grad)
    assert_close(ours.state_dict(), theirs.state_dict())
    ours.eval()
    theirs.eval()
    assert_close(ours(x), theirs(y.reshape(-1, DIM)).reshape(y.shape))


def test_batch_norm_keeps_its_statistics_in_fp32_for_bf16_input() -> None:
    x = (300 + torch.randn(64, DIM, generator=torch.Generator().manual_seed(0))).bfloat16()
    norm = BatchNorm(DIM)
    assert norm(x).dtype == torch.bfloat16
    assert_close(norm.running_mean, 0.1 * x.float().mean(0))
