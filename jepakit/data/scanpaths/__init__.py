"""The kind `scanpaths`: recorded or synthetic fixations on images, and the crops seen at each fixation."""

from .dataset import Scanpaths
from .settings import Config

__all__ = ["Config", "Scanpaths"]
