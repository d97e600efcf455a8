"""The kind `dynamics`: generated series."""

from .series.generated import Config

__all__ = ["Config"]
