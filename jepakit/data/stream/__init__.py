"""The kind `stream`: frames that arrive one by one in a watched folder, in a file, or on standard input."""

from .first import FirstFrames
from .frames import Frame, Place
from .settings import Config
from .source import Source

__all__ = ["Config", "FirstFrames", "Frame", "Place", "Source"]
