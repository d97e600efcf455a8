"""List methods, recipes, encoders, masks, data, probes and studies, and what each is."""

import argparse
from importlib import import_module
from typing import Any, Final

from ...core.registry import Registry

# What a command may name, and where its registry is.
REGISTRY_PATHS: Final = {
    "methods": "methods:METHODS",
    "recipes": "recipes:RECIPES",
    "encoders": "nn:ENCODERS",
    "predictors": "nn:PREDICTORS",
    "masks": "masks:MASKERS",
    "data": "data:KINDS",
    "probes": "evals:KINDS",
    "studies": "studies:STUDIES",
    "sections": "reporting:SECTIONS",
    "commands": "cli.commands:COMMANDS",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `jepa list` takes: nothing."""


def run(arguments: argparse.Namespace) -> None:
    """Print every name with its description, then what other packages offer and cannot be used."""
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
    """The registry at `room:NAME`; imports that room's `__init__` and no more."""
    room, _, name = place.partition(":")
    registry: Registry[Any] = getattr(import_module(f"jepakit.{room}"), name)
    return registry
