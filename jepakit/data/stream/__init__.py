"""The kind `stream`: frames that arrive one by one in a watched folder, in a file, or on standard input."""

from .first import First
from .frames import Frame, Place
from .settings import Config
from .source import Source

__all__ = ["Config", "First", "Frame", "Place", "Source"]
