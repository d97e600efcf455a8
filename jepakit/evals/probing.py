"""One result, as it stands in a run folder: the score of a representation beside both baselines."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoint import write_json
from ..types import Batch
from .features import Encode, Features, extract_all, labelled
from .heldout import held_out
from .kinds import Kind, load

BASELINES = ("random_init", "raw")
SAME = "the test data are the training data, so the score says nothing about new data; give another --test"


def probe(
    kind: str,
    cfg: Any,
    encoders: Mapping[str, Encode],
    train: Iterable[Batch],
    test: Iterable[Batch] | None = None,
    *,
    classes: tuple[str, ...],
    data: str,
    step: int,
    weights: str = "target",
    name: Callable[[int], object] = int,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Extract the features of every encoder in one pass over the data, and `compare` them by `kind`.

    `encoders` maps "value" to the trained encoder and, where wanted, "random_init" and "raw" to the baselines; `train`
    and `test` are plain streams without augmentation. Raises ValueError where the data have no labels.
    """
    need_labels(classes)
    pool = cfg.pool
    return compare(
        kind,
        cfg,
        extract_all(encoders, train, pool, device),
        None if test is None else extract_all(encoders, test, pool, device),
        classes=classes,
        data=data,
        step=step,
        weights=weights,
        name=name,
    )


def compare(
    kind: str,
    cfg: Any,
    train: Mapping[str, Features],
    test: Mapping[str, Features] | None = None,
    *,
    classes: tuple[str, ...],
    data: str,
    step: int,
    weights: str = "target",
    name: Callable[[int], object] = int,
) -> dict[str, Any]:
    """The content of evals/KIND.json, from features by "value" and by the baselines.

    Without `test`, the fifth of each class whose `name(id)` hashes lowest is held out of `train` (`split`). The
    baselines see the same samples, settings and solver. `data` says what was read, such as a path or two. A class
    without a test sample has no entry in `per_class`. `notes` carry a `warning` where both parts are the same samples.
    """
    need_labels(classes)
    same = test is not None and all(np.array_equal(test[key].x, train[key].x) for key in train)
    if test is None:
        train, test = split(train, name)
    judge = load(kind)
    scores = {key: _score(judge, cfg, train[key], test[key]) for key in train}
    own = scores["value"]
    fixed = ("metric", "value", "low", "high")
    return {
        "kind": kind,
        **{key: own[key] for key in fixed},
        **{key: scores[key]["value"] if key in scores else None for key in BASELINES},
        "n_train": int((train["value"].y >= 0).sum()),
        "n_test": int((test["value"].y >= 0).sum()),
        "data": data,
        "weights": weights,
        "step": step,
        "per_class": {c: recall for c, recall in zip(classes, own["per_class"], strict=False) if recall is not None},
        "settings": asdict(cfg),
        "notes": {key: value for key, value in own.items() if key not in (*fixed, "per_class")}
        | ({"warning": SAME} if same else {}),
        "baselines": {key: {k: scores[key][k] for k in fixed[1:]} for key in BASELINES if key in scores},
    }


def split(
    features: Mapping[str, Features], name: Callable[[int], object] = int
) -> tuple[dict[str, Features], dict[str, Features]]:
    """Train and test parts of one data set, the same for every encoder: stratified, by the hash of `name(id)`.

    Raises ValueError where there are labels but no class has two samples.
    """
    any_of = next(iter(features.values()))
    mask = held_out([str(name(int(i))) for i in any_of.id], any_of.y)
    known = any_of.y >= 0
    if known.any() and not mask[known].any():
        raise ValueError("no class has two labelled samples, so nothing can be held out; give --test")
    return {k: f.where(~mask) for k, f in features.items()}, {k: f.where(mask) for k, f in features.items()}


def need_labels(classes: tuple[str, ...]) -> None:
    """Raises ValueError, with what to give, where there are fewer than two classes."""
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no labels"
        raise ValueError(
            f"the data carry {found}, so nothing can be scored; give a folder with one sub-folder per class, "
            "or a manifest with a label column"
        )


def save(run: Path, kind: str, result: Mapping[str, Any], name: str | None = None) -> Path:
    """Write `result` to evals/KIND[-NAME].json of a run folder, whole or not at all; where it was written.

    Only a result of the same step, data, weights and settings is replaced. Any other stays, and the new one goes to
    KIND[-NAME]-step-00001000.json or, where that too is taken, to a name that ends in a hash of what differs.
    """
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name {name!r} becomes part of a file name; use letters, digits, '.', '_' and '-' only")
    stem = f"{kind}-{name}" if name else kind
    by_step = f"{stem}-step-{result['step']:08d}"
    identity = _identity(result)
    by_hash = f"{by_step}-{blake2b(identity.encode(), digest_size=4).hexdigest()}"
    for candidate in (stem, by_step, by_hash):
        path = run / "evals" / f"{candidate}.json"
        if not path.exists() or _identity(json.loads(path.read_text())) == identity:
            break
    write_json(path, dict(result))
    return path


def _score(judge: Kind, cfg: Any, train: Features, test: Features) -> dict[str, Any]:
    return dict(judge.evaluate(labelled(train), labelled(test), cfg))


def _identity(result: Mapping[str, Any]) -> str:
    return json.dumps([result.get(key) for key in ("step", "data", "weights", "settings")], sort_keys=True)
