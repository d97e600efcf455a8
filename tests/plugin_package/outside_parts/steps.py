"""Print how many steps a run has done."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa steps` takes."""
    parser.add_argument("run_folder", metavar="RUN", help="the folder that training wrote")


def run(arguments: argparse.Namespace) -> None:
    """Read summary.json."""
    summary = json.loads((Path(arguments.run_folder) / "summary.json").read_text())
    print(f"{summary['steps']} steps")
