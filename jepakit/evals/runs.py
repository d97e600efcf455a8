"""Probing a run: open its data, evaluate every kind, save the results, and show progress on the way."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core import devices
from ..core.progress import Progress, SilentProgress
from ..data import Dataset, SourceConfig, read_like, refuse_padding
from ..methods.base import Weights
from ..methods.head import Head
from ..run import parse
from ..run.checkpoint import LoadedRun, load_run
from ..run.own_data import check_left_out, is_own, overlaps_own, own_data, unseen_part
from ..run.settings import Evals
from .base import Kind, load_kind
from .probing import Tell, probe_results, save_result
from .sources import Sets, Subject, check_labels, load_parts

ENCODER_WORDS = {"value": "trained encoder", "random_init": "untrained encoder", "raw": "raw input"}


def progress_rows(progress: Progress, kind: str, encoders: Sequence[str]) -> Tell:
    """A function of (encoder, fraction done) that shows progress on `progress`, in hundredths of the whole."""
    begun = time.monotonic()

    def tell(encoder: str, fraction: float) -> None:
        done = (list(encoders).index(encoder) + fraction) / len(encoders)
        left = (time.monotonic() - begun) * (1 - done) / max(done, 1e-9)
        doing = f"probing {kind}: {ENCODER_WORDS.get(encoder, encoder)}"
        progress.row({"step": int(100 * done), "metrics": {"doing": doing, "eta": left}}, 100)

    return tell


RefusalCallback = Callable[[str, ValueError], None]
ChosenKinds = Mapping[str, tuple[Kind, Any]]


def probe_run(
    run: Path,
    kinds: Sequence[str],
    train: str | None = None,
    test: str | None = None,
    weights: Weights = "target",
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    refused: RefusalCallback | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    baselines: bool = True,
) -> list[Path]:
    """Evaluate a run's encoder with each of `kinds`; the paths of the evals/*.json files (see `probe_results`).

    `train` and `test` are paths; by default the run's own data are used, with its test part or a fixed fifth.
    `settings` are dotted by kind, such as {"knn.k": 5}; those that they leave open are the run's own
    (`Evals.settings`). Raises ValueError if a kind cannot evaluate these data; if
    `refused` is given, it receives the kind and the error instead, and the other kinds go on. With `cache`, pooled
    features stay in the run folder for the next kind. Without `baselines`, only the trained encoder is scored, and
    nothing is cached.
    """
    progress = progress or SilentProgress()
    loaded = load_run(run, step, note=progress.note)
    if isinstance(loaded.method, Head):
        below = loaded.method.cfg.parents[0]
        raise ValueError(f"{run} is a head over {below} and has the same representations; probe {below} instead")
    configs = kind_settings(kinds, settings or {}, loaded.run.evals)
    chosen = {kind: (load_kind(kind), cfg) for kind, cfg in configs.items()}
    fitting = {judge.fits for judge, _ in chosen.values()}
    given = {fits: (open_sets if fits else open_whole)(loaded, train, test) for fits in fitting}
    for fits, sets in given.items():
        check_lengths(loaded, sets, {kind: c for kind, c in chosen.items() if c[0].fits == fits})
    if any(judge.labels for judge, _ in chosen.values()):
        check_labels(given[True])
    device, _ = devices.best_device()
    kept = run if cache and baselines else None
    written: list[Path] = []
    for group in group_kinds(chosen):
        judge, cfg = next(iter(group.values()))
        sets = given[judge.fits]
        subject = Subject(loaded, sets, device, weights, kept, not baselines, progress or SilentProgress())
        facts: dict[str, Any] = {"data": sets.label, "step": loaded.step, "weights": weights, "seen": sets.seen}
        facts |= {"classes": sets.train.classes, "name": sets.train.name}
        with report_refusals(refused, ", ".join(group)), load_parts(subject, judge.reads, cfg) as (fit, held):
            for kind, (_, cfg) in group.items():
                with report_refusals(refused, kind):
                    tell = progress_rows(progress, kind, list(fit))
                    # A prediction starts from the context encoder, whichever weights were asked for.
                    here = facts | ({"weights": "context"} if judge.reads == "windows" else {})
                    here |= {"weights": "target"} if judge.reads == "dynamics" else {}
                    here["hashes"] = subject.read_hashes
                    written += [
                        save_result(run, kind, r, name) for r in probe_results(kind, cfg, fit, held, tell=tell, **here)
                    ]
    return written


def group_kinds(chosen: ChosenKinds) -> list[dict[str, tuple[Kind, Any]]]:
    """The kinds grouped by what they read, so that the data are read once per group."""
    groups: dict[tuple[Any, ...], dict[str, tuple[Kind, Any]]] = {}
    for kind, (judge, cfg) in chosen.items():
        key = (judge.reads, cfg.pool) if judge.reads == "pooled" else (judge.reads, kind)
        groups.setdefault(key, {})[kind] = (judge, cfg)
    return list(groups.values())


@contextmanager
def report_refusals(refused: RefusalCallback | None, kind: str) -> Iterator[None]:
    """Pass a ValueError raised inside to `refused`, if it is given."""
    try:
        yield
    except ValueError as error:
        if refused is None:
            raise
        refused(kind, error)


def kind_settings(kinds: Sequence[str], settings: Mapping[str, Any], own: Evals) -> dict[str, Any]:
    """Each kind's settings object: those of the run's `own`, changed by the dotted `settings`.

    Raises ValueError for an unknown key.
    """
    changes = parse.flags_to_changes(settings)
    if unknown := [section for section in changes if section not in kinds]:
        raise ValueError(f"{unknown[0]} is not a kind you asked for; write settings as --{kinds[0]}.KEY VALUE")
    return {kind: parse.apply_changes(own_settings(kind, own), changes.get(kind, {}), kind) for kind in kinds}


def own_settings(kind: str, own: Evals) -> Any:
    """A kind's settings object with what the run's `own` settings say of it. Raises ValueError for an unknown key."""
    changes = parse.flags_to_changes(own.probe_settings).get(kind, {})
    return parse.apply_changes(load_kind(kind).Config(), changes, f"evals.settings: {kind}")


def check_own_settings(own: Evals) -> None:
    """Raise ValueError if a run's `own` settings of probes name a kind or a key that there is not."""
    for kind in {name.partition(".")[0]: None for name in own.probe_settings}:
        own_settings(kind, own)


