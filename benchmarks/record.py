"""Writes the results of a benchmark to results/NAME.json, with the commit, the machine and its load."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def save(name: str, **found: Any) -> Path:
    """Write `found` with the commit, machine and load, and return the path."""
    out = HERE / "results" / f"{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({**circumstances(), **found}, indent=1) + "\n")
    return out


def circumstances() -> dict[str, Any]:
    """The commit, the machine, its load, and the version of torch."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name and its bfloat16 instructions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    extra = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in facts.get("flags", "").split()]
    return ", ".join([facts.get("model name", platform.machine()).strip(), *extra])
