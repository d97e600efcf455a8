"""Prepares what a kind of probe reads from a run and its data: pooled features, tokens, or the encoders themselves."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, methods
from ..core import devices, padding
from ..core.progress import Progress, SilentProgress, progress_counter
from ..data import loader
from ..data.overlap import Hashes, sample_hashes
from ..methods.base import Method, Weights
from ..methods.predictive import Predictive
from ..nn.patch import grid_of, patches
from ..run.checkpoint import LoadedRun
from ..types import Batch, Grid, Signal, Size
from . import cache, recorded
from .base import Reads, load_kind
from .baselines import random_init, raw_tokens
from .features import Distance, Encode, Features, extract_by_all
from .split import Part, need_classes, need_labels
from .tokens import UNKNOWN_CLASS, Tokens, check_room, extract_tokens, token_shapes
from .trainable import Live, raw_baseline, trainable_encoder
from .transitions import Transitions, check_world_model, choose_windows, read_transitions, window_limit
from .windows import Windows, as_raw, check_cut, read_windows

BATCH_SIZE = 128
Parts = Mapping[str, Part]
METHOD_CHECKS: Final[Mapping[Reads, Callable[[Method], None]]] = {
    "windows": check_cut,
    "dynamics": check_world_model,
}
"""What a kind asks of the method, by what it reads; each raises ValueError, naming the fix."""


class Sets(NamedTuple):
    """The data set to fit on and, if it is a different one, the set to score on; `label` describes both.

    `seen`: the encoder was trained on what is scored.
    """

    train: data.Dataset
    test: data.Dataset | None
    label: str
    seen: bool = False


@dataclass(frozen=True)
class Subject:
    """The subject of a probe: a run at one step, on these data, with or without the baselines.

    `kept` is the run folder, or None if nothing is to be cached. `progress` shows how far the data are encoded.
    `hashes` fills with those of the samples, by data set, as they are read.
    """

    loaded: LoadedRun
    sets: Sets
    device: str
    weights: Weights
    kept: Path | None = None
    alone: bool = False
    progress: Progress = field(default_factory=SilentProgress)
    hashes: dict[int, Hashes] = field(default_factory=dict)

    @property
    def read_hashes(self) -> tuple[Hashes, Hashes] | None:
        """The hashes of the samples to fit on and of those to score on; None without a set to score on."""
        train, test = self.sets.train, self.sets.test
        return None if test is None else (self.hashes.get(id(train), {}), self.hashes.get(id(test), {}))

    @property
    def method(self) -> Method:
        """The trained method."""
        return self.loaded.method


def encoders_under_test(subject: Subject) -> dict[str, Encode]:
    """The trained encoder and, if wanted, its two baselines, on the subject's device."""
    run, method = subject.loaded.run, subject.method.to(subject.device)
    value: dict[str, Encode] = {"value": partial(method.encode, weights=subject.weights)}
    if subject.alone:
        return value
    return value | {
        "random_init": random_init(run.method, method.signal, run.seed, subject.device),
        # The raw input is what the encoder sees, which is a stronger baseline than plain pixels.
        "raw": lambda batch: raw_tokens(resample_time(method.normalize(batch.x), method.signal.size)),
    }


def resample_time(x: Float[Tensor, "b c ..."], size: Size) -> Float[Tensor, "b c ..."]:
    """x stretched to the length of the longest sample by linear interpolation, so that all have equally many values."""
    if x.ndim == 4 or x.shape[2] == size[0]:
        return x
    last = x.movedim(2, -1)
    longer = F.interpolate(last.flatten(1, -2), size[0], mode="linear", align_corners=True)
    return longer.reshape(*last.shape[:-1], size[0]).movedim(-1, 2)


