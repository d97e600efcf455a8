"""The settings of a stream, and how its first frames become the warm-up set."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...types import Size
from ..collation import Corrupt
from ..config import NoAugmentation, SourceConfig
from ..images.box import check_size
from ..paths import existing_path
from .first import FirstFrames
from .folder import StopQuestion
from .frames import Place
from .source import BEGINNING, Reset, Source, never_stop

MIN_WINDOW = 2


@dataclass(frozen=True)
class Config(SourceConfig):
    """Frames one after the other. `path` is a folder, a file, or "-" for standard input.

    `size` (H, W) None: unchanged, but images above 96 pixels a side at 96 x 96. The run ends `wait` seconds after
    the last frame arrives (0: when everything there is read); a file counts as written once it is unchanged for
    `settle` seconds. `reset` file: every file is its own sequence. The first `warm` frames give mean and deviation
    and, as samples of `window` frames, the data that the panel measures. `corrupt`: skip a frame that is unreadable or
    has another shape, or end the run.
    """

    size: tuple[int, int] | None = None
    wait: float = 0.0
    settle: float = 1.0
    reset: Reset = "never"
    warm: int = 256
    window: int = 16
    corrupt: Corrupt = "skip"

    arrives: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size(self.size)
        for name in ("wait", "settle"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name):g}; give seconds, 0 or more")
        if self.window < MIN_WINDOW or self.warm <= self.window:
            raise ValueError(
                f"window is {self.window} and warm {self.warm}; give a window of {MIN_WINDOW} frames or more, "
                "and a larger warm"
            )

    @property
    def augment(self) -> NoAugmentation:
        """No augmentation: frames are used unchanged."""
        return NoAugmentation()

    def source(self, shape: Size = (), place: Place = BEGINNING, stop: StopQuestion = never_stop) -> Source:
        """The frames from `place` on, in the shape of the first one or in `shape`."""
        return Source(self.path, self.size, self.wait, self.settle, self.reset, self.corrupt, shape, place, stop)

    def open(self) -> FirstFrames:
        """The warm-up set; waits for its frames. Raises ValueError if the stream ends too early."""
        if self.path != "-":
            existing_path(self.path)
        source = self.source()
        frames = source.first(self.warm)
        if len(frames) < self.warm:
            lost = f" ({source.lost} could not be read: {source.skip_reasons})" if source.lost else ""
            where = "standard input" if self.path == "-" else str(Path(self.path))
            enough = len(frames) > MIN_WINDOW
            less = f", or a --data.warm of {len(frames)} or fewer with a --data.window below that" if enough else ""
            raise ValueError(
                f"{where} ended after {len(frames)} frames{lost}, fewer than the {self.warm} needed for statistics "
                f"before step 1; give more{less}"
            )
        return FirstFrames.from_frames(frames, self.window, source)
