"""jepakit: joint-embedding predictive architectures. Train, watch, probe, embed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from . import testing
    from .api import (
        Model,
        check_data,
        collect,
        compare,
        complete,
        embed,
        forecast,
        load,
        plan,
        probe,
        report,
        reproduce,
        score,
        train,
    )
    from .methods.base import Method
    from .recurrent import rfp
    from .types import Batch, Masks, Rng, Signal, Terms

__all__ = [
    "Batch",
    "Masks",
    "Method",
    "Model",
    "Rng",
    "Signal",
    "Terms",
    "check_data",
    "collect",
    "compare",
    "complete",
    "embed",
    "forecast",
    "load",
    "plan",
    "probe",
    "report",
    "reproduce",
    "rfp",
    "score",
    "testing",
    "train",
]

# Where a public name lives, if not in api.
_HOMES = {
    **dict.fromkeys(("Batch", "Masks", "Rng", "Signal", "Terms"), "types"),
    "Method": "methods.base",
}

# Public modules, by the name that they have here.
_ROOMS = {"rfp": "recurrent.rfp", "testing": "testing"}


def __getattr__(name: str) -> Any:
    """Public names are imported when first used (PEP 562), so that `import jepakit` stays fast."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{_ROOMS[name]}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
