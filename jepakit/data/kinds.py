"""The names of the kinds of data, found without importing their modules."""

from typing import TYPE_CHECKING, Any, Final

from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .config import SourceConfig


def kind_of(found: Any) -> "type[SourceConfig]":
    """The settings class of a kind's module. Raises ValueError if it has none."""
    from .config import SourceConfig

    config = getattr(found, "Config", found)
    if not (isinstance(config, type) and issubclass(config, SourceConfig)):
        raise ValueError("its Config is no SourceConfig or DataConfig")
    return config


KINDS: "Final[Registry[type[SourceConfig]]]" = Registry(
    "jepakit.data", "data", "a Config", file_with("Config"), kind_of
)
