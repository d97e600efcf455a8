"""A method that needs actions is one file like any other, and its actions reach everyone who judges it."""

from dataclasses import replace

import pytest
import torch
import world_model
from jaxtyping import Float
from torch import Tensor

from jepakit import methods, testing
from jepakit.data.images import synthetic
from jepakit.model import Model
from jepakit.run import checkpoint
from jepakit.run.settings import Run
from jepakit.testing.sequential import knows_no_future
from jepakit.types import ActionSpec, Batch, Signal, State

FILM = replace(testing.SIGNALS[1], action=ActionSpec(2))


@pytest.mark.parametrize("signal", [s for s in testing.variants() if s.action], ids=lambda s: f"{len(s.size)}d")
def test_a_world_model_in_one_file_keeps_the_contract(signal: Signal) -> None:
    testing.contract(world_model.WorldModel, [signal])


def test_without_actions_it_is_refused_with_where_they_come_from() -> None:
    signal = testing.SIGNALS[1]
    with pytest.raises(ValueError, match=r"^world_model needs action, which the data lack.*; actions come with .*scan"):
        world_model.WorldModel(world_model.Config.tiny(signal), signal)


def test_the_states_depend_on_the_actions() -> None:
    case = testing.Case(world_model.WorldModel, FILM, testing.example(FILM))
    method, batch = case.build(), case.batch
    assert batch.action is not None
    h, other = method.encode(batch), method.encode(replace(batch, action=batch.action + 1))
    assert torch.equal(h[:, 0], other[:, 0])
    assert not torch.isclose(h[:, 1:], other[:, 1:]).all()


def test_a_loaded_model_encodes_with_actions() -> None:
    batch = testing.example(FILM)
    method = testing.Case(world_model.WorldModel, FILM, batch).build().eval()
    model = Model(checkpoint.LoadedRun(Run(world_model.Config(), synthetic.Config()), method, 0, {}))
    assert torch.equal(model.encode(batch.x, action=batch.action), method.encode(batch))


class ActsTooEarly(world_model.WorldModel):
    Config = world_model.Config

    def actions(self, batch: Batch, steps: int) -> Float[Tensor, "b t a"]:
        return super().actions(batch, steps).roll(-1, 1)


class IgnoresActionsInStreams(world_model.WorldModel):
    Config = world_model.Config

    def observe(self, state: State, obs: Float[Tensor, "b c ..."], action: Tensor | None = None) -> State:
        return super().observe(state, obs)


@pytest.mark.parametrize(
    ("broken", "words"),
    [(ActsTooEarly, "changing frame 3 changes states"), (IgnoresActionsInStreams, "another state 2")],
)
def test_the_contract_finds_actions_that_come_too_early_or_are_ignored(
    broken: type[world_model.WorldModel], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        knows_no_future(testing.Case(broken, FILM, testing.example(FILM)))


def test_a_tensor_stands_for_a_batch_of_these_samples() -> None:
    image = testing.SIGNALS[0]
    method, x = methods.build(methods.load("ijepa").Config.tiny(image), image).eval(), testing.example(image).x
    assert torch.equal(method.encode(x, "context"), method.encode(Batch(x), weights="context"))
    assert torch.equal(method.energy(x, other=x), method.energy(Batch(x), Batch(x)))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"size": 0}, "an action of size 0 holds nothing"),
        ({"size": 2, "low": (0.0,)}, "low has 1 entries for an action of size 2; give 2 or none"),
        ({"size": 1, "low": (1.0,), "high": (1.0,)}, "every low must be below its high"),
        ({"size": 2, "max_norm": 0.0}, "max_norm is 0.0; give a length above 0"),
        ({"size": 2, "discrete": True, "max_norm": 1.0}, "for continuous actions"),
        ({"size": 3, "parts": 2}, "cannot have 2 parts"),
    ],
)
def test_an_action_that_cannot_be_is_refused(entries: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ActionSpec(**entries)  # type: ignore[arg-type]


def test_a_block_of_actions_has_the_bounds_of_each() -> None:
    block = ActionSpec(2, (-1.0, -2.0), (1.0, 2.0), max_norm=1.5).repeat(3)
    assert block == ActionSpec(6, (-1.0, -2.0) * 3, (1.0, 2.0) * 3, max_norm=1.5, parts=3)
    with pytest.raises(ValueError, match="discrete actions cannot be joined"):
        ActionSpec(3, discrete=True).repeat(2)
