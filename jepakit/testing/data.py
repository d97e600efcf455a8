"""The data contract: checks in seconds what loader, trainer and commands rely on in any kind of data.

`data_contract(Config(path=…))` opens the data, which must have at least three items, and runs every clause of
`CLAUSES` on them and on the first three of them. A kind refuses what it cannot do with a ValueError of one sentence;
any other exception breaks the contract.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ..data import Dataset, Place, Report, SourceConfig, Unreadable, loader
from ..types import ActionSpec, Batch, Rng, Samples, Signal

BATCH_SIZE: Final = 2
MAX_ITEMS: Final = 3
SAMPLES_FIELDS: Final = ("x", "action", "reward", "done", "proprio", "length", "label", "id")
CLAUSE_RNG: Final = Rng(7, 1).fork("data")


@dataclass(frozen=True, eq=False)
class DataCase:
    """The subject of a clause: data, and the settings that opened them."""

    cfg: SourceConfig
    dataset: Dataset

    @cached_property
    def signal(self) -> Signal:
        """The signal of the data."""
        return self.dataset.signal()

    @property
    def ids(self) -> Int64[np.ndarray, " n"]:
        """The ids of the first items, at most six, in reverse order; clauses read these."""
        return np.arange(min(len(self.dataset), 6), dtype=np.int64)[::-1].copy()


def data_contract(cfg: SourceConfig | type[SourceConfig]) -> None:
    """Run every clause on the data that `cfg` opens, at least three items, and on a part of them.

    A class is opened with its defaults, which suits generated data. Raises AssertionError with one sentence: the data,
    what fails and how to fix it.
    """
    made = cfg() if isinstance(cfg, type) else cfg
    dataset = made.open()
    if len(dataset) < MAX_ITEMS:
        raise AssertionError(f"{made.path!r} holds {len(dataset)} items; give the contract {MAX_ITEMS} or more")
    _run_all(DataCase(made, dataset), made.path)
    few = dataset.subset(np.arange(MAX_ITEMS, dtype=np.int64))
    _run_all(DataCase(made, few), f"the first {MAX_ITEMS} items of {made.path}")


def _run_all(case: DataCase, where: str) -> None:
    for clause in CLAUSES:
        name = getattr(clause, "__name__", "clause").replace("_", " ")
        try:
            clause(case)
        except AssertionError as error:
            raise AssertionError(f"{type(case.dataset).__name__} on {where}: {error} (clause: {name})") from None
        except (TypeError, AttributeError, NotImplementedError, LookupError, RuntimeError) as error:
            what = f"raises {type(error).__name__}, {error}"
            raise AssertionError(f"{type(case.dataset).__name__} on {where}: {what} (clause: {name})") from error


def _require_data(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


# --- clauses


def facts_are_of_the_items(case: DataCase) -> None:
    """Names are unique, labels index classes, and sizes have one length per axis."""
    dataset, n = case.dataset, len(case.dataset)
    names, labels = [dataset.name(i) for i in range(n)], [dataset.label(i) for i in range(n)]
    _require_data(
        all(isinstance(name, str) and name for name in names), "an item has no name; return a text by name(i)"
    )
    known = range(-1, len(dataset.classes))
    _require_data(all(label in known for label in labels), f"a label is not in {known}; index `classes`, or return -1")
    _require_data(dataset.channels > 0, f"channels is {dataset.channels}; give how many channels a sample has")
    native, lengths = dataset.native, dataset.lengths
    _require_data(native is None or min(native) > 0, f"native is {native}; give the size of a sample, or None")
    _require_data(lengths is None or len(lengths) == n, "lengths has not one entry per item; give one, or None")
    _require_data(all(isinstance(note, str) for note in dataset.notes), "a note is no text; give one sentence each")


def opening_again_gives_the_same_items(case: DataCase) -> None:
    """The fingerprint and the samples depend only on the data."""
    whole, again = case.cfg.open(), case.cfg.open()
    same = whole.fingerprint() == again.fingerprint()
    _require_data(same, "fingerprint differs between two openings; hash the names and the content, nothing else")
    size = case.signal.size
    first = np.arange(min(2, len(whole)), dtype=np.int64)
    _require_same(
        whole.read(first, size), again.read(first, size), "read differs between two openings; draw nothing in it"
    )


def a_fingerprint_follows_the_items(case: DataCase) -> None:
    """Other items, or fewer, have another fingerprint."""
    fewer = case.dataset.subset(np.arange(len(case.dataset) - 1, dtype=np.int64))
    changed = case.dataset.fingerprint() != fewer.fingerprint()
    _require_data(changed, "fingerprint is the same with one item less; hash the name or the content of every item")


def the_signal_is_that_of_samples(case: DataCase) -> None:
    """Statistics are finite, one per channel, and the signal's counts match what batches carry."""
    dataset, signal = case.dataset, case.signal
    counts = (signal.channels, signal.classes) == (dataset.channels, len(dataset.classes))
    _require_data(counts, "signal counts other channels or classes than the data; use Dataset.as_signal")
    finite = np.isfinite([*signal.mean, *signal.std]).all() and all(value > 0 for value in signal.std)
    _require_data(bool(finite), f"mean {signal.mean} and std {signal.std} are not finite and positive")
    found = dataset.draw(case.ids, CLAUSE_RNG, signal)
    views = sum(view.shape[1] for view in found.views)
    _require_data(views == signal.views, f"signal says {signal.views} views but draw gives {views}")
    _require_data(
        (found.action is not None) == (signal.action is not None), "signal and draw differ on whether actions are"
    )
    if signal.action is not None and found.action is not None:
        wanted = (len(found.id), signal.size[0] - 1, signal.action.size)
        _require_data(
            found.action.shape == wanted, f"actions have shape {tuple(found.action.shape)} where it is {wanted}"
        )


