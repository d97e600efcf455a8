"""The device, the precision and the processors that this machine offers."""

import os

import torch


def best_device() -> tuple[str, str]:
    """The device to train on, and why."""
    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", "no CUDA device was found"


def device_for(asked: str | None) -> str:
    """The device asked for, or the best one here. Raises ValueError if torch does not know it or cannot use it here."""
    device = best_device()[0] if asked is None else asked
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"loop.device {device!r} cannot be used here ({why}); give cpu, cuda or auto") from None
    return device


def choose_amp(device: str, dtype: str) -> tuple[bool, str]:
    """Whether bfloat16 autocast is faster here, and why."""
    if dtype != "float32":
        return False, f"loop.dtype is {dtype}"
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(), "bfloat16 on this GPU"
    if device == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return True, "the processor multiplies bfloat16 in hardware"
    return False, f"no bfloat16 hardware on {device}"


def available_cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
