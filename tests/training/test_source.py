"""A source of batches may act, remember and learn from how a step went, and a resumed run goes on with all of it."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import support
import torch

from jepakit import api, collapse
from jepakit.run import checkpoint
from jepakit.training import loop, rollback
from jepakit.training.session import Session, SourceState
from jepakit.training.source import BatchSource, Idle, keep_waiting
from jepakit.types import Batch, Rng, Terms

BATCH = 8


class Replay(BatchSource):
    """Acts, stores and trains: adds the samples that the method's own tokens choose, and replays what it has.

    Its memory is the samples chosen so far and the losses that they had.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        start = {"ids": torch.arange(BATCH), "losses": torch.zeros(0, dtype=torch.float64)}
        self.memory = {**start, **session.state.tensors}

    def batches(self, idle: Idle = keep_waiting) -> Generator[Batch]:
        while self.session.step < self.session.steps:
            ids = self.memory["ids"]
            self.memory["ids"] = torch.cat([ids, self._act(ids[-1:])])
            rows = torch.randint(len(ids) + 1, (BATCH,), generator=Rng(0, self.session.step).generator())
            yield self._read(self.memory["ids"][rows])

    def example_batch(self) -> Batch:
        return self._read(torch.arange(2))

    def _read(self, ids: torch.Tensor) -> Batch:
        images = np.load(self.session.run.data.path)[ids.numpy()]
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, id=ids)

    def _act(self, newest: torch.Tensor) -> torch.Tensor:
        """The item that the features of the newest one point to."""
        with torch.no_grad():
            feature = float(self.session.method.encode(self._read(newest).x).double().abs().sum())
        return torch.tensor([int(feature * 1e6) % 32])

    def feedback(self, terms: Terms) -> None:
        super().feedback(terms)
        self.memory["losses"] = torch.cat([self.memory["losses"], terms.total.detach().double()[None]])

    def store_state(self) -> None:
        self.session.state = SourceState(dict(self.memory), {"items": len(self.memory["ids"])})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
    monkeypatch.setattr(loop, "open_source", Replay)
    return str(support.write_settings(tmp_path, path, data={"name": "arrays"}, length={"steps": 6}))


def test_a_source_that_acts_and_remembers_is_resumed_to_the_bit(tmp_path: Path, file: str) -> None:
    api.train(out=tmp_path / "whole", recipe=file)
    longer = {"resume": True, "allow_change": ["length.steps"]}
    api.train(out=tmp_path / "parts", recipe=file, settings={"loop.save_every": 3}, steps=6)
    # Back to the middle, as after a kill: the memory is that of step 3.
    for step in (s for s in checkpoint.saved_steps(tmp_path / "parts") if s > 3):
        (checkpoint.step_folder(tmp_path / "parts", step)).rename(tmp_path / f"gone-{step}")
    assert checkpoint.load_checkpoint(tmp_path / "parts").state["place"] == {"items": BATCH + 3}
    api.train(out=tmp_path / "parts", recipe=file, settings={"loop.save_every": 3}, **longer)
    one, other = (checkpoint.load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert support.logged_losses(tmp_path / "whole") == support.logged_losses(tmp_path / "parts")
    for kind in ("model", "optim", "source"):
        before, now = getattr(one, kind), getattr(other, kind)
        assert before.keys() == now.keys()
        assert all(torch.equal(value, now[key]) for key, value in before.items())
    assert len(one.source["losses"]) == 6


def test_a_rollback_takes_a_source_back_to_the_memory_it_had(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    def verdict(session: Session, found: collapse.Verdict, settings: object) -> collapse.Verdict:
        return collapse.Verdict("full" if session.step == 5 and not session.rollbacks else "healthy", "for the test")

    monkeypatch.setattr(rollback, "confirm_after_rollback", verdict)
    changes = {"loop.save_every": 3, "loop.panel_every": 1, "loop.on_collapse": "rollback"}
    done = api.train(out=tmp_path / "run", recipe=file, settings=changes)
    assert [(event["step"], event["to"]) for event in done["rollbacks"]] == [(5, 3)]
    # Three items chosen before the rollback and three after it: the two of the collapse are forgotten.
    assert checkpoint.load_checkpoint(tmp_path / "run").state["place"] == {"items": BATCH + 6}
    assert len(checkpoint.load_checkpoint(tmp_path / "run").source["losses"]) == 6
