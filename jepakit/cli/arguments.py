"""The words of the command line: commands, options, settings, and the sentence for a word that is none of them."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from ..core.registry import did_you_mean, no_such

TAKE_SETTINGS = ("train", "probe", "embed", "score", "forecast", "complete")
WEIGHTS = "the moving average (target, the default) or the encoder that is trained (context)"
KIND = "Settings of the kind are given as --KIND.KEY VALUE, as in --linear.pool flat or --knn.k 5 (docs/probes.md)."
READING = "PATH is read as the run reads its own data, but for settings --data.KEY VALUE, as in --data.fill 30."
SETTINGS = "Any setting can be given as --SECTION.KEY VALUE, as in --optim.lr 1e-3; --print-config shows them all."


class Parser(argparse.ArgumentParser):
    """Prints one sentence for a mistake, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """One sentence on stderr."""
        fail(message, 2)

    @property
    def options(self) -> list[str]:
        """The long options, without their dashes; `help` among them."""
        return [o[2:] for action in self._actions for o in action.option_strings if o.startswith("--")]


def fail(message: str, code: int) -> NoReturn:
    """Print `message` on stderr and exit."""
    sys.stderr.write(f"jepa: {message}\n")
    raise SystemExit(code)


def parser() -> tuple[Parser, Mapping[str, Parser]]:
    """The whole command line, and the part of each command."""
    root = Parser(
        prog="jepa",
        description="Joint-embedding predictive architectures: train, watch, probe, embed.",
        allow_abbrev=False,
    )
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def command(name: str, help: str, epilog: str = "") -> Parser:
        sub: Parser = commands.add_parser(name, help=help, description=help, epilog=epilog, allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return sub

    _train_arguments(command("train", "train a method on your data, probe it, and write its report", SETTINGS))
    _probe_arguments(command("probe", "measure a trained encoder beside a random one and the raw input", KIND))
    _embed_arguments(command("embed", "write the representations of every item of a data set", READING))
    ahead = "write the steps that follow every series of a table, with intervals"
    _forecast_arguments(command("forecast", ahead, READING))
    _score_arguments(command("score", "write how unexpected every step of series is to a trained model", READING))
    imagined = "write what a model imagines in place of one side of every sample"
    _complete_arguments(command("complete", imagined, READING))
    p = command("report", "write one page about one or several runs")
    p.add_argument("run_folders", metavar="RUN", nargs="+")
    p.add_argument("--out", metavar="FILE", help="default: RUN/report.html")
    p = command("compare", "settings that differ, numbers and probes of several runs, and one page on them all")
    p.add_argument("run_folders", metavar="RUN", nargs="+")
    p.add_argument("--out", metavar="FILE", help="default: report.html beside the first run")
    p = command("reproduce", "measure a published claim again: trainings × seeds, a table beside the paper's, a page")
    p.add_argument("study", metavar="NAME", help="a study (jepa list)")
    p.add_argument("--data", metavar="FOLDER", help="the folder of all data sets (default: JEPAKIT_DATA)")
    p.add_argument("--out", metavar="DIR", help="default: studies/NAME; a study that was interrupted goes on there")
    p.add_argument("--seeds", type=int, metavar="N", help="trainings of each kind (default: 3 for most studies)")
    p.add_argument("--steps", type=int, metavar="N", help="shorten every training: a rehearsal")
    p = command("check-data", "count, measure and read every item; list what is broken, double or odd")
    p.add_argument("path", metavar="PATH")
    p.add_argument("--csv", metavar="FILE", help="also write a row per problem")
    p.add_argument("--image", default="", metavar="NAME", help="the column or array of images (data.image)")
    p.add_argument("--label", default="", metavar="NAME", help="the column or array of labels (data.label)")
    p.add_argument("--fixations", default="", metavar="FILE", help="scanpaths on the pictures (data.fixations)")
    p.add_argument("--timing", choices=("auto", "duration", "onset"), default="auto", help="what times are")
    command("list", "list methods, recipes, encoders, masks, data, probes and studies")
    p = command("doctor", "check this installation and machine, and how fast data can be read")
    p.add_argument("--data", help="measure reading this data against a training step")
    return root, commands.choices


def _train_arguments(p: Parser) -> None:
    p.add_argument("recipe", metavar="RECIPE|CONFIG.yaml", nargs="?", help="a recipe, a method, or a settings file")
    p.add_argument("--data", metavar="PATH", help="folder, manifest, shards, parquet, arrays, table or .ts (data.path)")
    p.add_argument("--out", metavar="RUN", help="the run folder to write (default: runs/RECIPE)")
    p.add_argument("--config", metavar="FILE", help="settings that override the recipe's")
    p.add_argument("--seed", metavar="N", help="of weights, order, augmentation and masks (default: 0)")
    p.add_argument("--steps", metavar="N", help="optimiser steps (length.steps)")
    p.add_argument("--on-collapse", metavar="warn|stop|rollback", help="what follows a collapse (loop.on_collapse)")
    p.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        choices=("yes", "auto"),
        help="go on from the last checkpoint; auto: or start",
    )
    p.add_argument(
        "--allow-change", metavar="KEY", action="append", default=[], help="let this setting differ on resume"
    )
    p.add_argument("--overwrite", action="store_true", help="delete what the run folder holds")
    p.add_argument("--init", metavar="RUN", help="start from another run's weights")
    p.add_argument("--dry-run", action="store_true", help="print parameters, FLOPs, memory and time, and stop")
    p.add_argument("--print-config", action="store_true", help="print the settings as YAML, and stop")


