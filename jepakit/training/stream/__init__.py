"""Learning from a stream: an optimiser step for every `length.batch` frames as they arrive, each frame seen once."""

from .source import StreamSource, first_frames

__all__ = ["StreamSource", "first_frames"]