def items_are_read_in_order(case: DataCase) -> None:
    """`read` returns the items asked for, in that order and size, whatever else is read with them."""
    dataset, size = case.dataset, case.signal.size
    found = dataset.read(case.ids, size)
    kept = [i for i in case.ids.tolist() if dataset.name(i) not in found.skipped]
    _require_data(found.id.tolist() == kept, f"read gives items {found.id.tolist()} where {kept} were asked for")
    x = _values_of(found)
    wanted = (len(kept), dataset.channels, *size)
    _require_data(x.shape == wanted, f"read gives x of shape {tuple(x.shape)} where it is {wanted}")
    _require_data(x.dtype in (torch.uint8, torch.float32), f"read gives {x.dtype}; give uint8 pixels or float32")
    _require_data(bool(torch.isfinite(x.float()).all()), "read gives values that are not finite")
    alone = [dataset.read(case.ids[k : k + 1], size) for k in range(len(case.ids))]
    _require_same(found, _join_batches(alone), "an item read alone differs from the same item in a batch", size[0])


def draws_do_not_depend_on_how_a_batch_is_split(case: DataCase) -> None:
    """`draw` depends only on `rng` and each item: not on its batch, on earlier calls, or on the global state."""
    dataset, signal, ids = case.dataset, case.signal, case.ids
    state = _global_state()
    whole = dataset.draw(ids, CLAUSE_RNG, signal)
    _require_data(state == _global_state(), "draw draws from the global random state; draw from uniform(rng, ids, …)")
    advice = "draw from uniform(rng, ids, …), which knows only rng and the id"
    _require_same(whole, dataset.draw(ids, CLAUSE_RNG, signal), f"drawing the same items again gives others; {advice}")
    parts = [dataset.draw(ids[k : k + 1], CLAUSE_RNG, signal) for k in range(len(ids))]
    _require_same(
        whole,
        _join_batches(parts),
        f"an item drawn alone differs from the same item in a batch; {advice}",
        signal.size[0],
    )


def views_are_the_same_without_the_sample(case: DataCase) -> None:
    """Views are the same with and without `include_x`."""
    if not case.signal.views:
        return
    whole, alone = (case.dataset.draw(case.ids, CLAUSE_RNG, case.signal, include) for include in (True, False))
    same = all(map(torch.equal, whole.views, alone.views)) and len(whole.views) == len(alone.views)
    _require_data(same, "views differ without include_x; give every version a stream of its own")
    _require_data(alone.x is None, "draw makes x without include_x; leave it None")


