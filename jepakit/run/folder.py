"""Prepares a run's folder before its first step: refuses to lose data, empties the folder, writes the settings."""

import re
import shutil
from pathlib import Path

from ..core import files
from .metrics import describe_environment
from .settings import Run
from .write import to_yaml

# Every path that a run writes in its folder. Runs of heads in subfolders write the same paths.
RUN_FILES = re.compile(
    r"heads(/[^/]+)?|(heads/[^/]+/)?("
    r"config\.yaml|environment\.json|frames\.safetensors|metrics\.jsonl|summary\.json|report\.html|events\.out\.tfevents\..+"
    r"|not-finite-[^/]+\.json|evals(/[^/]+\.(json|gif))?|cache(/[^/]+\.safetensors)?"
    r"|checkpoints(/last|/step-\d+(/[^/]+\.(safetensors|json))?)?"
    r")|(.+/)?\.[^/]+\.part(/.*)?"
)


def check_free(out: Path, replace: bool) -> None:
    """Raise ValueError if `out` cannot become a run folder: it is a file, or it holds a run or other files.

    With `replace`, it may hold a run.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if not replace:
        raise ValueError(
            f"{out} is not empty; continue it with --resume, replace it with --overwrite, or give another --out"
        )
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    foreign = [name for name in names if not RUN_FILES.fullmatch(name)]
    if foreign or "config.yaml" not in names:
        why = f"{foreign[0]} is not part of a run" if foreign else "it holds no run (no config.yaml)"
        raise ValueError(f"{out} was not deleted, because {why}; give another --out")


def clear_folder(out: Path) -> None:
    """Make `out` an empty folder by deleting its contents. Call `check_free` first.

    Linked folders survive: `out` itself may be a link, and links inside it are removed without following them. Raises
    ValueError if this fails.
    """
    try:
        out.resolve().mkdir(parents=True, exist_ok=True)
        for entry in out.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error.strerror}); give --out a folder that can") from None


def write_settings(out: Path, run: Run) -> None:
    """Write config.yaml and environment.json; a resumed run overwrites them."""
    settings, environment = to_yaml(run), describe_environment()
    files.write_text(out / "config.yaml", settings)
    files.write_json(out / "environment.json", environment)
