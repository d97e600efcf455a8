"""Pictures in one array: .npz, .npy or idx, with labels beside them."""

from .images.arrays import Arrays, Config

__all__ = ["Arrays", "Config"]
