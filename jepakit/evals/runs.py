"""Probe a run folder: its encoder, the untrained one and the raw input, over one pass of the data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import data, parse, prepare
from ..checkpoint import Loaded, load_run
from ..data import loader
from ..methods.base import Weights
from .baselines import random_init, raw
from .features import Encode, Features, extract_all
from .kinds import load
from .probing import compare, need_labels, save


class Sets(NamedTuple):
    """The data to fit on and, where it is another set, to score on; `label` says what was read."""

    train: data.Dataset
    test: data.Dataset | None
    label: str


Refused = Callable[[str, ValueError], None]


def probe_run(
    run: Path,
    kinds: Sequence[str],
    train: str | None = None,
    test: str | None = None,
    weights: Weights = "target",
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    refused: Refused | None = None,
) -> list[Path]:
    """Judge a run's encoder by each of `kinds`; the evals/*.json written. See `probe` for what is compared.

    `train` and `test` are paths; without them the run's own data are used, and its own test part or a fixed fifth.
    `settings` are dotted by kind, as {"knn.k": 5}. Raises ValueError where a kind cannot judge these data; with
    `refused`, which is told the kind and the error, the other kinds go on.
    """
    loaded = load_run(run, step)
    chosen = kind_settings(kinds, settings or {})
    sets = open_sets(loaded, train, test)
    need_labels(sets.train.classes)
    device, _ = prepare.best_device()
    encoders = judged(loaded, device, weights)
    facts: dict[str, Any] = {"data": sets.label, "step": loaded.step, "weights": weights}
    facts["classes"] = sets.train.classes
    written = []
    for pool in dict.fromkeys(cfg.pool for cfg in chosen.values()):
        features = extract(loaded, sets.train, encoders, pool, device)
        held = None if sets.test is None else aligned(extract(loaded, sets.test, encoders, pool, device), sets)
        for kind, cfg in chosen.items():
            if cfg.pool == pool:
                with telling(refused, kind):
                    result = compare(kind, cfg, features, held, name=sets.train.name, **facts)
                    written.append(save(run, kind, result, name))
    return written


@contextmanager
def telling(refused: Refused | None, kind: str) -> Iterator[None]:
    """A ValueError inside goes to `refused`, where there is one."""
    try:
        yield
    except ValueError as error:
        if refused is None:
            raise
        refused(kind, error)


def kind_settings(kinds: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Each kind's settings object, with the dotted `settings` applied. ValueError names an unknown key."""
    changes = parse.flags_to_changes(settings)
    if unknown := [section for section in changes if section not in kinds]:
        raise ValueError(f"{unknown[0]} is no kind that was asked for; write settings as --{kinds[0]}.KEY VALUE")
    return {kind: parse.apply(load(kind).Config(), changes.get(kind, {}), kind) for kind in kinds}


def open_sets(loaded: Loaded, train: str | None, test: str | None) -> Sets:
    """The data sets to fit and to score on."""
    own, channels = loaded.run.data, loaded.method.signal.channels
    if hasattr(own, "channels"):
        own = replace(own, channels=channels)  # type: ignore[type-var]
    whole: dict[str, Any] = {"split": "all", "limit": 0, "channels": channels}
    first = own if train is None else data.reading(own, train, **whole)
    second = None if test is None else data.reading(own, test, **whole)
    if test is None and getattr(first, "split", "all") == "train":
        second = replace(first, split="test", limit=0)  # type: ignore[type-var]
    paths = [first.path] if second is None else [first.path, second.path + (" (test part)" if test is None else "")]
    return Sets(first.open(), None if second is None else second.open(), " → ".join(paths))


def judged(loaded: Loaded, device: str, weights: Weights) -> dict[str, Encode]:
    """The trained encoder and its two baselines, on `device`."""
    method = loaded.method.to(device)
    return {
        "value": partial(method.encode, weights=weights),
        "random_init": random_init(loaded.run.method, method.signal, loaded.run.seed, device),
        "raw": lambda x: raw(method.normalize(x)),  # as the encoder sees it: a stronger bar than plain pixels
    }


def extract(
    loaded: Loaded, dataset: data.Dataset, encoders: Mapping[str, Encode], pool: Any, device: str
) -> dict[str, Features]:
    """Features of a whole data set by every encoder."""
    batches: Iterable[Any] = loader.stream(
        dataset, loaded.method.signal, batch=128, workers=loaded.run.loop.workers or 0
    )
    return extract_all(encoders, batches, pool, device, len(dataset))


def aligned(test: dict[str, Features], sets: Sets) -> dict[str, Features]:
    """Test features with their labels counted in the classes of the training data. ValueError for a class it lacks."""
    assert sets.test is not None
    known = {name: i for i, name in enumerate(sets.train.classes)}
    if unknown := [name for name in sets.test.classes if name not in known]:
        raise ValueError(
            f"the test data hold the class {unknown[0]!r}, which the training data lack; they hold {', '.join(known)}"
        )
    index = np.array([known[name] for name in sets.test.classes] + [-1])  # the last entry answers for label -1
    return {key: replace(features, y=index[features.y]) for key, features in test.items()}
