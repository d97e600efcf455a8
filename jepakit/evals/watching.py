"""What a person sees while a probe takes long."""

import time
from collections.abc import Sequence

from ..progress import Watch
from .probing import Tell

ENCODERS = {"value": "trained encoder", "random_init": "untrained encoder", "raw": "raw input"}


def rows(watch: Watch, kind: str, encoders: Sequence[str]) -> Tell:
    """Turns (encoder, fraction done) into the rows that `watch` shows, in hundredths of the whole."""
    begun = time.monotonic()

    def tell(encoder: str, fraction: float) -> None:
        done = (list(encoders).index(encoder) + fraction) / len(encoders)
        left = (time.monotonic() - begun) * (1 - done) / max(done, 1e-9)
        doing = f"{kind}: {ENCODERS.get(encoder, encoder)}"
        watch.row({"step": int(100 * done), "metrics": {"doing": doing, "eta": left}}, 100)

    return tell
