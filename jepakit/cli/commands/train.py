"""Train a method on your data, probe the result, and write its report."""

import argparse
from typing import Final

EPILOG: Final = (
    "Any setting can be given as --SECTION.KEY VALUE, such as --optim.lr 1e-3; --print-config shows them all."
)
TAKES_SETTINGS: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jepa train`."""
    add = parser.add_argument
    add("recipe", metavar="RECIPE|CONFIG.yaml", nargs="?", help="a recipe, a method, or a settings file")
    add("--data", metavar="PATH", help="folder, manifest, shards, parquet, arrays, table or .ts (data.path)")
    add("--out", metavar="RUN", help="the run folder to write (default: runs/RECIPE)")
    add("--config", metavar="FILE", help="settings that override the recipe's")
    add("--seed", metavar="N", help="seed of weights, data order, augmentation and masks (default: 0)")
    add("--steps", metavar="N", help="optimiser steps (length.steps)")
    add("--heads", metavar="none|HEAD,…", help="heads to train after the run, such as metric (default: the recipe's)")
    add("--on-collapse", metavar="warn|stop|rollback", help="what to do after a collapse (loop.on_collapse)")
    goes_on = "continue from the last checkpoint; auto: start a new run if there is none"
    add("--resume", nargs="?", const="yes", choices=("yes", "auto"), help=goes_on)
    add("--allow-change", metavar="KEY", action="append", default=[], help="let this setting differ on resume")
    add("--overwrite", action="store_true", help="replace the run in the run folder")
    add("--init", metavar="RUN", help="start from another run's weights")
    add("--dry-run", action="store_true", help="print parameters, FLOPs, memory and time, then exit")
    add("--print-config", action="store_true", help="print the settings as YAML, then exit")


def run(arguments: argparse.Namespace) -> None:
    """Train, or print the settings or the cost of the training."""
    from ... import api
    from ...core.progress import terminal_progress
    from .. import text

    a = arguments
    shortcuts = {"seed": a.seed, "length.steps": a.steps, "loop.on_collapse": a.on_collapse, "heads": a.heads}
    request = api.Request(
        recipe=a.recipe,
        data=a.data,
        out=a.out,
        config=a.config,
        flags={**a.settings, **{k: v for k, v in shortcuts.items() if v is not None}},
        resume="auto" if a.resume == "auto" else a.resume is not None,
        allow_change=tuple(a.allow_change),
        overwrite=a.overwrite,
        init=a.init,
    )
    if a.print_config:
        print(api.settings_text(request), end="")
    elif a.dry_run:
        text.print_table(api.dry_run(request))
    else:
        with terminal_progress() as progress:
            done = api.train_and_report(request, progress)
        if summary := text.describe_run(done):
            print(summary)
