"""What a person sees while a run trains: a live line in a terminal, plain lines in a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable


class Interrupted(RuntimeError):  # noqa: N818 - a request, not a fault
    """The run was asked to stop, and has been saved."""


@runtime_checkable
class Watch(Protocol):
    """Receives one-sentence notes and the logged rows of a run of `steps` steps, 0 where its end is not known."""

    def note(self, text: str) -> None:
        """A sentence worth reading now."""

    def row(self, row: dict[str, Any], steps: int) -> None:
        """A row of metrics.jsonl, just written."""


class Silent:
    """Shows nothing: the library's default."""

    def note(self, text: str) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Nothing."""


def describe(row: dict[str, Any]) -> str:
    """Loss, normalised loss, throughput and verdict of a logged row, in one line; or what else is being done."""
    metrics = row["metrics"]
    if "doing" in metrics:
        return str(metrics["doing"])
    parts = [f"loss {row['loss']:.4f}"]
    if metrics.get("normalized_loss") is not None:
        parts.append(f"normalised {metrics['normalized_loss']:.3f}")
    parts.append(f"{metrics['throughput']:.0f} samples/s")
    parts.append(f"{metrics['verdict']}")
    return "  ".join(parts)


class Lines:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, every: float = 10.0) -> None:
        self.every, self.last = every, 0.0

    def note(self, text: str) -> None:
        """Print the note."""
        sys.stderr.write(text + "\n")

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Print the row if it is time, or the last."""
        now = time.monotonic()
        if now - self.last >= self.every or row["step"] == steps:
            self.last = now
            of, left = (f"/{steps}", f"  ETA {clock(row['metrics']['eta'])}") if steps else ("", "")
            sys.stderr.write(f"step {row['step']}{of}  {describe(row)}{left}\n")
            sys.stderr.flush()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Live:
    """A progress bar with the newest row, in a terminal."""

    def __init__(self, progress: Any) -> None:
        self.progress, self.task = progress, None

    def note(self, text: str) -> None:
        """Print the note above the bar."""
        self.progress.console.print(text, highlight=False, markup=False)

    def row(self, row: dict[str, Any], steps: int) -> None:
        """Move the bar."""
        if self.task is None:
            self.task = self.progress.add_task("", total=steps or None)
        self.progress.update(self.task, total=steps or None, completed=row["step"], description=describe(row))


def counting(watch: Watch, doing: str, what: str) -> Callable[[int, int], None]:
    """Turns (done, all) into the rows that `watch` shows: what is being done to `what`, such as images."""
    begun = time.monotonic()

    def tell(done: int, total: int) -> None:
        taken = time.monotonic() - begun
        left = taken * (total - done) / max(done, 1)
        metrics = {"doing": f"{doing}  {done / max(taken, 1e-9):.0f} {what}/s", "eta": left}
        watch.row({"step": done, "metrics": metrics}, total)

    return tell


@contextmanager
def watching() -> Iterator[Watch]:
    """A live bar where stderr is a terminal, lines where it is not."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), BarColumn(None), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Live(progress)
