"""Writes docs/parts.md, the map of the package, from the first line of every module's docstring.

Run it as `python docs/parts.py` after a module is added, moved or renamed.
"""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "jepakit"
PAGE: Final = ROOT / "docs" / "parts.md"

# From the ground up: a module imports only from earlier lines, never from its neighbours on the same line.
LAYERS: Final = (
    ("types",),
    ("core",),
    ("masks", "losses", "nn", "envs"),
    ("data",),
    ("collapse", "recurrent"),
    ("methods",),
    ("run", "testing"),
    ("evals", "recipes", "planning", "hub"),
    ("training",),
    ("reporting", "model", "doctor"),
    ("launch",),
    ("inference",),
    ("studies",),
    ("api",),
    ("cli",),
)

HEAD: Final = """# The parts of the package

`python docs/parts.py` writes this page from the first line of each module's docstring; a test keeps it current. Paths
are relative to `jepakit/`. Rooms stand in their import order, from the ground up: a module imports only from rooms
above it on this page, and `tests/test_house.py` checks it.

"""

TAIL: Final = """
## A run folder

    runs/NAME/config.yaml          all settings, every auto resolved: repeats the run
              environment.json     versions, machine, command
              metrics.jsonl        one row per logged step: loss, terms, metrics, lr, time
              events.out.tfevents… the same for TensorBoard
              checkpoints/step-…/  model.safetensors, optim.safetensors, state.json; `last` points at the newest
              evals/KIND.json      metric, value, low, high, random_init, raw, n_train, n_test, per_class, …
              cache/               pooled features for the next probe; may be deleted
              summary.json         steps, seconds, loss, verdict, skipped
              report.html
              heads/NAME/          a run folder of its own, on top of these weights
              not-finite-….json    only where a loss was not finite: the ids of its batch

`--overwrite` deletes a folder only if it holds nothing else.

## How data flow

    Run.data ───────────► Batch
    masker(grid, B, rng)► Masks                    inside Method.loss
    encoder(x, keep) ───► (B, Kc, D)               context tokens only
    target_encoder(x) ──► (B, N, D), no gradient
    predictor ──────────► (B, M, Kt, D)
    Method.loss ────────► Terms                    total = sum of its weighted scalars
    step ► method.after_step(progress) ► metrics ► checkpoint
    encode(batch) ──────► (B, N, D) ► probes, embedding, report
"""


def summary(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def rows(room: str) -> list[str]:
    """One table row per module of a room; a package's own row comes first."""
    folder = PACKAGE / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    files.sort(key=lambda p: (p.parent, p.name != "__init__.py", p.name))
    names = [p.relative_to(PACKAGE).as_posix().replace("/__init__.py", "/") for p in files]
    return [f"| `{name}` | {summary(path)} |" for name, path in zip(names, files, strict=True)]


def page() -> str:
    """The whole page."""
    rooms = [room for layer in LAYERS for room in layer if rows_exist(room)]
    sections = [f"## {room}\n\n| file | what it is |\n| --- | --- |\n" + "\n".join(rows(room)) for room in rooms]
    return HEAD + "\n\n".join(sections) + "\n" + TAIL


def rows_exist(room: str) -> bool:
    """Whether a room of the import order has been built."""
    return (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()


if __name__ == "__main__":
    PAGE.write_text(page())
