"""The kind `synthetic`: generated labelled images of digits, shapes and scenes."""

from .images.synthetic import Config

__all__ = ["Config"]
