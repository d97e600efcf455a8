"""The commands of `jepa`: one file each, named like the command, with underscores for dashes.

A command is a module with `add_arguments(parser)` and `run(arguments)`; the first line of its docstring is its help.
`EPILOG` is printed below its options. With `TAKES_SETTINGS`, words `--section.key VALUE` arrive in
`arguments.settings`. A command imports its implementation inside `run`, so that its help is fast.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...core.registry import Registry, file_with


class Command(NamedTuple):
    """The arguments and the action of a command."""

    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    epilog: str = ""
    takes_settings: bool = False


def command_of(module: Any) -> Command:
    """The command that a module defines."""
    epilog, settings = getattr(module, "EPILOG", ""), getattr(module, "TAKES_SETTINGS", False)
    return Command(module.add_arguments, module.run, epilog, settings)


COMMANDS: Final = Registry(
    __name__,
    "command",
    "add_arguments(parser) and run(arguments)",
    file_with("add_arguments", "run", dashes=True),
    command_of,
    group="jepakit.commands",
)