@contextmanager
def load_parts(subject: Subject, reads: Reads, cfg: Any) -> Iterator[tuple[Parts, Parts | None]]:
    """Yield what a kind reads, for the set to fit on and a different set to score on; deletes temporary files after."""
    if reads == "pooled":
        yield _read_both(subject, partial(pooled_features, subject, cfg.pool))
    elif reads == "encoder":
        yield _read_both(subject, partial(live_parts, subject))
    elif reads == "recorded":
        responses = recorded.read_responses(cfg.responses, len(subject.sets.train))
        whole = recorded.join_responses(pooled_features(subject, "mean", subject.sets.train), responses)
        yield {key: part.where(np.zeros(len(part), bool)) for key, part in whole.items()}, whole
    elif reads in METHOD_CHECKS:
        METHOD_CHECKS[reads](subject.method)
        read = window_parts if reads == "windows" else partial(transition_parts, cfg.windows)
        test = subject.sets.test
        yield read(subject, subject.sets.train), None if test is None else read(subject, test)
    else:
        with tempfile.TemporaryDirectory(prefix="jepakit-") as folder:
            if reads == "masks":
                yield masked_parts(subject, cfg, Path(folder))
            else:
                yield _read_both(subject, partial(token_parts, subject, cfg.disk_gib, Path(folder)))


def kinds_for_method(kinds: Sequence[str], method: Method, required: bool = False) -> tuple[Sequence[str], list[str]]:
    """The kinds that a method allows, and a note on each that is left out.

    Raises ValueError in place of the note where the kinds are `required`.
    """
    kept, notes = [], []
    for kind in kinds:
        try:
            if check := METHOD_CHECKS.get(load_kind(kind).reads):
                check(method)
            kept.append(kind)
        except ValueError as error:
            if required:
                raise ValueError(f"evals.kinds asks for {kind}, but {error}, or leave it out") from None
            notes.append(f"no {kind} after the last step: {error}")
    return kept, notes


def _read_both(subject: Subject, read: Any) -> tuple[Parts, Parts | None]:
    index = check_labels(subject.sets)
    train = read(subject.sets.train)
    if subject.sets.test is None:
        return train, None
    # Test labels are counted in the classes of the training data; label -1 takes the last entry.
    return train, {key: replace(part, y=index[part.y]) for key, part in read(subject.sets.test).items()}


def check_labels(sets: Sets) -> Int64[np.ndarray, " k"]:
    """The label in the training data of each class of the test data, and -1 at the end.

    Raises ValueError where there are no labels, or where the training data lack a class that the test data hold.
    """
    fix = sets.train.words.labels
    need_labels(sets.train.classes, fix)
    for dataset in (sets.train, sets.test):
        if dataset is not None and (item_labels(dataset) < 0).all():
            need_labels((), fix)
    if sets.test is None:
        return np.array([-1])
    known = {name: i for i, name in enumerate(sets.train.classes)}
    need_classes([name for name in sets.test.classes if name not in known])
    index = np.array([known[name] for name in sets.test.classes] + [-1])
    tested = set(index[item_labels(sets.test)].tolist()) - {-1}
    need_classes([sets.train.classes[i] for i in sorted(tested - set(item_labels(sets.train).tolist()))])
    return index


def item_labels(dataset: data.Dataset) -> Int64[np.ndarray, " n"]:
    """The label of every item."""
    return np.array([dataset.label(i) for i in range(len(dataset))], dtype=np.int64)


def stream_batches(
    subject: Subject, dataset: data.Dataset, rows: Int64[np.ndarray, " k"] | None = None
) -> Iterator[Batch]:
    """All samples of a data set, or those of `rows`, in order; of each padded batch those of one length at a time.

    If there is a set to score on, the samples' hashes are kept in `subject.hashes`.
    """
    signal, workers = subject.method.signal, reader_count(subject.loaded)
    count, done = progress_counter(subject.progress, "probing: encoding", dataset.words.many), 0
    read = dataset if rows is None else dataset.subset(rows)
    for batch in loader.read_stream(read, signal, batch=BATCH_SIZE, workers=workers):
        if rows is not None:
            batch = replace(batch, id=torch.from_numpy(rows)[batch.id])
        if subject.sets.test is not None:
            subject.hashes.setdefault(id(dataset), {}).update(sample_hashes(batch))
        yield from (part for _, part in padding.equal_length_groups(batch, subject.method.patch_steps))
        done += len(batch)
        count(done, len(read))


def reader_count(loaded: LoadedRun) -> int:
    """The number of reading processes: the run's, but at most the number of processors of this machine."""
    return min(loaded.run.loop.workers or 0, devices.available_cores())


