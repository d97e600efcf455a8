"""Pictures: files, shards, parquet, arrays and generated ones."""

from .files import Config, Images

__all__ = ["Config", "Images"]
