"""Parses a command line: its command, its options, its settings, and the error for any other word."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from ..core.registry import did_you_mean, no_such
from .commands import COMMANDS

READING_NOTE = (
    "PATH is read as the run reads its own data, except for settings --data.KEY VALUE, such as --data.fill 30."
)


class Parser(argparse.ArgumentParser):
    """Prints one sentence for a mistake, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """One sentence on stderr."""
        exit_with_error(plain_sentence(message), 2)

    @property
    def options(self) -> list[str]:
        """The long options, without their dashes; `help` among them."""
        return [o[2:] for action in self._actions for o in action.option_strings if o.startswith("--")]


NUMBER_WORDS: Final = {"int": "a whole number", "float": "a number"}


def plain_sentence(message: str) -> str:
    """The message of argparse in our words: what an option takes, and what was given."""
    if found := re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message):
        option, kind, value = found.groups()
        return f"{option} takes {NUMBER_WORDS[kind]}, not {value}"
    if found := re.fullmatch(r"argument (\S+): invalid choice: (\S+) \(choose from (.*)\)", message):
        option, value, choices = found.groups()
        return f"{option} takes one of {choices.replace(chr(39), '')}, not {value}"
    if found := re.fullmatch(r"argument (\S+): expected (?:one|at least one) argument", message):
        return f"{found[1]} needs a value, as in {found[1]} VALUE"
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{found[1]} is missing; give it, or see --help"
    return message


def exit_with_error(message: str, code: int) -> NoReturn:
    """Print `message` on stderr and exit."""
    sys.stderr.write(f"jepa: {message}\n")
    raise SystemExit(code)


def root_parser() -> Parser:
    """The parser of `jepa` without a command: it lists the commands and imports none of them."""
    root = Parser(
        prog="jepa",
        description="Joint-embedding predictive architectures: train, watch, probe, embed.",
        allow_abbrev=False,
    )
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS.names():
        commands.add_parser(name, help=COMMANDS.describe(name))
    return root


def command_parser(name: str) -> Parser:
    """The parser of one command; imports only that one. Raises ValueError if another package's command is unusable."""
    command = COMMANDS.load(name)
    parser = Parser(prog=f"jepa {name}", description=COMMANDS.describe(name), epilog=command.epilog, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_arguments(parser)
    return parser


def add_run(parser: argparse.ArgumentParser, folder: str = "the folder that training wrote") -> None:
    """The argument RUN."""
    parser.add_argument("run_folder", metavar="RUN", help=folder)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The argument RUN, once or several times."""
    parser.add_argument("run_folders", metavar="RUN", nargs="+")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option --weights."""
    which = "the moving average (target, the default) or the trained encoder (context)"
    parser.add_argument("--weights", choices=("target", "context"), default="target", help=which)


def add_step(parser: argparse.ArgumentParser, use: str) -> None:
    """The option --step of a checkpoint; `use` is the verb of its help text."""
    parser.add_argument(
        "--step", type=int, metavar="N", help=f"{use} the checkpoint of this step (default: the newest)"
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    """The options of how a run plans. What is not given is None: the defaults are those of the API."""
    add = parser.add_argument
    add("--planner", metavar="NAME", help="the search (default: cem; jepa list shows all)")
    add("--horizon", type=int, metavar="N", help="the model's actions in a plan (default: 8)")
    add("--replan", type=int, metavar="N", help="actions that are done before the next plan (default: 1)")
    add("--energy", choices=("auto", "latent", "metric", "reward"), help="what plans are judged by (default: auto)")
    add("--distance", choices=("l2", "l1", "cosine"), help="the latent distance to a goal (default: l2)")
    reductions = ("sum", "last", "discounted", "lowest")
    add("--reduce", choices=reductions, help="how the steps of a path count (default: sum)")


def search_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_search` read, by the API's names, without what is not given."""
    names = {"planner": "planner", "horizon": "horizon", "replan": "replan_every", "energy": "source"}
    names |= {"distance": "distance", "reduce": "reduce"}
    given = {name: getattr(arguments, option) for option, name in names.items()}
    return {name: value for name, value in given.items() if value is not None}


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
                exit_with_error(f"{word} needs a value, as in {word} VALUE", 2)
            value = rest.pop(0)
        settings[name] = value
    return words, settings


def check_command(name: str) -> None:
    """Exit, suggesting the nearest name, if `name` is not a command."""
    if name not in COMMANDS.names():
        exit_with_error(no_such("command", name, COMMANDS.names()), 2)


def check_options(name: str, parser: Parser, words: Sequence[str]) -> None:
    """Exit, suggesting the nearest name, if one of `words` is not an option of the command `name`."""
    options = parser.options
    for word in words:
        option = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and option not in options:
            near = did_you_mean(option, options, prefix="--")
            more = "; settings are written --section.key VALUE" if COMMANDS.load(name).takes_settings else ""
            exit_with_error(f"No option --{option} for {name}.{near} Options: --{', --'.join(options)}{more}", 2)


def check_settings(name: str, settings: dict[str, str]) -> None:
    """Exit if settings are given and the command `name` takes none."""
    if settings and not COMMANDS.load(name).takes_settings:
        broken = COMMANDS.unusable_members()
        takers = [c for c in COMMANDS.names() if c not in broken and COMMANDS.load(c).takes_settings]
        exit_with_error(f"--{next(iter(settings))} is a setting; only {', '.join(takers)} take settings", 2)
