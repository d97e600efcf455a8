"""The kind `arrays`: pictures in one array."""

from .images.arrays import Arrays, Config

__all__ = ["Arrays", "Config"]
