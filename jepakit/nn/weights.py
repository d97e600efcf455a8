"""Reading weights from a file written elsewhere, without running code from it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

MAX_KEYS_SHOWN = 8


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a state dict saved by torch, on the CPU.

    Raises ValueError if there is no such file, or if it holds anything but named tensors.
    """
    if not path.is_file():
        raise ValueError(f"there is no weights file at {path}; give the path of one, since nothing is downloaded")
    safe = path.suffix == ".safetensors"
    try:
        found = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        kind = "a .safetensors file, or is cut short" if safe else "a state dict of torch, or holds more than tensors"
        raise ValueError(f"{path} is not {kind}; save one with torch.save(model.state_dict(), FILE)") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        inside = ", ".join(map(str, list(found)[:MAX_KEYS_SHOWN])) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{path} holds {inside}, not a plain state dict; save one with torch.save(model.state_dict(), FILE)"
        )
    return found


def file_digest(path: Path) -> str:
    """A hash of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, advice: str) -> None:
    """Copy `given` into the tensors of `own`. Raises ValueError, with `advice`, unless all keys and shapes match."""
    problems = [f"missing {k}" for k in own.keys() - given.keys()] + [
        f"unexpected {k}" for k in given.keys() - own.keys()
    ]
    problems += [
        f"{k} is {tuple(given[k].shape)}, not {tuple(own[k].shape)}"
        for k in own.keys() & given.keys()
        if own[k].shape != given[k].shape
    ]
    if problems:
        more = f" and {len(problems) - MAX_KEYS_SHOWN} more" if len(problems) > MAX_KEYS_SHOWN else ""
        shown = ", ".join(sorted(problems)[:MAX_KEYS_SHOWN])
        raise ValueError(f"the weights of {source} do not fit this model: {shown}{more}; {advice}")
    for key, value in own.items():
        value.copy_(given[key])
