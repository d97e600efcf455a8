"""The kind `dynamics`: generated series, noisy sines and the Lorenz system."""

from .series.generated import Config

__all__ = ["Config"]
