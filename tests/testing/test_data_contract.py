"""The data contract holds for every kind of data, and names what is planted against it."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frozen.batches import CASES, prepared

from jepakit.data import Report, load
from jepakit.run.parse import apply_changes
from jepakit.testing import data_contract
from jepakit.types import Rng, Sample, Samples, Signal, Size

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin_package"))

from outside_parts import episodes

KINDS = (
    *("images, views", "images, one broken", "tar, views", "parquet", "arrays, views", "arrays, floats"),
    *("scenes", "shapes, views", "table, views", "unequal, padded, views", "unequal, cut", "labelled series"),
    *("sines, views", "scanpaths, views", "scanpaths, flip", "made up, arrays"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with prepared(tmp_path_factory.mktemp("contract")):
        yield


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_data_keeps_the_contract(name: str) -> None:
    kind, settings = CASES[name]
    data_contract(apply_changes(load(kind)(), settings))


@pytest.mark.usefixtures("data")
def test_the_first_frames_of_a_stream_keep_the_contract() -> None:
    data_contract(apply_changes(load("stream")(), {"path": "data/frames", "warm": 12, "window": 4, "settle": 0.0}))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Seven episodes of 5 to 8 frames with two actions, a reward and an end."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "episodes.npz",
        observations=rng.normal(size=(7, 8, 3)).astype(np.float32),
        actions=rng.normal(size=(7, 7, 2)).astype(np.float32),
        rewards=rng.normal(size=(7, 7)).astype(np.float32),
        dones=np.zeros((7, 7), bool),
        labels=np.arange(7) % 2,
        lengths=np.array([8, 5, 6, 8, 7, 5, 8]),
    )
    return str(tmp_path / "episodes.npz")


def test_an_outside_kind_with_actions_rewards_and_ends_keeps_the_contract(path: str) -> None:
    data_contract(episodes.Config(path))
    batch = episodes.Config(path).open().draw(np.arange(3), Rng(0), episodes.Config(path).open().signal()).batch()
    assert batch.action is not None
    assert batch.reward is not None
    assert batch.done is not None
    assert (batch.action.shape, batch.reward.shape, batch.done.dtype) == ((3, 7, 2), (3, 7), torch.bool)


COUNTER = itertools.count()


class Drawn(episodes.Episodes):
    """Draws of its own, which depend on what a plain kind's do not."""

    def noise(self, ids: np.ndarray) -> Any:
        raise NotImplementedError

    def draw(self, ids: np.ndarray, rng: Rng, signal: Signal, include_x: bool = True) -> Samples:
        found = super().draw(ids, rng, signal, include_x)
        return found._replace(reward=found.reward + self.noise(ids))


class OfTheWorker(Drawn):
    def noise(self, ids: np.ndarray) -> Any:
        info = torch.utils.data.get_worker_info()
        return 0.0 if info is None else 1.0 + info.id


class OfTheBatch(Drawn):
    def noise(self, ids: np.ndarray) -> Any:
        return float(len(ids))


class OfTheOrder(Drawn):
    def noise(self, ids: np.ndarray) -> Any:
        return float(next(COUNTER))


class OfTheGlobalState(Drawn):
    def noise(self, ids: np.ndarray) -> Any:
        return torch.rand(1)


class OfAnotherItem(episodes.Episodes):
    def read(self, ids: np.ndarray, size: Size) -> Samples:
        return super().read(np.sort(ids), size)


class WithoutActions(episodes.Episodes):
    def sample(self, i: int, size: Size) -> Sample:
        return super().sample(i, size)._replace(action=None)


class WithPadding(episodes.Episodes):
    def sample(self, i: int, size: Size) -> Sample:
        found = super().sample(i, size)
        return found._replace(x=found.x + 1)


class WithOneFingerprint(episodes.Episodes):
    def fingerprint(self) -> str:
        return "always"

    def subset(self, rows: np.ndarray, labels: np.ndarray | None = None) -> Any:
        return replace(self, rows=self.rows[rows])


class WithoutLabelsOfASubset(episodes.Episodes):
    def subset(self, rows: np.ndarray, labels: np.ndarray | None = None) -> Any:
        return replace(self, rows=self.rows[rows])


class WithoutAReport(episodes.Episodes):
    def report(self, progress: Any = None) -> Report:
        raise KeyError("report")


class WithALongRefusal(episodes.Episodes):
    def film(self, i: int) -> str:
        raise ValueError("no\nfilms")


class WithLabelsBeyondTheClasses(episodes.Episodes):
    def label(self, i: int) -> int:
        return 2


FAULTS = {
    OfTheWorker: "1 workers make other batches than the process itself; keep no state in draw",
    OfTheBatch: "an item drawn alone differs from the same item in a batch",
    OfTheOrder: "drawing the same items again gives others",
    OfTheGlobalState: "draw draws from the global random state",
    OfAnotherItem: r"read gives items \[.*\] where \[.*\] were asked for",
    WithoutActions: "signal and draw differ on whether actions are",
    WithPadding: "padding is not 0",
    WithOneFingerprint: "fingerprint is the same with one item less",
    WithoutLabelsOfASubset: "subset does not take the labels",
    WithoutAReport: r"raises KeyError, 'report' \(clause: every question is answered or refused\)",
    WithALongRefusal: r"probe dense: film is refused with 'no\\nfilms'",
    WithLabelsBeyondTheClasses: r"a label is not in range\(-1, 2\)",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda kind: kind.__name__)
def test_a_planted_fault_is_named(path: str, fault: type[episodes.Episodes]) -> None:
    @dataclass(frozen=True)
    class Config(episodes.Config):
        def open(self) -> episodes.Episodes:
            whole = super().open()
            return fault(whole.arrays, whole.rows, whole.source, self)

    with pytest.raises(AssertionError, match=FAULTS[fault]):
        data_contract(Config(path))


def test_two_items_are_too_few_to_tell() -> None:
    with pytest.raises(AssertionError, match="holds 2 items; give the contract 3 or more"):
        data_contract(load("synthetic")("shapes", count=2))
