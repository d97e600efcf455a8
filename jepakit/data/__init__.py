"""Data: sources of samples behind one protocol, the loader, and what is known of a data set."""

from .base import Dataset, Unreadable
from .guess import guess
from .registry import KINDS, divided, read_image, reading, sample
from .statistics import choose_size, fit

__all__ = [
    "KINDS",
    "Dataset",
    "Unreadable",
    "choose_size",
    "divided",
    "fit",
    "guess",
    "read_image",
    "reading",
    "sample",
]
