"""What a user calls, from Python or from the command line: train, load, embed, probe, report, check_data."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch

from . import checkpoint, config, distributed, prepare, session, training
from .config import Run
from .data import read_image, reading
from .embedding import Embedded, check_out
from .embedding import embed as write_rows
from .evals.runs import probe_run
from .methods.base import Method, Weights
from .progress import Silent, Watch
from .request import PathLike, Request, settings
from .show import describe, describe_probes, names
from .types import Signal

__all__ = [
    "Model",
    "Request",
    "check_data",
    "describe",
    "describe_probes",
    "doctor",
    "dry_run",
    "embed",
    "load",
    "names",
    "probe",
    "report",
    "run",
    "settings",
    "settings_text",
    "train",
]


def settings_text(request: Request) -> str:
    """The settings as YAML, autos as null."""
    return config.to_yaml(settings(request))


def train(
    data: PathLike | None = None,
    out: PathLike | None = None,
    *,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: Literal[False, True, "auto"] = False,
    allow_change: Sequence[str] = (),
    overwrite: bool = False,
    init: PathLike | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train on a folder, manifest, shards, parquet or arrays; returns the content of summary.json.

    `recipe` is a recipe, a method (default "ijepa") or a YAML file; `settings` are dotted, as {"optim.lr": 1e-3}.
    Where there are labels the encoder is probed, and the run's report.html is written.
    """
    short = {"length.steps": steps, "seed": seed}
    flags = {**(settings or {}), **{k: v for k, v in short.items() if v is not None}}
    recipe = recipe or (None if resume else "ijepa")
    request = Request(recipe, data, out, None, flags, resume, allow_change, overwrite, init)
    summary: dict[str, Any] = run(request, watch or Silent())["summary"]
    return summary


