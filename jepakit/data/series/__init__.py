"""Series: tables, arrays and `.ts` files, whole or cut into windows."""

from .dataset import Series
from .settings import Config

__all__ = ["Config", "Series"]
