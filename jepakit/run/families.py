"""Families: settings that name a member of a registry, such as an encoder, and how its settings are found."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..core.registry import Registry
from ..data import KINDS, SourceConfig, training_settings
from ..masks import MASKERS, Masker
from ..methods import METHODS
from ..nn import ENCODERS, PREDICTORS, EncoderConfig, PredictorConfig
from .settings import MethodConfig


class Family(NamedTuple):
    """A registry; `start` gives the settings object that a member starts from, by the member's name."""

    registry: Registry[Any]
    start: Callable[[str], Any]

    @property
    def noun(self) -> str:
        """The word for one member."""
        return self.registry.noun

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a config may give."""
        return self.registry.names()

    def default_settings(self, name: str) -> Any:
        """The settings object that `name` starts from. Raises ValueError where there is no such member."""
        return self.start(name)

    def name_of(self, value: Any) -> str:
        """The name whose settings are of the same class."""
        return self.registry.name_of(type(value))


# By the type of the field that names a member.
FAMILIES: Final[Mapping[Any, Family]] = {
    MethodConfig: Family(METHODS, lambda name: METHODS.load(name).Config()),
    SourceConfig: Family(KINDS, training_settings),
    EncoderConfig: Family(ENCODERS, ENCODERS.load),
    PredictorConfig: Family(PREDICTORS, PREDICTORS.load),
    Masker: Family(MASKERS, MASKERS.load),
}


def family_of(hint: Any) -> Family | None:
    """The family behind a field's type, or None where the type is concrete."""
    return next((group for kind, group in FAMILIES.items() if hint is kind), None)
