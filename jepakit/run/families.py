"""Defines families: settings that select a member of a registry, such as an encoder, and its default settings."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..core.registry import Registry
from ..data import KINDS, SourceConfig, training_settings
from ..masks import MASKERS, Masker
from ..methods import METHODS
from ..nn import (
    DYNAMICS,
    ENCODERS,
    PREDICTORS,
    READOUTS,
    DynamicsConfig,
    EncoderConfig,
    PredictorConfig,
    ReadoutConfig,
)
from .settings import MethodConfig


class Family(NamedTuple):
    """A registry; `start` returns the default settings of a member, given its name."""

    registry: Registry[Any]
    start: Callable[[str], Any]

    @property
    def noun(self) -> str:
        """The noun for one member."""
        return self.registry.noun

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a config may use."""
        return self.registry.names()

    def default_settings(self, name: str) -> Any:
        """The default settings of `name`. Raises ValueError if there is no such member."""
        return self.start(name)

    def name_of(self, value: Any) -> str:
        """The name of the member whose settings have the class of `value`."""
        return self.registry.name_of(type(value))


# Keyed by the type of the field that selects a member.
FAMILIES: Final[Mapping[Any, Family]] = {
    MethodConfig: Family(METHODS, lambda name: METHODS.load(name).Config()),
    SourceConfig: Family(KINDS, training_settings),
    EncoderConfig: Family(ENCODERS, ENCODERS.load),
    PredictorConfig: Family(PREDICTORS, PREDICTORS.load),
    DynamicsConfig: Family(DYNAMICS, DYNAMICS.load),
    ReadoutConfig: Family(READOUTS, READOUTS.load),
    Masker: Family(MASKERS, MASKERS.load),
}


def family_of(hint: Any) -> Family | None:
    """The family behind a field's type, or None if the type is concrete."""
    return next((group for kind, group in FAMILIES.items() if hint is kind), None)
