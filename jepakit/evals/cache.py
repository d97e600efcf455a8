"""Pooled features kept in the run folder, so that another kind of probe encodes nothing twice.

One file per data set, checkpoint, weights and pool: RUN/cache/KEY.safetensors, with the features of the trained and of
the untrained encoder and a hash of the raw input they belong to. The raw input is a baseline, so every probe reads the
data anyway: what was kept is used only where that hash, of pixels and ids, is the same again. Labels are never kept.
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

from .. import __version__
from ..core.files import replacing
from ..run.checkpoint import Loaded
from .features import Features

LIMIT = 512 * 2**20
"""Bytes of all kept files together; the ones unused for longest go first, and what is larger is not kept."""


def place(run: Path, loaded: Loaded, fingerprint: str, pool: str, weights: str, device: str) -> Path:
    """Where the features of these data by this checkpoint lie, whether they are there or not."""
    facts = (__version__, fingerprint, loaded.step, weights, pool, device, loaded.run.method, loaded.run.seed)
    digest = blake2b(repr((*facts, loaded.method.signal)).encode(), digest_size=16)
    for name, value in sorted(loaded.method.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return run / "cache" / f"{digest.hexdigest()}.safetensors"


def find(path: Path, raw: Features) -> dict[str, Features] | None:
    """The kept features of the samples in `raw`, with their labels; None where there are none, or of other samples."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("content") != content(raw):
                return None
            found = {name: replace(raw, x=file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    os.utime(path)
    return found


def keep(path: Path, features: Mapping[str, Features], limit: int = LIMIT) -> None:
    """Keep the features of the encoders, whole or not at all, then drop what is beyond `limit` bytes."""
    raw = features["raw"]
    arrays = {name: np.ascontiguousarray(f.x) for name, f in features.items() if name != "raw"}
    if sum(x.nbytes for x in arrays.values()) > limit:
        return
    with replacing(path) as part:
        save_file(arrays, part, {"content": content(raw)})
    trim(path.parent, limit)


def trim(folder: Path, limit: int) -> None:
    """Delete the files unused for longest until the others take at most `limit` bytes."""
    files = sorted(folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > limit:
            path.unlink()


def content(raw: Features) -> str:
    """A hash of the samples: their ids and pixels, in their order."""
    digest = blake2b(repr(raw.x.shape).encode(), digest_size=16)
    for array in (raw.id, raw.x):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
