"""The command `jepa`: parse, call the API, print.

Exit codes: 0 done, 1 failed, 2 a user's mistake, 130 interrupted and saved.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from .names import did_you_mean, no_such
from .progress import Interrupted, watching

WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
TAKE_SETTINGS = ("train", "probe")
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

    def command(name: str, run: Callable[[argparse.Namespace], None], help: str, epilog: str = "") -> Parser:
        sub: Parser = commands.add_parser(name, help=help, description=help, epilog=epilog, allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    _train_arguments(command("train", train, "train a method on your data, probe it, and write its report", SETTINGS))
    p = command("probe", probe, "measure a trained encoder beside a random one and the raw input")
    p.add_argument("run_folder", metavar="RUN")
    p.add_argument("--kind", required=True, help="knn, linear, … (jepa list)")
    p.add_argument("--data", help="labelled data to fit on (default: the run's own)")
    p.add_argument("--test", help="labelled data to score on (default: a fifth of the data, held out)")
    p.add_argument("--weights", choices=("target", "context"), default="target")
    p.add_argument("--step", type=int, metavar="N", help="judge the checkpoint of this step (default: the newest)")
    p.add_argument("--name", help="a name for the result file: evals/KIND-NAME.json")
    p = command("embed", embed, "write the representations of every item of a data set")
    p.add_argument("run_folder", metavar="RUN")
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True, metavar="FILE", help="FILE.parquet, .npy or .csv")
    p.add_argument("--tokens", action="store_true", help="one vector per patch instead of their mean")
    p.add_argument("--weights", choices=("target", "context"), default="target")
    p.add_argument("--step", type=int, metavar="N", help="embed with the checkpoint of this step (default: the newest)")
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--workers", type=int, default=None)
    p.add_argument("--overwrite", action="store_true")
    p = command("report", report, "write one page about one or several runs")
    p.add_argument("run_folders", metavar="RUN", nargs="+")
    p.add_argument("--out", metavar="FILE", help="default: RUN/report.html")
    p = command("check-data", check_data, "count, measure and read every item; list what is broken, double or odd")
    p.add_argument("path", metavar="PATH")
    p.add_argument("--csv", metavar="FILE", help="also write a row per problem")
    command("list", list_names, "list methods, encoders, masks, data, probes and recipes")
    p = command("doctor", doctor, "check this installation and machine, and how fast data can be read")
    p.add_argument("--data", help="measure reading this data against a training step")
    return root, commands.choices


def _train_arguments(p: Parser) -> None:
    p.add_argument("recipe", metavar="RECIPE|CONFIG.yaml", nargs="?", help="a recipe, a method, or a settings file")
    p.add_argument("--data", metavar="PATH", help="folder, manifest, shards, parquet or arrays (data.path)")
    p.add_argument("--out", metavar="RUN", help="the run folder to write (default: runs/RECIPE)")
    p.add_argument("--config", metavar="FILE", help="settings that override the recipe's")
    p.add_argument("--seed", metavar="N")
    p.add_argument("--steps", metavar="N", help="optimiser steps (length.steps)")
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


def train(a: argparse.Namespace) -> None:
    """`jepa train`."""
    from . import api

    shortcuts = {"seed": a.seed, "length.steps": a.steps}
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
        _print_table(api.dry_run(request))
    else:
        with watching() as watch:
            done = api.run(request, watch)
        if text := api.describe(done):
            print(text)


def probe(a: argparse.Namespace) -> None:
    """`jepa probe`."""
    from . import api

    options = {"data": a.data, "test": a.test, "weights": a.weights, "step": a.step, "name": a.name}
    path = api.probe(a.run_folder, kind=a.kind, settings=a.settings, **options)
    print(api.describe_probes([path]))


def embed(a: argparse.Namespace) -> None:
    """`jepa embed`."""
    from . import api

    options = {
        "tokens": a.tokens,
        "weights": a.weights,
        "step": a.step,
        "batch": a.batch,
        "workers": a.workers,
        "overwrite": a.overwrite,
    }
    done = api.embed(a.run_folder, data=a.data, out=a.out, **options)
    print(f"{done.out}: {' × '.join(map(str, done.shape))}")
    if done.missing:
        print(f"{len(done.missing)} unreadable items have a row of NaN, among them {done.missing[0]}")


def report(a: argparse.Namespace) -> None:
    """`jepa report`."""
    from . import api

    print(api.report(*a.run_folders, out=a.out))


def check_data(a: argparse.Namespace) -> None:
    """`jepa check-data`."""
    from . import api

    _print_table(api.check_data(a.path, csv=a.csv))


def list_names(a: argparse.Namespace) -> None:
    """`jepa list`."""
    from . import api

    _print_table(api.names())


def doctor(a: argparse.Namespace) -> None:
    """`jepa doctor`."""
    from . import api

    _print_table(api.doctor(data=a.data))


def _print_table(rows: Sequence[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words, settings = split_settings(sys.argv[1:] if argv is None else argv)
    root, commands = parser()
    check_names(words, commands)
    a, unexpected = root.parse_known_args(words)
    if unexpected:
        fail(f"unexpected {unexpected[0]!r}; `jepa {a.command or ''} --help` shows what may stand there", 2)
    if settings and a.command not in TAKE_SETTINGS:
        fail(f"--{next(iter(settings))} is a setting; only train and probe take settings", 2)
    a.settings = settings
    if a.version:
        from . import __version__

        print(__version__)
        return 0
    if a.command is None:
        root.print_help()
        return 0
    return guarded(a)


def guarded(a: argparse.Namespace) -> int:
    """Run a parsed command; an error becomes one sentence and a code."""
    try:
        a.run(a)
    except Interrupted as error:
        fail(str(error), 130)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except (ValueError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
        if a.debug:
            raise
        fail(*told(error))
    return 0


def told(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    if isinstance(error, ValueError):
        return str(error), 2
    # A path that is wrong is the user's to mend; a disk that is full or fails is not named by its class.
    if isinstance(error, WRONG_PATH) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give another path", 2
    return f"{error} (--debug shows where)", 1


if __name__ == "__main__":
    raise SystemExit(main())
