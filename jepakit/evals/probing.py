"""Probe results as saved in a run folder: the score of a representation beside its baselines."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..core.files import write_json
from ..data.overlap import Hashes, overlap_sentence
from .base import Kind, load_kind
from .finding import SAME_DATA
from .split import Part, count_shared, held_rows, labelled_part, need_held, need_labels

BASELINES = ("random_init", "raw")
Tell = Callable[[str, float], None]
SAME_DATA_WARNING = f"{SAME_DATA}, so the score says nothing about new data; give a different --test"
SEEN_WARNING = (
    "the encoder was trained on the samples that are scored (seen in training), so on new data it may do worse; "
    "give other data as --test, or train with data.split=train"
)


def probe_results(
    kind: str,
    cfg: Any,
    train: Mapping[str, Part],
    test: Mapping[str, Part] | None = None,
    *,
    classes: tuple[str, ...],
    data: str,
    step: int,
    weights: str = "target",
    seen: bool = False,
    name: Callable[[int], object] = int,
    tell: Tell = lambda encoder, fraction: None,
    hashes: tuple[Hashes, Hashes] | None = None,
) -> list[dict[str, Any]]:
    """The content of the kind's evals/*.json files, from parts by "value" (the run's encoder) and by the baselines.

    Without `test`, the fifth of each class whose `name(id)` hashes lowest is held out of `train` (`split_parts`). The
    baselines get the same samples, settings and solver. `data` describes the data, such as one or two paths. A class
    without a test sample has no entry in `per_class`. With the `hashes` of both sets' samples, `n_shared` counts the
    test samples that are also training samples and is left out if there are none. `notes` contain a `warning` if some
    are shared, or if the encoder was trained on those that are scored (`seen`). `tell` receives the encoder's name and
    the fraction of its work that is done.
    """
    judge = load_kind(kind)
    if judge.reads == "masks":
        classes = tuple(map(str, range(256)))
    elif judge.labels:
        need_labels(classes)
    warning, shared = "", dict[str, int]()
    if test is not None and all(train[key].same(test[key]) for key in train):
        warning = SAME_DATA_WARNING
    if test is None:
        train, test = split_parts(train, name)
    elif hashes is not None:
        count = count_shared(train["value"], test["value"], hashes, judge.labels)
        shared = {"n_shared": count} if count else {}
        if count and not warning:
            found = overlap_sentence(count, _count_samples(judge, test["value"]))
            warning = f"{found}, so the score says too much about new data; remove them from one of the two sets"
    if seen and warning != SAME_DATA_WARNING:
        warning = f"{SEEN_WARNING}; {warning}" if warning else SEEN_WARNING
    scores = {key: _kind_scores(judge, cfg, train[key], test[key], partial(tell, key)) for key in train}
    facts = {
        "n_train": _count_samples(judge, train["value"]),
        "n_test": _count_samples(judge, test["value"]),
        **shared,
        "data": data,
        "weights": weights,
        "step": step,
        "seen": seen,
        "settings": asdict(cfg),
    }
    return [
        {"kind": kind, **_one_result(judge, {key: found[i] for key, found in scores.items()}, facts, classes, warning)}
        for i in range(len(scores["value"]))
    ]


def _one_result(
    judge: Kind,
    scores: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    classes: tuple[str, ...],
    warning: str,
) -> dict[str, Any]:
    """One result: the scores of the trained encoder and of the baselines, with the facts behind them."""
    own = scores["value"]
    fixed, reading = ("metric", "value", "low", "high"), {"lower_is_better": judge.lower, "plain": judge.plain}
    reading = {key: bool(own.get(key, usual)) for key, usual in reading.items()}
    notes = {key: value for key, value in own.items() if key not in (*fixed, *reading, "per_class", "name")}
    return {
        **({"name": own["name"]} if "name" in own else {}),
        **{key: own[key] for key in fixed},
        **{key: scores[key]["value"] if key in scores else None for key in BASELINES},
        **facts,
        **{key: True for key, holds in reading.items() if holds},
        **({"leading": own.get("name") == judge.leading} if judge.leading else {}),
        "per_class": {c: r for c, r in zip(classes, own["per_class"], strict=False) if r is not None},
        "notes": notes | ({"warning": warning} if warning else {}),
        "baselines": {key: {k: scores[key][k] for k in fixed[1:]} for key in BASELINES if key in scores},
    }


def split_parts(
    features: Mapping[str, Part], name: Callable[[int], object] = int
) -> tuple[dict[str, Part], dict[str, Part]]:
    """The training and test parts of one data set, the same for every encoder; see `held_rows`.

    Raises ValueError if nothing can be held out.
    """
    any_of = next(iter(features.values()))
    mask = held_rows(any_of, name)
    need_held(any_of, mask)
    return {k: f.where(~mask) for k, f in features.items()}, {k: f.where(mask) for k, f in features.items()}


def save_result(run: Path, kind: str, result: Mapping[str, Any], name: str | None = None) -> Path:
    """Write `result` atomically to evals/KIND[-NAME].json in a run folder, and return the path.

    If a kind has several results, the result's own name follows KIND. Only a result of the same step, data, weights and
    settings is replaced. Otherwise the new result goes to KIND[-NAME]-step-00001000.json or, if that is taken too, to
    a name that ends in a hash of the differences.
    """
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name {name!r} becomes part of a file name; use letters, digits, '.', '_' and '-' only")
    stem = "-".join(part for part in (kind, result.get("name"), name) if part)
    by_step = f"{stem}-step-{result['step']:08d}"
    identity = _result_identity(result)
    by_hash = f"{by_step}-{blake2b(identity.encode(), digest_size=4).hexdigest()}"
    for candidate in (stem, by_step, by_hash):
        path = run / "evals" / f"{candidate}.json"
        if not path.exists() or _result_identity(json.loads(path.read_text())) == identity:
            break
    write_json(path, dict(result))
    return path


def _kind_scores(
    judge: Kind, cfg: Any, train: Any, test: Any, tell: Callable[[float], None] = lambda fraction: None
) -> list[dict[str, Any]]:
    """The results of a kind for one encoder, one mapping per result."""
    if judge.labels:
        train, test = labelled_part(train), labelled_part(test)
    found: list[dict[str, Any]] = [{}]
    for key, value in judge.evaluate(train, test, cfg):
        if key == "progress":
            tell(float(value))  # type: ignore[arg-type]
            continue
        if key == "name" and "metric" in found[-1]:
            found.append({})
        found[-1][key] = value
    tell(1.0)
    return found


def _count_samples(judge: Kind, part: Part) -> int:
    return int((part.y >= 0).sum()) if judge.labels else len(part)


def _result_identity(result: Mapping[str, Any]) -> str:
    return json.dumps([result.get(key) for key in ("step", "data", "weights", "settings")], sort_keys=True)
