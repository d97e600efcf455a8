"""Evaluation of representations: probes of frozen features, compared with an untrained encoder and the raw signal."""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names
from .base import KINDS, load

if TYPE_CHECKING:
    from .baselines import random_init, raw
    from .features import Encode, Features, extract, extract_all
    from .heldout import held_out
    from .metrics.result import wilson
    from .probing import results, save

__all__ = [
    "KINDS",
    "Encode",
    "Features",
    "base",
    "baselines",
    "cache",
    "extract",
    "extract_all",
    "features",
    "held_out",
    "heldout",
    "kinds",
    "load",
    "metrics",
    "probing",
    "random_init",
    "raw",
    "recorded",
    "results",
    "runs",
    "save",
    "sources",
    "split",
    "tokens",
    "trainable",
    "wilson",
    "windows",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("random_init", "raw"), "baselines"),
        **dict.fromkeys(("Encode", "Features", "extract", "extract_all"), "features"),
        "held_out": "heldout",
        "wilson": "metrics.result",
        **dict.fromkeys(("results", "save"), "probing"),
    },
)