def _probe_arguments(p: Parser) -> None:
    p.add_argument("run_folder", metavar="RUN", help="the folder that training wrote")
    p.add_argument("--kind", required=True, help="knn, linear, attentive, lowshot, finetune, dense, … (jepa list)")
    p.add_argument("--data", metavar="PATH", help="labelled data to fit on (default: the run's own)")
    p.add_argument("--test", metavar="PATH", help="labelled data to score on (default: a fifth of the data, held out)")
    p.add_argument("--responses", metavar="FILE", help="recorded responses, .npy, for --kind rsa")
    p.add_argument("--weights", choices=("target", "context"), default="target", help=WEIGHTS)
    p.add_argument("--step", type=int, metavar="N", help="judge the checkpoint of this step (default: the newest)")
    p.add_argument("--name", help="a name for the result file: evals/KIND-NAME.json")
    p.add_argument("--no-cache", action="store_true", help="neither use nor keep features in the run folder")


def _embed_arguments(p: Parser) -> None:
    p.add_argument("run_folder", metavar="RUN", help="the folder that training wrote")
    p.add_argument("--data", required=True, metavar="PATH", help="what to embed: as for train")
    p.add_argument("--out", required=True, metavar="FILE", help="FILE.parquet, .npy or .csv")
    p.add_argument("--tokens", action="store_true", help="one vector per patch instead of their mean")
    p.add_argument("--weights", choices=("target", "context"), default="target", help=WEIGHTS)
    p.add_argument("--step", type=int, metavar="N", help="embed with the checkpoint of this step (default: the newest)")
    p.add_argument("--batch", type=int, default=64, metavar="N", help="items at a time (default: 64)")
    p.add_argument("--workers", type=int, metavar="N", help="processes that read (default: as in training)")
    p.add_argument("--overwrite", action="store_true", help="replace FILE")


def _forecast_arguments(p: Parser) -> None:
    p.add_argument("run_folder", metavar="RUN", help="the folder that training on series wrote")
    p.add_argument("--data", required=True, metavar="PATH", help="series to go on from: as for train")
    p.add_argument("--horizon", required=True, type=int, metavar="N", help="how many steps")
    p.add_argument("--out", required=True, metavar="FILE", help="FILE.csv or .parquet")
    p.add_argument("--plot", metavar="FILE", help="FILE.png of the first series and what follows")
    p.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step (default: the newest)")
    p.add_argument("--overwrite", action="store_true", help="replace FILE")


def _score_arguments(p: Parser) -> None:
    p.add_argument("run_folder", metavar="RUN", help="the folder that training wrote")
    p.add_argument("--data", required=True, metavar="PATH", help="series to score: as for train")
    p.add_argument("--out", required=True, metavar="FILE", help="FILE.csv or .parquet, a row per step")
    p.add_argument("--causal", action="store_true", help="predict the last token of each window from those before it")
    p.add_argument("--stride", type=int, metavar="N", help="steps between two windows (default: one token)")
    p.add_argument("--quantile", type=float, default=0.999, metavar="Q", help="of the training scores: the threshold")
    p.add_argument("--plot", metavar="FILE", help="FILE.png of series and scores")
    p.add_argument("--step", type=int, metavar="N", help="score with the checkpoint of this step (default: the newest)")
    p.add_argument("--batch", type=int, default=256, metavar="N", help="windows at a time (default: 256)")
    p.add_argument("--overwrite", action="store_true", help="replace FILE")


def _complete_arguments(p: Parser) -> None:
    p.add_argument("run_folder", metavar="RUN", help="the folder that training wrote")
    p.add_argument("--data", required=True, metavar="PATH", help="what to complete: as for train")
    sides = "right, left, top or bottom of pictures; past or future of series; any of them of clips"
    p.add_argument("--hide", required=True, metavar="SIDE", help=sides)
    p.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    p.add_argument("--limit", type=int, metavar="N", help="complete the first N items (default: all)")
    steps = "of the decoder's training, where it is not trained yet (default: 2000)"
    p.add_argument("--steps", type=int, metavar="N", help=steps)
    p.add_argument("--overwrite", action="store_true", help="replace a folder of completions")


def split_settings(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words of a command line without its settings `--section.key VALUE`, and those settings."""
    words: list[str] = []
    settings: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            words.append(word)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                fail(f"{word} needs a value, as in {word} VALUE", 2)
            value = rest.pop(0)
        settings[name] = value
    return words, settings


def check_names(words: Sequence[str], commands: Mapping[str, Parser]) -> None:
    """Exit with the nearest name where the first word is no command, or another word no option of it."""
    if not words or words[0].startswith("-"):
        return
    name, *rest = words
    if name not in commands:
        fail(no_such("command", name, commands), 2)
    options = commands[name].options
    for word in rest:
        option = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and option not in options:
            near = did_you_mean(option, options, prefix="--")
            more = "; settings are written --section.key VALUE" if name in TAKE_SETTINGS else ""
            fail(f"No option --{option} for {name}.{near} Options: --{', --'.join(options)}{more}", 2)
