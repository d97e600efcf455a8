"""The command `jepa`: parse, call the API, print.

Exit codes: 0 success, also if --on-collapse stopped the run; 1 failure; 2 a user's mistake; 130 interrupted and saved;
141 if the reader of the output has closed the pipe, as in `jepa list | head`.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Final

from ..core.progress import Interrupted
from .arguments import (
    check_command,
    check_options,
    check_settings,
    command_parser,
    exit_with_error,
    root_parser,
    split_settings,
)
from .commands import COMMANDS

WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
CLOSED_PIPE_CODE: Final = 141  # 128 + SIGPIPE, as for programs that the signal kills


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        try:
            return run_words(argv)
        finally:
            sys.stdout.flush()  # here, because Python itself reports a closed pipe at exit
    except BrokenPipeError:
        discard_output()
        return CLOSED_PIPE_CODE


def discard_output() -> None:
    """Discard all remaining output on stdout and stderr, because nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def run_words(argv: Sequence[str] | None) -> int:
    """Parse the words and run the command that they name; return the exit code."""
    words, settings = split_settings(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return without_command(words)
    name, *rest = words
    check_command(name)
    try:
        parser = command_parser(name)
    except ValueError as error:
        exit_with_error(str(error), 2)
    check_options(name, parser, rest)
    arguments, unexpected = parser.parse_known_args(rest)
    if unexpected:
        exit_with_error(f"unexpected {unexpected[0]!r}; `jepa {name} --help` shows what is accepted", 2)
    check_settings(name, settings)
    arguments.settings = settings
    return run_guarded(COMMANDS.load(name).run, arguments)


def without_command(words: Sequence[str]) -> int:
    """Print the version or the help; return the exit code."""
    parser = root_parser()
    arguments, unexpected = parser.parse_known_args(words)
    if unexpected:
        exit_with_error(f"unexpected {unexpected[0]!r}; `jepa --help` shows what is accepted", 2)
    if arguments.version:
        from ..core.version import VERSION

        sys.stdout.write(f"{VERSION}\n")
    else:
        parser.print_help()
    return 0


def run_guarded(run: Callable[[argparse.Namespace], None], a: argparse.Namespace) -> int:
    """Run a command on its parsed words; turn an error into one sentence and an exit code."""
    try:
        run(a)
    except Interrupted as error:
        exit_with_error(str(error), 130)
    except KeyboardInterrupt:
        exit_with_error("interrupted", 130)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
        if a.debug:
            raise
        exit_with_error(*error_sentence(error))
    return 0


def error_sentence(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    if isinstance(error, ValueError):
        return str(error), 2
    # A wrong path is the user's mistake; the error class of a full or failing disk says nothing, so it is not shown.
    if isinstance(error, WRONG_PATH) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give another path", 2
    # PyTorch's out-of-memory errors differ by device, but all contain the requested size.
    if asked := re.search(r"tried to allocate ([\d.]+) (\w+)", str(error), re.IGNORECASE):
        size = " ".join(asked.groups()) if asked[2] != "bytes" else f"{int(asked[1]) / 2**30:,.1f} GiB"
        return f"out of memory: {size} more were needed; give a smaller --length.batch or narrower networks", 1
    return f"{error} (--debug shows where)", 1


if __name__ == "__main__":
    raise SystemExit(main())
