"""Environments: batched worlds as functions of their state, and an adapter for any environment of Gymnasium.

A new environment is a file here: one subclass of `Environment`, and a frozen dataclass `Config` with `build()`. It is
named as the file is; a file that offers other names, or several, lists them in `ENVS`.
"""

from typing import TYPE_CHECKING, Final

from ..core.lazy import lazy_names
from ..core.registry import Registry, is_dataclass_with, one_class, settings_like

if TYPE_CHECKING:
    from .base import (
        EnvConfig,
        Environment,
        EnvState,
        Episodes,
        Floor,
        Simulation,
        SimulationError,
        Transition,
        build_environment,
        random_actions,
    )

__all__ = [
    "ENVS",
    "EnvConfig",
    "EnvState",
    "Environment",
    "Episodes",
    "Floor",
    "Simulation",
    "SimulationError",
    "Transition",
    "base",
    "build_environment",
    "cartpole",
    "drawing",
    "gym",
    "pendulum",
    "random_actions",
    "register",
    "two_rooms",
]


# What `--data` and `jepa plan` may name as an environment.
ENVS: "Final[Registry[EnvConfig]]" = Registry(
    __name__,
    "environment",
    "one frozen dataclass with build()",
    one_class(is_dataclass_with("build"), "ENVS"),
    settings_like(f"{__name__}.base", "EnvConfig", "has no method build()"),
    group="jepakit.envs",
)

__getattr__ = lazy_names(
    __name__,
    dict.fromkeys(
        (
            "EnvConfig",
            "EnvState",
            "Environment",
            "Episodes",
            "Floor",
            "Simulation",
            "SimulationError",
            "Transition",
            "build_environment",
            "random_actions",
        ),
        "base",
    ),
)
