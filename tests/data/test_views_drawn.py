"""A kind of data that promises views and does not make them is refused before step 1."""

from dataclasses import dataclass, field

import pytest
import torch

from jepakit import methods, testing
from jepakit.data.base import Dataset
from jepakit.data.config import DataConfig
from jepakit.data.images.augment import Augment
from jepakit.run.settings import Length, Run
from jepakit.training import resolve
from jepakit.types import Sample, Size


@dataclass(frozen=True)
class Config(DataConfig):
    """Squares of noise."""

    augment: Augment = field(default_factory=Augment)
    with_views: bool = False

    def open(self) -> "Squares":
        return Squares(self)


@dataclass(frozen=True, eq=False)
class Squares(Dataset):
    """A kind that has `sample` and no `draw`."""

    cfg: Config
    channels, native = 1, (16, 16)

    def __len__(self) -> int:
        return 8

    def name(self, i: int) -> str:
        return f"square-{i}"

    def fingerprint(self) -> str:
        return f"squares-{len(self)}"

    def sample(self, i: int, size: Size) -> Sample:
        x = torch.rand(1, *size, generator=torch.Generator().manual_seed(i))
        views = tuple(x.repeat(group.count, 1, 1, 1) for group in self.cfg.augment.views) if self.cfg.with_views else ()
        return Sample(x, views=views)


def resolve_run(method: str, cfg: Config) -> resolve.ResolvedRun:
    return resolve.resolve_run(Run(methods.load(method).Config(), cfg, length=Length(steps=1, batch=4)), cfg.open())


@pytest.mark.parametrize("method", ["simclr", "vicreg", "lejepa"])
def test_a_kind_that_only_has_samples_is_refused_by_methods_that_need_views(method: str) -> None:
    sentence = r"asks for 2 views of each item, but Squares\.draw makes 0; give Squares a draw that makes them"
    with pytest.raises(ValueError, match=sentence):
        resolve_run(method, Config())


def test_a_kind_that_only_has_samples_suits_a_method_that_needs_no_views() -> None:
    assert resolve_run("ijepa", Config()).signal.views == 0


def test_a_kind_whose_samples_carry_the_views_is_accepted() -> None:
    assert resolve_run("simclr", Config(with_views=True)).signal.views == 2


def test_the_data_contract_names_views_that_are_not_drawn() -> None:
    with pytest.raises(AssertionError, match=r"Squares\.draw makes 0"):
        testing.data_contract(Config(path="squares"))
