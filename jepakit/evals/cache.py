"""A cache of pooled features in the run folder, so that several kinds of probe encode the data only once.

There is one file per data set, checkpoint, weights and pool: RUN/cache/KEY.safetensors, with the features of the
trained and of the untrained encoder and a hash of their raw input. The raw input is a baseline, so every probe reads
the data anyway: cached features are used only if that hash, of pixels and ids, is unchanged. Labels are never cached.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core.files import replace_file
from ..core.version import VERSION
from ..run.checkpoint import LoadedRun
from .features import Features

MAX_BYTES = 512 * 2**20
"""The most bytes of all cached files together; the least recently used go first, and larger features are not cached."""


def cache_path(run: Path, loaded: LoadedRun, fingerprint: str, pool: str, weights: str, device: str) -> Path:
    """The cache file for the features of these data by this checkpoint, whether it exists or not."""
    facts = (VERSION, fingerprint, loaded.step, weights, pool, device, loaded.run.method, loaded.run.seed)
    digest = blake2b(repr((*facts, loaded.method.signal)).encode(), digest_size=16)
    for name, value in sorted(loaded.method.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return run / "cache" / f"{digest.hexdigest()}.safetensors"


def find_features(path: Path, raw: Features) -> dict[str, Features] | None:
    """The cached features of the samples in `raw`, with their labels; None if there are none for these samples."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("content") != content_hash(raw):
                return None
            found = {name: replace(raw, x=file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    os.utime(path)
    return found


def keep_features(path: Path, features: Mapping[str, Features], limit: int = MAX_BYTES) -> None:
    """Cache the encoders' features in one atomic write, then delete old files beyond `limit` bytes."""
    raw = features["raw"]
    arrays = {name: np.ascontiguousarray(f.x) for name, f in features.items() if name != "raw"}
    if sum(x.nbytes for x in arrays.values()) > limit:
        return
    with replace_file(path) as part:
        save_file(arrays, part, {"content": content_hash(raw)})
    trim_cache(path.parent, limit)


def trim_cache(folder: Path, limit: int) -> None:
    """Delete the least recently used files until the rest takes at most `limit` bytes."""
    files = sorted(folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > limit:
            path.unlink()


def content_hash(raw: Features) -> str:
    """A hash of the samples' ids and pixels, in order."""
    digest = blake2b(repr(raw.x.shape).encode(), digest_size=16)
    for array in (raw.id, raw.x):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
