"""The kind `arrays`: images in one .npz, .npy or idx array, with optional labels."""

from .images.arrays import Arrays, Config

__all__ = ["Arrays", "Config"]
