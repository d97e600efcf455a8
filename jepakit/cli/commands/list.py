"""List methods, recipes, encoders, masks, data, probes and studies, with a description of each."""

import argparse
from importlib import import_module
from typing import Any, Final

from ...core.registry import Registry

# The names that a command accepts, and the registry of each kind.
REGISTRY_PATHS: Final = {
    "methods": "methods:METHODS",
    "recipes": "recipes:RECIPES",
    "encoders": "nn:ENCODERS",
    "predictors": "nn:PREDICTORS",
    "dynamics": "nn:DYNAMICS",
    "readouts": "nn:READOUTS",
    "masks": "masks:MASKERS",
    "data": "data:KINDS",
    "environments": "envs:ENVS",
    "probes": "evals:KINDS",
    "studies": "studies:STUDIES",
    "sections": "reporting:SECTIONS",
    "commands": "cli.commands:COMMANDS",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: `jepa list` takes none."""


def run(arguments: argparse.Namespace) -> None:
    """Print every name with its description, then unusable members from other packages."""
    from .. import text

    registries = {noun: find_registry(place) for noun, place in REGISTRY_PATHS.items()}
    broken = {noun: registry.unusable_members() for noun, registry in registries.items()}
    for noun, registry in registries.items():
        print(f"{noun}")
        text.print_table(
            [(f"  {name}", registry.describe(name)) for name in registry.names() if name not in broken[noun]]
        )
    for sentence in (sentence for sentences in broken.values() for sentence in sentences.values()):
        print(f"note: {sentence}")


def find_registry(place: str) -> Registry[Any]:
    """The registry at `room:NAME`; imports only that room's `__init__`."""
    room, _, name = place.partition(":")
    registry: Registry[Any] = getattr(import_module(f"jepakit.{room}"), name)
    return registry
