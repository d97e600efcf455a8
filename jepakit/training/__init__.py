"""Trains a method: resolves its settings, builds the session, runs the loop, writes the records."""

__all__ = [
    "estimate",
    "loop",
    "monitor",
    "request",
    "resolve",
    "resume",
    "rollback",
    "session",
    "stages",
    "start",
    "stream",
]
