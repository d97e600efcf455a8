"""The kinds of evaluation: one file each, found by file name, or by the entry-point group of another package.

A kind is a module with a frozen dataclass `Config` and `evaluate(train, test, cfg)` yielding (name, value): `metric`,
`value`, `low`, `high`, `per_class`, and whatever it wants noted. Both parts of the data hold what the kind `READS`:

    "pooled"     `Features`: a vector per sample; `Config.pool` says how tokens become one. The default.
    "tokens"     `Tokens`: all tokens of every sample, on the disk.
    "masks"      `Tokens` whose samples carry a picture of class ids instead of a label.
    "encoder"    `Live`: the samples themselves, and encoders to train on them.
    "windows"    `Windows` of series, cut into past and future; no labels are needed.
    "recorded"   `Recorded`: pooled vectors and what was recorded to the same items. Nothing is fitted: the part to
                 fit on is empty, the other holds all items. No labels are needed.

A kind whose `value` is an error says `LOWER_IS_BETTER`, one whose `value` is a number and no share of a whole `PLAIN`.

A kind that measures several things begins each with `name`, which becomes a part of that result's file name. A kind
that takes long yields `progress`, from 0 to 1, in between; it is shown and not kept.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .metrics.result import Value

Reads = Literal["pooled", "tokens", "masks", "encoder", "windows", "recorded"]


class Kind(NamedTuple):
    """A kind's settings, its function of (train, test, settings), what both parts hold, and how its value is read."""

    Config: type[Any]
    evaluate: "Callable[[Any, Any, Any], Iterator[tuple[str, Value]]]"
    reads: Reads = "pooled"
    lower: bool = False
    plain: bool = False

    @property
    def labels(self) -> bool:
        """Whether every sample needs a label."""
        return self.reads not in ("masks", "windows", "recorded")

    @property
    def fits(self) -> bool:
        """Whether something is fitted, to other samples than it is scored on."""
        return self.reads != "recorded"


def kind_of(module: Any) -> Kind:
    """The kind that a module defines."""
    lower, plain = (getattr(module, name, False) for name in ("LOWER_IS_BETTER", "PLAIN"))
    return Kind(module.Config, module.evaluate, getattr(module, "READS", "pooled"), lower, plain)


KINDS: Final = Registry(
    "jepakit.evals.kinds",
    "kind of evaluation",
    "a frozen dataclass Config and a function evaluate",
    file_with("Config", "evaluate"),
    kind_of,
    group="jepakit.evals",
)


def load_kind(kind: str) -> Kind:
    """The kind called `kind`. Raises ValueError, with the nearest name, where there is none."""
    return KINDS.load(kind)
