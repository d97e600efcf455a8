"""The kind `synthetic`: generated pictures."""

from .images.synthetic import Config

__all__ = ["Config"]
