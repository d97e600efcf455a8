"""The method that docs/add-a-method.md shows is a right one as it is written."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from jepakit import testing
from jepakit.methods.base import token_rows
from jepakit.testing.clauses import LEARNING_STEPS, learns_one_batch
from jepakit.training.monitor import Monitor
from jepakit.types import Batch, Rng, Signal, Terms

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


@pytest.fixture(scope="module")
def byol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The first block of Python on the page, as a module of its own."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    file = tmp_path_factory.mktemp("page") / "byol.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("byol", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["byol"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["byol"]


VIEWED = [signal for signal in testing.variants() if signal.views]


@pytest.mark.parametrize("signal", VIEWED, ids=lambda s: f"{len(s.size)}d")
def test_the_method_on_the_page_keeps_the_contract(byol: ModuleType, signal: Signal) -> None:
    testing.contract(byol.BYOL, [signal])


def test_the_panel_sees_what_the_loss_of_the_page_compares(byol: ModuleType) -> None:
    signal = VIEWED[0]
    case = testing.Case(byol.BYOL, signal, testing.example(signal))
    method = case.build()
    for _ in case.steps(method, LEARNING_STEPS):
        pass
    terms = method(case.batch, Rng(0))
    assert terms.compared is not None
    pred, target = terms.compared
    torch.testing.assert_close((pred - target).square().mean(), terms.total.detach())
    row = Monitor.loss(SimpleNamespace(session=SimpleNamespace(method=method)), terms)  # type: ignore[arg-type]
    assert 0 < row["normalized_loss"] < 1.5


def test_the_contract_finds_sides_that_are_not_normalised_as_in_the_loss(byol: ModuleType) -> None:
    class Raw(byol.BYOL):  # type: ignore[name-defined, misc]
        Config = byol.Config

        def loss(self, batch: Batch, rng: Rng) -> Terms:
            pred = self.predictor(self.embed(batch))[:2]
            terms: Terms = super().loss(batch, rng)
            assert terms.compared is not None
            return replace(terms, compared=(token_rows([pred]), terms.compared[1]))

    signal = VIEWED[0]
    with pytest.raises(AssertionError, match="the normalised loss of a batch that was learnt is"):
        learns_one_batch(testing.Case(Raw, signal, testing.example(signal)))
