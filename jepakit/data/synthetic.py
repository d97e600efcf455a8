"""Generated labelled pictures: digits, shapes and scenes."""

from .images.synthetic import Config

__all__ = ["Config"]
