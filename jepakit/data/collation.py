"""Put samples together, leave padding out, and deal with items that cannot be read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import default_collate

from ..types import Samples, unit

Corrupt = Literal["skip", "fail"]


class Unreadable(Exception):  # noqa: N818 - the caller decides whether it is an error
    """An item that cannot be decoded, with its name and the reason."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def stack_samples(rows: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "b ..."]:
    """One tensor from one or more rows: uint8 if all rows are 8-bit, else float32."""
    same = all(x.dtype == torch.uint8 for x in rows)
    # In a worker, the DataLoader's own function stacks straight into shared memory.
    stacked: Tensor = default_collate(list(rows) if same else [unit(x) for x in rows])
    return stacked


def stack_groups(
    parts: Iterable[Shaped[Tensor, "b ..."]], counts: Iterable[int]
) -> tuple[Shaped[Tensor, "b _ ..."], ...]:
    """Views, one batch each, as one batch per group; the groups have `counts` views."""
    rest = iter(parts)
    return tuple(torch.stack(list(islice(rest, count)), 1) for count in counts)


def without_padding(found: Samples) -> Iterator[Shaped[Tensor, "_ c ..."]]:
    """The x of the samples without their padding: one batch if nothing is padded, else one sample at a time."""
    if found.x is None or not len(found.x):
        return
    if found.length is None:
        yield found.x
        return
    for x, length in zip(found.x, found.length.tolist(), strict=True):
        yield x[None, :, :length]


def refuse_unreadable(skipped: Mapping[str, str], corrupt: Corrupt) -> None:
    """Raises ValueError, naming the first unreadable item, if unreadable items must fail the run."""
    if skipped and corrupt == "fail":
        name, why = next(iter(skipped.items()))
        raise ValueError(f"cannot read {name}: {why}; remove or replace it, or set data.corrupt=skip") from None


def example_of(skipped: Mapping[str, str]) -> str:
    """The name and reason of one unreadable item, as part of a sentence."""
    name, why = next(iter(skipped.items()))
    return f"{name} ({why})"