def views_that_a_method_asks_for_are_drawn(case: DataCase) -> None:
    """Where the settings agree to a method that compares views, `draw` makes them."""
    try:
        cfg, _ = case.cfg.resolve(case.dataset, frozenset({"views"}), "a method")
    except ValueError:
        return
    dataset = case.dataset.with_config(cfg)
    try:
        dataset.check_views(dataset.signal())
    except ValueError as error:
        raise AssertionError(str(error)) from None


def draw_and_read_agree_on_what_is_not_random(case: DataCase) -> None:
    """Labels, lengths, rewards, ends and the shape of x are the same from `draw` and `read`."""
    read, drawn = case.dataset.read(case.ids, case.signal.size), case.dataset.draw(case.ids, CLAUSE_RNG, case.signal)
    if read.skipped:
        return
    for name in ("id", "label", "reward", "done", "proprio"):
        _same_field(read, drawn, name, f"draw and read give another {name}", case.signal.size[0])
    same = _values_of(read).shape == _values_of(drawn).shape and _values_of(read).dtype == _values_of(drawn).dtype
    _require_data(same, "draw and read give x of another shape or type")
    if not case.cfg.augment.changes and drawn.length is not None:
        _same_field(read, drawn, "length", "draw and read give another length", case.signal.size[0])


def padding_is_zero(case: DataCase) -> None:
    """Values beyond the length of a sample are zero."""
    found = case.dataset.read(case.ids, case.signal.size)
    if found.length is None:
        return
    for x, length in zip(_values_of(found), found.length.tolist(), strict=True):
        _require_data(0 < length <= x.shape[1], f"a length is {length} of {x.shape[1]} steps")
        _require_data(not bool(x[:, length:].any()), "padding is not 0; fill what follows the length with zeros")


def batches_are_the_same_for_workers_and_ranks(case: DataCase) -> None:
    """Batch k is a function of (seed, k): not of workers, and not of ranks."""
    options: dict[str, Any] = {"seed": 3, "start": 0, "stop": 2}
    alone = list(loader.batches(case.dataset, case.signal, batch=BATCH_SIZE, **options))
    for workers in (1, 2):
        there = loader.batches(case.dataset, case.signal, batch=BATCH_SIZE, workers=workers, **options)
        for one, other in zip(alone, there, strict=True):
            _require_same(
                one, other, f"{workers} workers make other batches than the process itself; keep no state in draw"
            )
    ranks = [
        list(loader.batches(case.dataset, case.signal, batch=1, offset=offset, total=BATCH_SIZE, **options))
        for offset in range(BATCH_SIZE)
    ]
    for k, one in enumerate(alone):
        parts = [rank[k] for rank in ranks]
        _require_same(
            one, _join_batches(parts), "two ranks make other batches than one; draw by id", case.signal.size[0]
        )


def a_subset_is_its_items(case: DataCase) -> None:
    """`subset` keeps names, samples and labels, and accepts replacement labels."""
    rows = np.array([len(case.dataset) - 1, 0], dtype=np.int64)
    part, size = case.dataset.subset(rows), case.signal.size
    same = [part.name(i) for i in range(len(part))] == [case.dataset.name(int(i)) for i in rows]
    _require_data(same, "subset has other names than its items; count `rows` in the order that they are given")
    whole, found = case.dataset.read(rows, size), part.read(np.arange(2, dtype=np.int64), size)
    for name in SAMPLES_FIELDS[:-1]:
        _same_field(whole, found, name, f"subset gives another {name} than its items have", size[0])
    given = case.dataset.subset(rows, np.array([0, -1], dtype=np.int64))
    _require_data([given.label(0), given.label(1)] == [0, -1], "subset does not take the labels that it is given")


def the_panel_has_its_versions(case: DataCase) -> None:
    """`versions` returns the requested number, the same on every call."""
    if not case.cfg.augment.changes:
        return
    ids = case.ids[:2]
    first, again = (case.dataset.versions(ids, MAX_ITEMS, case.signal) for _ in range(2))
    _require_data(
        first.shape[1] == MAX_ITEMS, f"versions gives {first.shape[1]} versions where {MAX_ITEMS} were asked for"
    )
    _require_data(torch.equal(first, again), "versions differ from call to call; draw from Rng(0) and the id")


