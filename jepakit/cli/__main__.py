"""The command `jepa`: parse, call the API, print.

Exit codes: 0 done, also where --on-collapse stopped it, 1 failed, 2 a user's mistake, 130 interrupted and saved.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.progress import Interrupted, watching
from .arguments import TAKE_SETTINGS, check_names, fail, parser, split_settings

WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


def train(a: argparse.Namespace) -> None:
    """`jepa train`."""
    from .. import api
    from . import text

    shortcuts = {"seed": a.seed, "length.steps": a.steps, "loop.on_collapse": a.on_collapse}
    request = api.Request(
        recipe=a.recipe,
        data=a.data,
        out=a.out,
        config=a.config,
        flags={**a.settings, **{k: v for k, v in shortcuts.items() if v is not None}},
        resume="auto" if a.resume == "auto" else a.resume is not None,
        allow_change=tuple(a.allow_change),
        overwrite=a.overwrite,
        init=a.init,
    )
    if a.print_config:
        print(api.settings_text(request), end="")
    elif a.dry_run:
        _print_table(api.dry_run(request))
    else:
        with watching() as watch:
            done = api.run(request, watch)
        if summary := text.describe(done):
            print(summary)


def probe(a: argparse.Namespace) -> None:
    """`jepa probe`."""
    from .. import api
    from . import text

    if a.responses:
        if a.kind != "rsa":
            raise ValueError(f"--kind {a.kind} has no use for --responses; give --kind rsa, or leave it out")
        a.settings["rsa.responses"] = a.responses
    with watching() as watch:
        paths = api.probe_run(
            Path(a.run_folder),
            (a.kind,),
            a.data,
            a.test,
            a.weights,
            a.name,
            a.settings,
            a.step,
            cache=not a.no_cache,
            watch=watch,
        )
    print(text.describe_probes(paths))


def embed(a: argparse.Namespace) -> None:
    """`jepa embed`."""
    from .. import api

    options = {
        "tokens": a.tokens,
        "weights": a.weights,
        "step": a.step,
        "batch": a.batch,
        "workers": a.workers,
        "overwrite": a.overwrite,
        "settings": a.settings,
    }
    try:
        with watching() as watch:
            done = api.embed(a.run_folder, data=a.data, out=a.out, watch=watch, **options)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on where it was", 130)
    print(f"{done.out}: {' × '.join(map(str, done.shape))}")
    if done.missing:
        print(f"{len(done.missing)} unreadable items have a row of NaN, among them {done.missing[0]}")


def score(a: argparse.Namespace) -> None:
    """`jepa score`."""
    from .. import api

    names = ("causal", "stride", "quantile", "plot", "batch", "overwrite", "step", "settings")
    options = {name: getattr(a, name) for name in names}
    with watching() as watch:
        done = api.score(a.run_folder, data=a.data, out=a.out, watch=watch, **options)
    print(f"{done.out}: {done.anomalous} of {done.scored} scored steps above {done.reference.threshold:.4g}")
    if done.short:
        few = "are shorter than anything that the run was trained on and have no scores"
        print(f"{len(done.short)} series {few}, among them {done.short[0]}")


def complete(a: argparse.Namespace) -> None:
    """`jepa complete`."""
    from .. import api

    options = {name: getattr(a, name) for name in ("hide", "limit", "steps", "overwrite", "settings")}
    with watching() as watch:
        done = api.complete(a.run_folder, data=a.data, out=a.out, watch=watch, **options)
    alike = "" if done.ssim is None else f", SSIM {done.ssim:.3f}"
    print(f"{done.out}: {done.items} items, MSE {done.mse:.4g}{alike}, sharpness {done.sharpness:.3g}")
    if done.skipped:
        print(f"skipped {len(done.skipped)} unreadable items, among them {next(iter(done.skipped))}")


def forecast(a: argparse.Namespace) -> None:
    """`jepa forecast`."""
    from .. import api

    options = {name: getattr(a, name) for name in ("plot", "overwrite", "step", "settings")}
    with watching() as watch:
        done = api.forecast(a.run_folder, a.data, a.horizon, a.out, watch=watch, **options)
    errors = ", ".join(f"{name} {error:.4g}" for name, error in done.errors.items())
    print(f"{done.out}: {done.horizon} steps of {done.series} series, read from {done.reader}")
    print(f"mean squared error on held-out data: {errors}")


def report(a: argparse.Namespace) -> None:
    """`jepa report`."""
    from .. import api

    print(api.report(*a.run_folders, out=a.out))


def compare(a: argparse.Namespace) -> None:
    """`jepa compare`."""
    from .. import api
    from . import text

    table, page = api.compare(*a.run_folders, out=a.out)
    print(f"{text.describe_comparison(table)}\nreport: {page}")


def check_data(a: argparse.Namespace) -> None:
    """`jepa check-data`."""
    from .. import api

    with watching() as watch:
        asked = {name: getattr(a, name) for name in ("image", "label", "fixations", "timing")}
        rows = api.check_data(a.path, csv=a.csv, **asked, watch=watch)
    _print_table(rows)


def list_names(a: argparse.Namespace) -> None:
    """`jepa list`."""
    from .. import api

    _print_table(api.names())


def doctor(a: argparse.Namespace) -> None:
    """`jepa doctor`."""
    from .. import api

    _print_table(api.doctor(data=a.data))


def reproduce(a: argparse.Namespace) -> None:
    """`jepa reproduce`."""
    from .. import api
    from . import text

    with watching() as watch:
        rows, page = api.reproduce(a.study, a.data, a.out, seeds=a.seeds, steps=a.steps, watch=watch)
    print(f"{text.describe_study(rows)}\nreport: {page}")


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "probe": probe,
    "embed": embed,
    "score": score,
    "forecast": forecast,
    "complete": complete,
    "report": report,
    "compare": compare,
    "reproduce": reproduce,
    "check-data": check_data,
    "list": list_names,
    "doctor": doctor,
}


def _print_table(rows: Sequence[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words, settings = split_settings(sys.argv[1:] if argv is None else argv)
    root, commands = parser()
    check_names(words, commands)
    a, unexpected = root.parse_known_args(words)
    if unexpected:
        fail(f"unexpected {unexpected[0]!r}; `jepa {a.command or ''} --help` shows what may stand there", 2)
    if settings and a.command not in TAKE_SETTINGS:
        fail(f"--{next(iter(settings))} is a setting; only {', '.join(TAKE_SETTINGS)} take settings", 2)
    a.settings = settings
    if a.version:
        from .. import __version__

        print(__version__)
        return 0
    if a.command is None:
        root.print_help()
        return 0
    return guarded(COMMANDS[a.command], a)


def guarded(run: Callable[[argparse.Namespace], None], a: argparse.Namespace) -> int:
    """Run a command on its parsed words; an error becomes one sentence and a code."""
    try:
        run(a)
    except Interrupted as error:
        fail(str(error), 130)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except (ValueError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
        if a.debug:
            raise
        fail(*told(error))
    return 0


def told(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    if isinstance(error, ValueError):
        return str(error), 2
    # A path that is wrong is the user's to mend; a disk that is full or fails is not named by its class.
    if isinstance(error, WRONG_PATH) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give another path", 2
    # PyTorch's errors differ by device; what they have in common is the size that was asked for.
    if asked := re.search(r"tried to allocate ([\d.]+) (\w+)", str(error), re.IGNORECASE):
        size = " ".join(asked.groups()) if asked[2] != "bytes" else f"{int(asked[1]) / 2**30:,.1f} GiB"
        return f"memory ran out, as {size} more were asked for; give a smaller --length.batch or narrower networks", 1
    return f"{error} (--debug shows where)", 1


if __name__ == "__main__":
    raise SystemExit(main())
