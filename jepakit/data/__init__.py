"""Data: kinds of samples behind one interface, the loader, and what is known of a data set."""

from .base import Dataset, Problem, Report, Unreadable, Words, refuse_padding
from .config import DataConfig, SourceConfig
from .loader import sample
from .registry import KINDS, check_kind, guess, load, reading

__all__ = [
    "KINDS",
    "DataConfig",
    "Dataset",
    "Problem",
    "Report",
    "SourceConfig",
    "Unreadable",
    "Words",
    "arrays",
    "base",
    "check",
    "check_kind",
    "config",
    "dynamics",
    "guess",
    "images",
    "load",
    "loader",
    "paths",
    "reading",
    "refuse_padding",
    "registry",
    "report",
    "rows",
    "sample",
    "scanpaths",
    "series",
    "stream",
    "subset",
    "synthetic",
]
