"""Progress shown while a run trains: a live bar in a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable


class Interrupted(RuntimeError):  # noqa: N818 - a request, not a fault
    """The run was asked to stop and has been saved."""


@runtime_checkable
class Progress(Protocol):
    """Receives notes of one sentence, and the logged rows of a run of `steps` steps (0: the end is not known)."""

    def note(self, text: str) -> None:
        """Show a sentence that is worth reading now."""

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Show a row that was just written to metrics.jsonl."""


class SilentProgress:
    """Shows nothing: the default of every function but `train`."""

    def note(self, text: str) -> None:
        """Ignore the note."""

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Ignore the row."""


def describe_row(row: dict[str, Any]) -> str:
    """One line with the loss, normalised loss, throughput and verdict of a logged row, or with the other work done."""
    metrics = row["metrics"]
    if "doing" in metrics:
        return str(metrics["doing"])
    parts = [f"loss {row['loss']:.4f}"]
    if metrics.get("normalized_loss") is not None:
        parts.append(f"normalised {metrics['normalized_loss']:.3f}")
    parts.append(f"{metrics['throughput']:.0f} samples/s")
    parts.append(f"{metrics['verdict']}")
    return "  ".join(parts)


def other_work(row: dict[str, Any]) -> str:
    """What a row counts that is not training, such as "probing knn"; "" for a row of a training."""
    return str(row["metrics"].get("doing", "")).partition("  ")[0].partition(":")[0]


class LineProgress:
    """Prints a line every few seconds, for logs and pipes."""

    def __init__(self, every: float = 10.0) -> None:
        self.every, self.last = every, 0.0

    def note(self, text: str) -> None:
        """Print the note."""
        sys.stderr.write(text + "\n")

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Print the row if enough time has passed, or if it is the last one."""
        now = time.monotonic()
        if now - self.last >= self.every or row["step"] == steps:
            self.last = now
            of, left = (f"/{steps}", f"  ETA {format_duration(row['metrics']['eta'])}") if steps else ("", "")
            what = "" if other_work(row) else "step "
            sys.stderr.write(f"{what}{row['step']}{of}  {describe_row(row)}{left}\n")
            sys.stderr.flush()


def format_duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class LiveProgress:
    """A progress bar in a terminal, with the newest row beside it; work of another name gets a bar of its own."""

    def __init__(self, progress: Any) -> None:
        self.progress, self.task, self.work = progress, None, ""

    def note(self, text: str) -> None:
        """Print the note above the bar."""
        self.progress.console.print(text, highlight=False, markup=False)

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Move the bar of this row's work to its step."""
        work = other_work(row)
        if self.task is None or work != self.work:
            if self.task is not None:
                # A bar that has ended must not go on counting time.
                self.progress.stop_task(self.task)
            self.task, self.work = self.progress.add_task("", total=steps or None), work
        self.progress.update(self.task, total=steps or None, completed=row["step"], description=describe_row(row))


def progress_counter(progress: Progress, doing: str, what: str) -> Callable[[int, int], None]:
    """A function of (done, total) that shows progress on `progress`; `what` names the items, such as "images"."""
    begun = time.monotonic()

    def tell(done: int, total: int) -> None:
        taken = time.monotonic() - begun
        left = taken * (total - done) / max(done, 1)
        metrics = {"doing": f"{doing}  {done / max(taken, 1e-9):.0f} {what}/s", "eta": left}
        progress.row({"step": done, "metrics": metrics}, total)

    return tell


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """A live bar if stderr is a terminal, plain lines if it is not."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.MofNCompleteColumn(),
        bars.BarColumn(None),
        bars.TextColumn("{task.description}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        yield LiveProgress(bar)