def factors_are_of_the_frames(case: DataCase) -> None:
    """True quantities have a row per frame and a name per column, and the place of an item is that of its frames."""
    dataset, names = case.dataset, case.dataset.factor_names
    for i in case.ids.tolist():
        found, place = dataset.factors(i), dataset.place(i)
        _require_data(
            isinstance(place.episode, str) and place.first >= 0 and place.every >= 1,
            f"place gives {place}; give the name of an episode, a first frame of 0 or more, and steps of 1 or more",
        )
        wanted = (case.signal.size[0], len(names)) if names else None
        have = None if found is None else found.shape
        _require_data(
            have == wanted, f"factors has shape {have} where it is {wanted}: a row per frame, a name per column"
        )


def every_question_is_answered_or_refused(case: DataCase) -> None:
    """Every question of the commands gets an answer of the right type, or a refusal of one sentence."""
    dataset, cfg, size = case.dataset, case.cfg, case.signal.size
    report = _answer_or_refusal("check-data", dataset.report)
    if report is not REFUSED_ANSWER:
        _require_data(isinstance(report, Report), "report gives no Report; see finish_report in jepakit.data.report")
        _require_data(all(map(_is_row, report.rows)), "a row of the report is not two texts")
    questions: dict[str, tuple[Callable[[], Any], type | tuple[type, ...]]] = {
        "train: resolve": (lambda: cfg.resolve(dataset, frozenset({"views"}), "a method"), tuple),
        "train: check_augment": (dataset.check_augment, type(None)),
        "train: auto_patch": (lambda: dataset.auto_patch(1), (tuple, type(None))),
        "train: action_spec": (dataset.action_spec, (ActionSpec, type(None))),
        "train: proprio_size": (dataset.proprio_size, int),
        "train: in_memory": (dataset.in_memory, Dataset),
        "train: can_lengthen": (lambda: dataset.can_lengthen(size), bool),
        "panel: is_padded": (lambda: dataset.is_padded(size), bool),
        "panel: read_beginnings": (lambda: dataset.read_beginnings(_unpadded_items(dataset, size), size), Samples),
        "probe: training_part": (cfg.training_part, type(cfg)),
        "probe: test_part": (cfg.test_part, (type(cfg), type(None))),
        "probe dense: mask": (lambda: dataset.mask(0, size), np.ndarray),
        "probe dense: film": (lambda: dataset.film(0), str),
        "embed: whole": (cfg.whole, type(cfg)),
        "embed: with_channels": (lambda: cfg.with_channels(dataset.channels), type(cfg)),
        "score: as_series": (dataset.as_series, (Dataset, type(None))),
        "score: uncut": (cfg.uncut, type(cfg)),
        "complete: without_overlap": (cfg.without_overlap, type(cfg)),
        "complete: step_span": (lambda: dataset.step_span(0), (tuple, type(None))),
        "complete: step_times": (lambda: dataset.step_times(0), (list, type(None))),
        "complete: column_names": (lambda: dataset.column_names, tuple),
        "probe dynamics: place": (lambda: dataset.place(0), Place),
        "probe dynamics: factors": (lambda: dataset.factors(0), (np.ndarray, type(None))),
        "report: looked_at": (lambda: dataset.looked_at(0), (tuple, type(None))),
    }
    for question, (ask, kind) in questions.items():
        answer = _answer_or_refusal(question, ask)
        known = answer is REFUSED_ANSWER or isinstance(answer, kind)
        _require_data(known, f"{question} is answered by {type(answer).__name__}, not by what it asks for")


CLAUSES: Final = (
    facts_are_of_the_items,
    opening_again_gives_the_same_items,
    a_fingerprint_follows_the_items,
    the_signal_is_that_of_samples,
    items_are_read_in_order,
    draws_do_not_depend_on_how_a_batch_is_split,
    views_are_the_same_without_the_sample,
    views_that_a_method_asks_for_are_drawn,
    draw_and_read_agree_on_what_is_not_random,
    padding_is_zero,
    batches_are_the_same_for_workers_and_ranks,
    a_subset_is_its_items,
    the_panel_has_its_versions,
    factors_are_of_the_frames,
    every_question_is_answered_or_refused,
)

