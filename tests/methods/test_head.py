"""A head stands over one run or over several, of any kind that it names, and old settings of heads are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn

import jepakit as jk
from jepakit import losses, methods, testing
from jepakit.methods import decoder
from jepakit.methods.base import Method, token_rows
from jepakit.methods.head import Head
from jepakit.methods.predictive import Predictive
from jepakit.run import checkpoint, parse
from jepakit.testing.case import parents_for
from jepakit.training.request import Request, renaming_notes
from jepakit.types import Batch, Rng, Signal, Terms

FILM = testing.SIGNALS[1]


@dataclass(frozen=True)
class Config:
    parents: tuple[str, ...] = ()
    parent_hashes: tuple[str, ...] = ()

    @classmethod
    def tiny(cls, signal: Signal) -> "Config":
        return cls()


class Ensemble(Head):
    """Reads the mean of every frame from the states of two models that unfold in time."""

    needs = frozenset({"time"})
    Parents = (Predictive, Predictive)

    def __init__(self, cfg: Config, signal: Signal, parents: Sequence[Method] = ()) -> None:
        super().__init__(cfg, signal, parents)
        with torch.no_grad():
            self.layers = nn.Linear(self.read(signal.zeros()).shape[-1], 1)

    @torch.no_grad()
    def read(self, batch: Batch) -> Float[Tensor, "b t d"]:
        return torch.cat([parent.encode(batch) for parent in self.parents], -1)

    def compare(self, batch: Batch, other: Batch) -> tuple[Tensor, Tensor]:
        pred = self.layers(self.read(batch))
        return pred, self.normalize(other.x).unflatten(2, (pred.shape[1], -1)).movedim(2, 1).flatten(2).mean(2, True)

    def loss(self, batch: Batch, rng: Rng) -> Terms:
        pred, target = self.compare(batch, batch)
        return Terms(
            {"values": losses.prediction(pred, target, "l2")}, compared=(token_rows([pred]), target.flatten(0, 1))
        )

    def energy(self, batch: Batch, other: Batch) -> Float[Tensor, " b"]:
        pred, target = self.compare(batch, other)
        return (pred - target).square().flatten(1).mean(1)


class OverAnything(Ensemble):
    Config = Config
    needs = frozenset()


class OverADecoder(Ensemble):
    Config = Config
    needs = frozenset()
    Parents = (decoder.Decoder,)


@pytest.mark.parametrize("signal", testing.SIGNALS[1:], ids=str)
def test_a_head_over_two_models_that_unfold_keeps_the_contract(signal: Signal) -> None:
    testing.contract(Ensemble, [signal])


def test_the_contract_builds_the_parents_that_a_head_names() -> None:
    one, two = parents_for(Ensemble, FILM)
    assert isinstance(one, Predictive)
    assert isinstance(two, Predictive)
    assert any(not torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    (head,) = parents_for(OverADecoder, FILM)
    assert isinstance(head, decoder.Decoder)
    assert not isinstance(head.parent, Head)


def test_a_head_whose_parents_need_more_than_it_says_is_told_so() -> None:
    with pytest.raises(AssertionError, match=r"OverAnything: no Predictive .* say in needs what the parents need"):
        testing.contract(OverAnything, testing.SIGNALS[:1])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["rjepa"], "trained on top of 2 finished runs, but one is given; name them with --method.parents"),
        (["rjepa", "bijepa"], "on top of a run of a Predictive, not of BiJEPA"),
        (["rjepa", "rjepa", "bijepa"], "on top of a run of a Predictive, not of BiJEPA"),
    ],
)
def test_parents_that_are_too_few_or_of_another_kind_are_refused(names: list[str], sentence: str) -> None:
    below = [methods.build(methods.load(name).Config.tiny(FILM), FILM) for name in names]
    with pytest.raises(ValueError, match=sentence):
        Ensemble(Config(), FILM, below)


OLD = """
method: {name: decoder, parent: runs/below, parent_hash: 4d9a, hidden: [16]}
data: {name: arrays, path: x.npy}
"""


def test_settings_of_a_head_that_an_earlier_version_wrote_are_read() -> None:
    content = yaml.safe_load(OLD)
    assert parse.from_dict(content, "old").method == decoder.Config(("runs/below",), ("4d9a",), hidden=(16,))
    assert parse.renaming_notes(content) == [
        "method.parent is now called method.parents",
        "method.parent_hash is now called method.parent_hashes",
    ]
    content["method"] |= {"parent": "", "parent_hash": ""}
    method: Any = parse.from_dict(content, "old").method
    assert (method.parents, method.parent_hashes) == ((), ())


def test_the_old_and_the_new_name_of_a_setting_together_are_refused() -> None:
    content = yaml.safe_load(OLD)
    content["method"]["parents"] = ["runs/other"]
    with pytest.raises(ValueError, match=r"method\.parent is now called method\.parents, and both are given; remove"):
        parse.from_dict(content, "old")


def test_a_setting_of_another_method_that_has_the_old_name_keeps_it() -> None:
    assert parse.current_names({"parent": 1}, {"parent"}, "method") == {"parent": 1}
    assert parse.current_names({"parent": "a"}, {"parents"}, "method") == {"parents": ["a"]}
    assert parse.current_names({"parent": "a"}, {"parents"}, "data") == {"parent": "a"}


def test_what_goes_on_with_an_old_run_is_told_of_its_names_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OLD)
    flags = {"method.parent": "runs/moved"}
    request = Request(out=tmp_path, resume=True, flags=flags, allow_change=["method.parent"])
    assert renaming_notes(request) == parse.renaming_notes(yaml.safe_load(OLD))
    assert not renaming_notes(Request("ijepa", out=tmp_path))
    assert parse.current_path("method.parent") == "method.parents"


def test_a_head_over_several_runs_is_loaded_with_all_of_them(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in "ab"]
    quick = {"length.batch": 8, "loop.workers": 0, "loop.device": "cpu", "evals.kinds": "[]", "evals.report": False}
    for seed, name in enumerate(names):
        jk.train("shapes", name, recipe="mae", steps=1, settings=quick | {"data.name": "synthetic", "seed": seed})
    hashes = [checkpoint.module_hash(checkpoint.load_run(Path(name)).method) for name in names]
    cfg = decoder.Config(tuple(names), tuple(hashes))
    assert [checkpoint.module_hash(parent) for parent in checkpoint.parents_of(cfg)] == hashes
    with pytest.raises(ValueError, match=r"the weights of .*b are not those that decoder was trained on"):
        checkpoint.parents_of(decoder.Config(tuple(names), (hashes[0], hashes[0])))
