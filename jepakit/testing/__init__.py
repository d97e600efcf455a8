"""The method contract: checks in seconds what trainer, evaluators and reports rely on in any method.

`contract(MyMethod)` builds `MyMethod.Config.tiny(signal)` (a classmethod that returns a configuration of at most 32
tokens) for an image, a video and a series, each plain and with actions, views and labels, as far as `needs` allows, and
runs every clause of `CLAUSES` on each. The features of a method decide which clauses apply:

- always: `loss`, `encode`, `energy`, `after_step`;
- a masked method (`methods/masked.py`): the results of `context` and `predict` never depend on hidden patches;
- a target encoder with EMA: `cfg.ema = (start, end)`, linear in progress, `encoder` and `target_encoder`;
- a method whose loss mixes samples declares it, `batch_statistics = True`, and mixes those of all ranks;
- a head (`methods/head.py`) is built on untrained parents of the classes that it names and must leave them unchanged;
- a method that unfolds in time (`methods/predictive.py`) has states that do not depend on the future, streamed or not.
"""

from collections.abc import Callable, Sequence

from ..methods.base import Method
from ..methods.head import Head
from ..types import Signal
from . import clauses
from .case import SIGNALS, Case, example, parents_for, variants
from .data import DataCase, data_contract
from .sequential import knows_no_future

CLAUSES = (*clauses.CLAUSES, knows_no_future)

__all__ = ["CLAUSES", "SIGNALS", "Case", "DataCase", "contract", "data_contract", "example", "variants"]


def contract(method: type[Method], signals: Sequence[Signal] | None = None) -> None:
    """Run every clause on every signal that the method's `needs` allow; `signals` replaces the built-in ones.

    Raises AssertionError with one sentence: the method, the signal, what fails and how to fix it.
    """
    offered = variants() if signals is None else tuple(signals)
    allowed = [signal for signal in offered if method.needs <= signal.has]
    if not allowed:
        raise AssertionError(f"{method.__name__}: no signal carries {sorted(method.needs)}; pass signals=[…] that do")
    if not hasattr(method.Config, "tiny"):
        raise AssertionError(f"{method.__name__}.Config has no tiny; give it a classmethod tiny(signal) -> Config")
    for signal in allowed:
        _check_parents(method, signal)
        case = Case(method, signal, example(signal))
        for clause in CLAUSES:
            _run_clause(clause, case)
    for signal in set(offered) - set(allowed):
        _check_refusal(method, signal)


def _run_clause(clause: Callable[[Case], None], case: Case) -> None:
    try:
        clause(case)
    except AssertionError as error:
        name = getattr(clause, "__name__", "clause").replace("_", " ")
        where = f"{case.method.__name__} on {case.signal.size} with {', '.join(sorted(case.signal.has)) or 'x only'}"
        raise AssertionError(f"{where}: {error} (clause: {name})") from None


def _check_parents(method: type[Method], signal: Signal) -> None:
    try:
        if issubclass(method, Head):
            parents_for(method, signal)
    except ValueError as error:
        raise AssertionError(f"{method.__name__}: {error}") from None


def _check_refusal(method: type[Method], signal: Signal) -> None:
    try:
        Case(method, signal, example(signal)).build()
    except ValueError:
        return
    missing = " and ".join(sorted(method.needs - signal.has))
    raise AssertionError(f"{method.__name__} needs {missing} but takes a signal without; call super().__init__ first")
