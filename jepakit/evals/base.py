"""The kinds of evaluation: one file each, found by file name, or by the entry-point group of another package.

A kind is a module with a frozen dataclass `Config` and `evaluate(train, test, cfg)` yielding (name, value): `metric`,
`value`, `low`, `high`, `per_class`, and any further notes. `READS` says what both parts of the data contain:

    "pooled"     `Features`: a vector per sample; `Config.pool` says how tokens become one. The default.
    "tokens"     `Tokens`: all tokens of every sample, on disk.
    "masks"      `Tokens` whose samples carry a picture of class ids instead of a label.
    "encoder"    `Live`: the samples themselves, and encoders to train on them.
    "windows"    `Windows` of series, cut into past and future; no labels are needed.
    "recorded"   `RecordedResponses`: pooled vectors and the recorded responses to the same items. Nothing is fitted:
                 the part to fit on is empty, the other part has all items. No labels are needed.

A kind whose `value` is an error sets `LOWER_IS_BETTER`; a kind whose `value` is a number but not a fraction sets
`PLAIN`.

A kind that measures several things begins each result with `name`, which becomes a part of the result's file name. A
slow kind yields `progress`, from 0 to 1, in between; it is shown but not saved.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ..core.registry import Registry, file_with

if TYPE_CHECKING:
    from .metrics.result import Value

Reads = Literal["pooled", "tokens", "masks", "encoder", "windows", "recorded"]


class Kind(NamedTuple):
    """A kind's settings, its function of (train, test, settings), what both parts contain, and how to read `value`."""

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
        """Whether the kind fits something, on other samples than it scores."""
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
    """The kind called `kind`. Raises ValueError, which suggests the nearest name, if there is none."""
    return KINDS.load(kind)