def run(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, probe and report as `request` says; returns the folder, the summary, the probe files and the page."""
    wanted = settings(request)
    with distributed.setup(prepare.device_for(wanted.loop.device)) as dist:
        watch = watch if dist.main else Silent()
        current = begin(request, wanted, dist)
        for note in current.notes:
            watch.note(note)
        summary = training.train(current, watch)
        if not dist.main:
            return {"folder": request.folder, "summary": summary, "probes": [], "page": None}
    probes = after(current, watch) if current.dataset.classes else []
    page = report(request.folder) if current.run.evals.report else None
    return {"folder": request.folder, "summary": summary, "probes": probes, "page": page}


def begin(request: Request, wanted: Run, dist: distributed.Dist) -> session.Session:
    """A session, new or resumed; the run folder exists from here on."""
    out = request.folder
    if request.resume and (request.init is not None or request.overwrite):
        other = "--init" if request.init is not None else "--overwrite"
        raise ValueError(f"--resume goes on with what is there and {other} begins anew; give one of them")
    resuming = request.resume is True or (request.resume == "auto" and bool(checkpoint.steps(out)))
    if resuming:
        current = session.build(wanted, out, dist)
        session.restore(current, request.allow_change)
        if dist.main:
            session.write_settings(current)
        return current
    if dist.main:
        session.check_free(out, replace=request.overwrite or request.resume == "auto")
    current = session.build(wanted, out, dist)
    if request.init is not None:
        session.start_from(current, Path(request.init))
    if dist.main:
        session.clear(out)
        session.write_settings(current)
    distributed.barrier()
    return current


def dry_run(request: Request) -> list[tuple[str, str]]:
    """Parameters, FLOPs, memory and time of the run, as rows; writes nothing."""
    wanted = settings(request)
    with distributed.setup(prepare.device_for(wanted.loop.device)) as dist:
        current = session.build(wanted, request.folder, dist)
        cost = prepare.estimate(current.run, current.method, *training.rehearsal(current))
    return [
        *((note.partition(" = ")[0], note.partition(" = ")[2]) for note in current.notes if " = " in note),
        ("samples", f"{len(current.dataset):,}"),
        ("parameters", f"{cost.parameters / 1e6:.2f} M, {cost.trainable / 1e6:.2f} M trained"),
        ("compute", f"{cost.gigaflops_per_step:.4g} GFLOP per step of {current.run.length.batch} samples"),
        ("memory", f"about {cost.memory_bytes / 2**30:.2f} GiB"),
        (
            "time",
            f"about {cost.seconds_per_step:.2f} s per step, {cost.seconds / 60:.1f} min for {current.steps} steps",
        ),
    ]


@dataclass(frozen=True)
class Model:
    """A trained run, ready to use: `model.encode(images)`."""

    loaded: checkpoint.Loaded

    @property
    def method(self) -> Method:
        """The trained method, in eval mode."""
        return self.loaded.method

    def encode(self, images: torch.Tensor | PathLike | Sequence[PathLike], weights: Weights = "target") -> torch.Tensor:
        """Representations (B, N, D), one per patch, on the CPU.

        `images` is a tensor (B, C, *size) of raw values (pixels in [0, 1]; any size the patch divides), or one or
        several image files, which are resized and cut to the centre as in training's evaluation. Raises ValueError,
        with the way out, for anything else.
        """
        x = _samples(images, self.method.signal)
        with torch.inference_mode():
            return self.method.encode(x.to(self.method.mean), weights)


def _samples(images: object, signal: Signal) -> torch.Tensor:
    """What `encode` was given, as a batch of raw samples."""
    if isinstance(images, torch.Tensor):
        if images.ndim != 2 + len(signal.size) or images.shape[1] != signal.channels:
            raise ValueError(
                f"the samples are {tuple(images.shape)}, but the model takes (batch, {signal.channels}, *size), e.g. "
                f"{(1, signal.channels, *signal.size)}; x[None] makes a batch of one sample, "
                f"x.repeat_interleave({signal.channels}, 1) repeats a single channel"
            )
        if not images.is_floating_point():
            raise ValueError(f"the samples are {images.dtype}; give floats, pixels in [0, 1], e.g. x / 255")
        return images
    paths = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
        raise ValueError(
            "encode takes a float tensor (batch, channels, *size) or one image file or more; "
            "turn an array into one by torch.from_numpy(x), or several tensors by torch.stack(x)"
        )
    return torch.stack([read_image(Path(p), signal) for p in paths])


def load(run: PathLike, step: int | None = None) -> Model:
    """The model of a run folder, from its newest checkpoint or that of `step`."""
    return Model(checkpoint.load_run(Path(run), step))


def probe(
    run: PathLike,
    kind: str = "knn",
    *,
    data: PathLike | None = None,
    test: PathLike | None = None,
    weights: Weights = "target",
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> Path:
    """Judge a run's encoder by `kind`, beside the untrained encoder and the raw input; the evals/*.json written.

    Without `data` the run's own data are used, without `test` a fixed fifth of them is held out. `settings` are the
    kind's own, as {"knn.k": 5}; `step` is that of a checkpoint, by default the newest.
    """
    train, held = (None if path is None else os.fspath(path) for path in (data, test))
    return probe_run(Path(run), (kind,), train, held, weights, name, settings, step)[0]


def embed(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    tokens: bool = False,
    weights: Weights = "target",
    batch: int = 64,
    workers: int | None = None,
    overwrite: bool = False,
    step: int | None = None,
) -> Embedded:
    """Write the representation of every item of `data`, in its order, to a .parquet, .npy or .csv file.

    Ids stand beside the rows. A run that was interrupted goes on where it was when called again. `step` is that of a
    checkpoint, by default the newest.
    """
    if batch < 1:
        raise ValueError(f"the batch is {batch}; give 1 or more, e.g. --batch 64")
    check_out(Path(out), overwrite)
    loaded = checkpoint.load_run(Path(run), step)
    channels = loaded.method.signal.channels
    dataset = reading(loaded.run.data, os.fspath(data), channels=channels, split="all", limit=0).open()
    identity = _identity(loaded, weights)
    device, _ = prepare.best_device()
    encode = partial(loaded.method.to(device).encode, weights=weights)
    signal, workers = loaded.method.signal, (loaded.run.loop.workers or 0) if workers is None else workers
    return write_rows(
        encode,
        dataset,
        signal,
        Path(out),
        tokens=tokens,
        batch=batch,
        workers=workers,
        device=device,
        overwrite=overwrite,
        identity=identity,
    )


def _identity(loaded: checkpoint.Loaded, weights: Weights) -> str:
    """A hash of what the representations depend on beside the data: step, settings of the method, weights."""
    digest = blake2b(repr((loaded.step, weights, loaded.run.method)).encode(), digest_size=16)
    for name, value in sorted(loaded.method.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def report(*runs: PathLike, out: PathLike | None = None) -> Path:
    """Write one self-contained HTML page about one or several runs; where it was written."""
    from .reporting import write

    return write([Path(run) for run in runs], None if out is None else Path(out))


def after(current: session.Session, watch: Watch) -> list[Path]:
    """The probes that follow the last step, in one pass over the data; a kind that cannot judge them becomes a note."""
    kinds = current.run.evals.kinds
    if not kinds:
        return []
    watch.note(f"probing: {', '.join(kinds)}")

    def refused(kind: str, error: ValueError) -> None:
        watch.note(f"no {kind}: {error}")

    try:
        return probe_run(current.out, kinds, refused=refused)
    except ValueError as error:
        refused("probes", error)
        return []


def check_data(path: PathLike, csv: PathLike | None = None) -> list[tuple[str, str]]:
    """Read every item of a data set; rows of what was found. With `csv`, also a file with a row per problem."""
    from .data.check import check

    found = check(os.fspath(path))
    if csv is not None:
        rows = ["item,problem,detail", *(f"{_cell(p.name)},{p.problem},{_cell(p.detail)}" for p in found.problems)]
        checkpoint.write_text(Path(csv), "\n".join(rows) + "\n")
    return found.rows()


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def doctor(data: PathLike | None = None) -> list[tuple[str, str]]:
    """What is installed, what this machine can do, and how fast `data` is read beside a training step, as rows."""
    from .doctor import diagnose

    return diagnose(None if data is None else os.fspath(data))
