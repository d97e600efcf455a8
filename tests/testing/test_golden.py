"""Tiny trainings have the losses that are committed, and the same ones to the bit when they are run again."""

from functools import cache

import pytest
from golden.record import COMMAND, agree, losses, recorded, trainings


@cache
def first(name: str) -> list[float]:
    """The losses of a training, computed once."""
    return losses(trainings()[name]())


@pytest.mark.parametrize("name", trainings())
def test_the_losses_are_those_that_are_committed(name: str) -> None:
    committed = recorded().get(name)
    assert committed is not None, f"no losses of {name} are committed; record them by {COMMAND}"
    assert agree(first(name), committed), (
        f"the losses of {name} were {committed} and are {first(name)}; where that is meant, run {COMMAND} and say why "
        "in the commit, with scores before and after over three seeds"
    )


@pytest.mark.parametrize("name", trainings())
def test_a_training_that_is_run_again_has_the_same_losses_to_the_bit(name: str) -> None:
    assert losses(trainings()[name](), count=3) == first(name)[:3]


def test_nothing_is_committed_that_is_no_longer_trained() -> None:
    gone = sorted(recorded().keys() - trainings().keys())
    assert not gone, f"losses of {', '.join(gone)} are committed, which no training has; run {COMMAND}"
