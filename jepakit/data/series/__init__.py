"""The kind `series`: tables, arrays and `.ts` files, as whole series or as windows."""

from .dataset import Series
from .settings import Config

__all__ = ["Config", "Series"]
