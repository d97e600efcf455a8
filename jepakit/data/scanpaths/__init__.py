"""Scanpaths: fixations read or made up, the pictures they look at, and the crops they see."""

from .dataset import Scanpaths
from .settings import Config

__all__ = ["Config", "Scanpaths"]
