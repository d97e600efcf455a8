"""Evaluation of representations: probes of frozen features, compared with an untrained encoder and the raw signal."""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names
from .base import KINDS, load_kind

if TYPE_CHECKING:
    from .baselines import random_init, raw_tokens
    from .features import Encode, Features, extract_by_all, extract_features
    from .heldout import held_out
    from .probing import probe_results, save_result

__all__ = [
    "KINDS",
    "Encode",
    "Features",
    "base",
    "baselines",
    "cache",
    "extract_by_all",
    "extract_features",
    "features",
    "finding",
    "held_out",
    "heldout",
    "kinds",
    "load_kind",
    "metrics",
    "probe_results",
    "probing",
    "random_init",
    "raw_tokens",
    "recorded",
    "runs",
    "save_result",
    "sources",
    "split",
    "tokens",
    "trainable",
    "transitions",
    "windows",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("random_init", "raw_tokens"), "baselines"),
        **dict.fromkeys(("Encode", "Features", "extract_features", "extract_by_all"), "features"),
        "held_out": "heldout",
        **dict.fromkeys(("probe_results", "save_result"), "probing"),
    },
)
