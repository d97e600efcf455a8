"""Data: kinds of samples behind one interface, the loader, and what is known of a data set."""

from .base import Dataset, Problem, Report, Unreadable, Words, refuse_padding
from .config import DataConfig, SourceConfig
from .loader import sample
from .registry import check_kind, guess, kinds, load, name_of, reading

__all__ = [
    "DataConfig",
    "Dataset",
    "Problem",
    "Report",
    "SourceConfig",
    "Unreadable",
    "Words",
    "check_kind",
    "guess",
    "kinds",
    "load",
    "name_of",
    "reading",
    "refuse_padding",
    "sample",
]
