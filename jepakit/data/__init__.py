"""The data layer: one interface for every kind of data, the batch loader, and the data-set checks."""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names
from .kinds import KINDS

if TYPE_CHECKING:
    from .base import Dataset, Place, Words, refuse_padding
    from .collation import Unreadable
    from .config import DataConfig, SourceConfig
    from .loader import fixed_sample
    from .registry import check_kind, guess_kind, load, read_like, training_settings
    from .report import Problem, Report

__all__ = [
    "KINDS",
    "DataConfig",
    "Dataset",
    "Place",
    "Problem",
    "Report",
    "SourceConfig",
    "Unreadable",
    "Words",
    "arrays",
    "base",
    "check",
    "check_kind",
    "collation",
    "config",
    "draws",
    "dynamics",
    "fixed_sample",
    "guess_kind",
    "images",
    "load",
    "loader",
    "overlap",
    "paths",
    "read_like",
    "refuse_padding",
    "registry",
    "report",
    "rows",
    "scanpaths",
    "series",
    "stream",
    "synthetic",
    "training_settings",
    "trajectories",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Dataset", "Place", "Words", "refuse_padding"), "base"),
        "Unreadable": "collation",
        **dict.fromkeys(("DataConfig", "SourceConfig"), "config"),
        "fixed_sample": "loader",
        **dict.fromkeys(("Problem", "Report"), "report"),
        **dict.fromkeys(("check_kind", "guess_kind", "load", "read_like", "training_settings"), "registry"),
    },
)