def pooled_features(subject: Subject, pool: Any, dataset: data.Dataset) -> dict[str, Features]:
    """Features of a whole data set by every encoder; features cached by an earlier probe are reused."""
    found = _kept_features(subject, pool, dataset)
    if "raw" in found:
        found["raw"] = replace(found["raw"], distance=raw_distance(subject.method.signal))
    return found


def raw_distance(signal: Signal) -> Distance:
    """The distance of raw samples: Euclidean for series, where the size of a value counts, and cosine for all else.

    It is that of each kind of data, whatever scores higher.
    """
    return "euclidean" if len(signal.size) == 1 else "cosine"


def _kept_features(subject: Subject, pool: Any, dataset: data.Dataset) -> dict[str, Features]:
    encoders = encoders_under_test(subject)
    if subject.kept is None:
        return _extract_features(subject, dataset, encoders, pool)
    path = cache.cache_path(
        subject.kept, subject.loaded, dataset.fingerprint(), pool, subject.weights, subject.device.partition(":")[0]
    )
    if path.is_file():
        just_raw = _extract_features(subject, dataset, {"raw": encoders["raw"]}, pool)
        if found := cache.find_features(path, just_raw["raw"]):
            return {name: {**found, **just_raw}[name] for name in encoders}
    features = _extract_features(subject, dataset, encoders, pool)
    cache.keep_features(path, features)
    return features


def _extract_features(
    subject: Subject, dataset: data.Dataset, encoders: Mapping[str, Encode], pool: Any
) -> dict[str, Features]:
    return extract_by_all(encoders, stream_batches(subject, dataset), pool, subject.device, len(dataset))


def live_parts(subject: Subject, dataset: data.Dataset) -> dict[str, Live]:
    """The samples themselves, with the trained encoder, an untrained one and the raw input."""
    run, method, device = subject.loaded.run, subject.method, subject.device
    builds: dict[str, Callable[[], nn.Module]] = {"value": partial(trainable_encoder, method, subject.weights, device)}
    if not subject.alone:
        fresh = methods.build(run.method, method.signal, run.seed)
        builds["random_init"] = partial(trainable_encoder, fresh, subject.weights, device)
        builds["raw"] = partial(raw_baseline, method, device)
    facts = (item_labels(dataset), np.arange(len(dataset)), method.signal, reader_count(subject.loaded), device)
    held = dataset.with_config(dataset.cfg.without_views()).in_memory()
    if subject.sets.test is not None and id(dataset) not in subject.hashes:
        stream = loader.read_stream(held, method.signal, batch=BATCH_SIZE, workers=reader_count(subject.loaded))
        subject.hashes[id(dataset)] = {i: value for batch in stream for i, value in sample_hashes(batch).items()}
    return {name: Live(held, build, *facts) for name, build in builds.items()}


def window_parts(subject: Subject, dataset: data.Dataset) -> dict[str, Windows]:
    """All windows of a data set as represented by the trained method, by an untrained one, and as raw values."""
    run, method, device = subject.loaded.run, subject.method.to(subject.device), subject.device
    found = {"value": read_windows(method, stream_batches(subject, dataset), device)}
    if subject.alone:
        return found
    fresh = methods.build(run.method, method.signal, run.seed).to(device).eval()
    found["random_init"] = read_windows(fresh, stream_batches(subject, dataset), device)
    return found | {"raw": as_raw(found["value"])}


def transition_parts(most: int, subject: Subject, dataset: data.Dataset) -> dict[str, Transitions]:
    """At most `most` windows of episodes, by the trained model, by an untrained one, and as normalised frames."""
    run, device = subject.loaded.run, subject.device
    method = cast(Predictive, subject.method.to(device))
    models: dict[str, Predictive | None] = {"value": method}
    if not subject.alone:
        fresh = methods.build(run.method, method.signal, run.seed).to(device).eval()
        models |= {"random_init": cast(Predictive, fresh), "raw": None}
    rows = choose_windows(dataset, window_limit(method, most))
    batches = stream_batches(subject, dataset, rows if len(rows) < len(dataset) else None)
    return read_transitions(models, method, dataset, batches, device)


