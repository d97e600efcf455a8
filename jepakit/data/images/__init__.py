"""Pictures in files: a folder, a table that lists them, tar shards or parquet."""

from .files import Config, Images

__all__ = ["Config", "Images"]