# --- how samples are compared

REFUSED_ANSWER: Final = object()


def _answer_or_refusal(question: str, ask: Callable[[], Any]) -> Any:
    """The answer, or REFUSED if a ValueError of one sentence refuses it."""
    try:
        return ask()
    except (ValueError, Unreadable) as error:
        one = str(error).strip() and "\n" not in str(error)
        _require_data(bool(one), f"{question} is refused with {str(error)!r}; say in one sentence why, and what to do")
        return REFUSED_ANSWER


def _is_row(row: tuple[str, str]) -> bool:
    return len(row) == 2 and all(isinstance(part, str) for part in row)


def _unpadded_items(dataset: Dataset, size: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    """The items that have as many steps as `size`."""
    ids = np.arange(min(len(dataset), MAX_ITEMS), dtype=np.int64)
    return ids if dataset.lengths is None else ids[dataset.lengths[ids] >= size[0]]


def _values_of(found: Samples | Batch) -> Tensor:
    _require_data(found.x is not None, "a sample has no x; read gives x always, draw unless include_x is false")
    x: Tensor = found.x  # type: ignore[assignment]
    return x


def _join_batches(parts: Sequence[Samples] | Sequence[Batch]) -> Batch:
    """Batches of one item each as one batch; a length that only some have is the full length for the others."""
    batches = [part.batch() if isinstance(part, Samples) else part for part in parts]
    batches = [batch for batch in batches if len(batch)]
    padded = any(batch.length is not None for batch in batches)
    values: dict[str, Any] = {}
    for name in SAMPLES_FIELDS:
        entries = [getattr(batch, name) for batch in batches]
        if name == "length" and padded:
            entries = [_full_length(batch) for batch in batches]
        if entries[0] is not None:
            values[name] = torch.cat(entries)
    columns = zip(*[batch.views for batch in batches], strict=True)
    return Batch(**values, views=tuple(torch.cat(column) for column in columns))


def _full_length(batch: Samples | Batch) -> Tensor:
    """The length of every sample; the full length if none is given."""
    return torch.full((len(batch.id),), _values_of(batch).shape[2]) if batch.length is None else batch.length


def _require_same(one: Samples | Batch, other: Samples | Batch, sentence: str, steps: int = 0) -> None:
    """Require equal content; with `steps`, the full length, batches may have been split and may differ by rounding."""
    for name in SAMPLES_FIELDS:
        _same_field(one, other, name, f"{sentence} (in {name})", steps)
    alike = _almost_equal if steps else torch.equal
    same = len(one.views) == len(other.views) and all(map(alike, one.views, other.views))
    _require_data(same, f"{sentence} (in views)")


def _same_field(one: Samples | Batch, other: Samples | Batch, name: str, sentence: str, steps: int) -> None:
    """Require the same tensor on both sides, or None; a missing length counts as `steps`."""
    a, b = getattr(one, name), getattr(other, name)
    if name == "length" and (a is None) != (b is None) and steps:
        a, b = _full_length(one), _full_length(other)
    alike = _almost_equal if steps and name == "x" else torch.equal
    same = a is b if a is None or b is None else bool(a.dtype == b.dtype and alike(a, b))
    _require_data(same, sentence)


def _almost_equal(a: Tensor, b: Tensor) -> bool:
    """Whether the values are equal up to rounding: for 8-bit pixels, one step."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rounding = 1.0 if a.dtype == torch.uint8 else 1e-4 * float(a.abs().max().clamp(min=1)) if a.numel() else 0.0
    return not a.numel() or float((a.double() - b.double()).abs().max()) <= rounding


def _global_state() -> tuple[bytes, str]:
    """The state of the global generators of torch and NumPy."""
    return torch.random.get_rng_state().numpy().tobytes(), repr(np.random.get_state(legacy=False)["state"])
