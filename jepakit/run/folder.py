"""A run's folder before its first step: refuse to lose what is there, empty it, write the settings."""

import re
import shutil
from pathlib import Path

from ..core import files
from .metrics import describe_environment
from .settings import Run
from .write import to_yaml

# Every path that a run writes in its folder; the runs of heads below it write the same.
RUN_FILES = re.compile(
    r"heads(/[^/]+)?|(heads/[^/]+/)?("
    r"config\.yaml|environment\.json|frames\.safetensors|metrics\.jsonl|summary\.json|report\.html|events\.out\.tfevents\..+"
    r"|not-finite-[^/]+\.json|evals(/[^/]+\.json)?|cache(/[^/]+\.safetensors)?"
    r"|checkpoints(/last|/step-\d+(/[^/]+\.(safetensors|json))?)?"
    r")|(.+/)?\.[^/]+\.part(/.*)?"
)


def check_free(out: Path, replace: bool) -> None:
    """Raises ValueError where `out` cannot become a run folder: it is a file, or holds a run or other files.

    A run may be there where `replace` is true.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")
    if not replace:
        raise ValueError(
            f"{out} is not empty; go on with it by --resume, replace it by --overwrite, or give another --out"
        )
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    foreign = [name for name in names if not RUN_FILES.fullmatch(name)]
    if foreign or "config.yaml" not in names:
        why = f"{foreign[0]} is no part of a run" if foreign else "it holds no run (no config.yaml)"
        raise ValueError(f"{out} is not deleted, as {why}; give another --out")


def clear_folder(out: Path) -> None:
    """Make `out` an empty folder, and delete what it holds; call `check_free` first.

    Folders behind links stay: `out` itself is followed, links in it are removed. Raises ValueError where that fails.
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
    """Write config.yaml and environment.json; a resumed run replaces them by its own."""
    settings, environment = to_yaml(run), describe_environment()
    files.write_text(out / "config.yaml", settings)
    files.write_json(out / "environment.json", environment)
