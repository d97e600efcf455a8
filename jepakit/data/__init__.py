"""Data: sources of samples behind one protocol, the loader, and what is known of a data set."""

from .base import Dataset, Unreadable
from .guess import guess
from .registry import KINDS, divided, read_image, reading, sample
from .statistics import choose_size, fit

__all__ = [
    "KINDS",
    "Dataset",
    "Unreadable",
    "base",
    "batches",
    "cache",
    "check",
    "choose_size",
    "divided",
    "fit",
    "guess",
    "images",
    "lengths",
    "loader",
    "read_image",
    "reading",
    "registry",
    "sample",
    "scanpaths",
    "series",
    "statistics",
    "stream",
    "unaugmented",
]
