"""Families: settings that name a member of a registry, such as an encoder, and how its class is found."""

from typing import Any, NamedTuple

from .. import data, methods
from ..data import KINDS, SourceConfig
from ..masks import MASKERS
from ..masks.base import Masker
from ..nn import ENCODERS, PREDICTORS
from ..nn.encoder import EncoderConfig
from ..nn.predictor import PredictorConfig
from .settings import MethodConfig


class Family(NamedTuple):
    """A table of names; `default` gives the settings object that a name starts from."""

    noun: str
    names: tuple[str, ...]
    default: Any  # (name) -> settings object

    def name_of(self, value: Any) -> str:
        """The first name whose settings are of the same class."""
        return next(name for name in self.names if type(self.default(name)) is type(value))


def family(hint: Any) -> Family | None:
    """The table behind a field's type, or None where the type is concrete."""
    if hint is MethodConfig:
        return Family("method", tuple(methods.table()), lambda name: methods.load(name).Config())
    if hint is SourceConfig:
        return Family("data", KINDS.names(), lambda name: data.load(name)())
    if hint is EncoderConfig:
        return Family("encoder", tuple(ENCODERS), ENCODERS.__getitem__)
    if hint is PredictorConfig:
        return Family("predictor", tuple(PREDICTORS), PREDICTORS.__getitem__)
    if hint is Masker:
        return Family("masker", tuple(MASKERS), MASKERS.__getitem__)
    return None
