"""The kind `images`: image files in a folder, a manifest, tar shards or parquet."""

from .files import Config, Images

__all__ = ["Config", "Images"]
