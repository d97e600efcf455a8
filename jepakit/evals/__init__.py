"""Evaluation of representations: probes of frozen features, compared with an untrained encoder and the raw signal."""

from .base import load, table
from .baselines import random_init, raw
from .features import Encode, Features, extract, extract_all
from .heldout import held_out
from .metrics.result import wilson
from .probing import results, save, split

__all__ = [
    "Encode",
    "Features",
    "extract",
    "extract_all",
    "held_out",
    "load",
    "random_init",
    "raw",
    "results",
    "save",
    "split",
    "table",
    "wilson",
]