def open_sets(loaded: LoadedRun, train: str | None, test: str | None) -> Sets:
    """The data set to fit on and, if it is another one, the data set to score on.

    Without `test`, the run's own data are scored on the part that training left out. If it left out none, the part that
    is scored was seen in training, and `Sets.seen` says so.
    """
    channels = loaded.method.signal.channels
    own = own_data(loaded) if train is None or is_own(loaded, train) else None
    first = own.cfg.with_channels(channels) if own else read_other(loaded, train or "")
    if test is not None:
        fit = first if train is None else first.whole()
        held: SourceConfig | None = read_other(loaded, test)
        seen = overlaps_own(loaded, test)
    else:
        fit = first.training_part()
        held = fit.test_part()
        seen = unseen_part(loaded, first) is None if own else overlaps_own(loaded, train or "")
    paths = [fit.path] if held is None else [fit.path, held.path + (" (test part)" if test is None else "")]
    opened = own.dataset if own and fit == own.cfg else fit.open()
    scored = None if held is None else open_held(held, test)
    if own and scored is not None and test is None:
        check_left_out(loaded, scored, fit.path)
    return Sets(opened, scored, " → ".join(paths), seen)


def open_held(held: SourceConfig, test: str | None) -> Dataset:
    """The data set to score on. Raises ValueError, naming the fix, if the part that training left out is empty."""
    try:
        return held.open()
    except ValueError as error:
        raise ValueError(str(error) if test else f"{error}; or give data to score on as --test PATH") from None


def open_whole(loaded: LoadedRun, path: str | None, test: str | None) -> Sets:
    """All items of one data set in order, for kinds that fit nothing. Raises ValueError if a test set is given."""
    if test is not None:
        raise ValueError(f"this probe fits nothing and cannot use --test {test}; give all items as --data")
    own = path is None or is_own(loaded, path)
    cfg = own_data(loaded).cfg.with_channels(loaded.method.signal.channels) if own else read_other(loaded, path or "")
    items = cfg.whole()
    return Sets(items.open(), None, items.path, own)


def read_other(loaded: LoadedRun, path: str) -> SourceConfig:
    """The settings to read all data at `path` as the run reads its own."""
    found: SourceConfig = read_like(loaded.run.data, path, channels=loaded.method.signal.channels).whole()
    return found


def check_lengths(loaded: LoadedRun, sets: Sets, chosen: ChosenKinds) -> None:
    """Raise ValueError if samples differ in length and a kind reads more than the mean of their tokens."""
    for kind, (judge, cfg) in chosen.items():
        if judge.reads != "recorded" and (judge.reads != "pooled" or cfg.pool != "mean"):
            for dataset in filter(None, (sets.train, sets.test)):
                refuse_padding(dataset, loaded.method.signal.size, f"the probe {kind} with these settings")