def token_parts(subject: Subject, limit: float, folder: Path, dataset: data.Dataset) -> dict[str, Tokens]:
    """The tokens of a whole data set by every encoder, in files of `folder`; raw: pixels cut into the same patches.

    Raises ValueError if they take more than `limit` GiB.
    """
    encoders = encoders_with_patches(subject)
    signal, n = subject.method.signal, len(dataset)
    sizes = token_shapes(encoders, signal.zeros(device=subject.device))
    total = n + (len(subject.sets.test) if subject.sets.test is not None else 0) * (dataset is subject.sets.train)
    check_room(sizes, total, limit, folder)
    inner = Path(tempfile.mkdtemp(dir=folder))
    found = extract_tokens(encoders, stream_batches(subject, dataset), inner, n, sizes, subject.device)
    grid = grid_of_tokens(subject, sizes["value"][0]) or ()
    return {name: replace(part, grid=grid) for name, part in found.items()}


def masked_parts(subject: Subject, cfg: Any, folder: Path) -> tuple[Parts, Parts | None]:
    """Tokens with the class of every pixel. Raises ValueError, before anything is encoded, where a mask is wrong."""
    sets, size = subject.sets, subject.method.signal.size
    given = [dataset for dataset in (sets.train, sets.test) if dataset is not None]
    truths = [read_truth(dataset, size, folder / f"masks-{i}.npy") for i, dataset in enumerate(given)]
    present = [{int(c) for picture in truth for c in np.unique(picture)} - {UNKNOWN_CLASS} for truth in truths]
    if missing := sorted(present[-1] - present[0]):
        raise ValueError(
            f"the test masks hold the class {missing[0]}, which the training masks lack; they hold "
            f"{', '.join(map(str, sorted(present[0])))}: give --data with every class, "
            f"or set it to {UNKNOWN_CLASS} (unknown)"
        )
    found = []
    for dataset, truth in zip(given, truths, strict=True):
        frames = film_numbers(dataset) if cfg.films else None
        parts = token_parts(subject, cfg.disk_gib, folder, dataset)
        found.append(
            {k: replace(p, masks=truth, sequence=None if frames is None else frames[p.id]) for k, p in parts.items()}
        )
    return found[0], found[1] if len(found) > 1 else None


def read_truth(dataset: data.Dataset, size: Size, file: Path) -> UInt8[np.ndarray, "n h w"]:
    """The masks of a data set, cut and resized as its images are, in a file. Raises ValueError where one is wrong."""
    if len(size) != 2:
        raise ValueError(f"masks are of pictures, but the samples have size {size}; use another kind of probe")
    truth = np.lib.format.open_memmap(file, "w+", np.uint8, (len(dataset), *size))
    for i in range(len(dataset)):
        truth[i] = dataset.mask(i, size)
    return truth


def film_numbers(dataset: data.Dataset) -> Int64[np.ndarray, " n"]:
    """The number of the film that each item is a frame of."""
    names = [dataset.film(i) for i in range(len(dataset))]
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def encoders_with_patches(subject: Subject) -> dict[str, Encode]:
    """Like `encoders_under_test`, but with the pixels of each patch as raw input if the encoder has patches."""
    method, encoders = subject.method, encoders_under_test(subject)
    patch = patch_of(method)
    if patch is None or subject.alone:
        return encoders

    def cut(batch: Batch) -> Float[Tensor, "b n d"]:
        return patches(method.normalize(batch.x), patch).flatten(2)

    return {**encoders, "raw": cut}


def patch_of(method: Method) -> tuple[int, ...] | None:
    """The patch that a token of the method's encoder reads, or None if the encoder does not define one."""
    found = getattr(getattr(method, "encoder", None), "patch", None)
    return None if found is None else tuple(found)


def grid_of_tokens(subject: Subject, n: int) -> Grid | None:
    """The grid of the encoder's `n` tokens in a sample; None if they do not form a grid of patches."""
    patch = patch_of(subject.method)
    grid = None if patch is None else grid_of(subject.method.signal.size, patch)
    return grid if grid is not None and int(np.prod(grid)) == n else None
