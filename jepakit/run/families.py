"""Families: settings that name a member of a registry, such as an encoder, and how its settings are found."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..core.registry import Registry
from ..data import KINDS, SourceConfig
from ..masks import MASKERS, Masker
from ..methods import METHODS
from ..nn import ENCODERS, PREDICTORS, EncoderConfig, PredictorConfig
from .settings import MethodConfig


class Family(NamedTuple):
    """A registry; `start` gives the settings object that a member starts from."""

    registry: Registry[Any]
    start: Callable[[Any], Any]

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
        return self.start(self.registry.load(name))

    def name_of(self, value: Any) -> str:
        """The name whose settings are of the same class."""
        return self.registry.name_of(type(value))


# By the type of the field that names a member.
FAMILIES: Final[Mapping[Any, Family]] = {
    MethodConfig: Family(METHODS, lambda method: method.Config()),
    SourceConfig: Family(KINDS, lambda config: config()),
    EncoderConfig: Family(ENCODERS, lambda settings: settings),
    PredictorConfig: Family(PREDICTORS, lambda settings: settings),
    Masker: Family(MASKERS, lambda settings: settings),
}


def family_of(hint: Any) -> Family | None:
    """The family behind a field's type, or None where the type is concrete."""
    return next((group for kind, group in FAMILIES.items() if hint is kind), None)
