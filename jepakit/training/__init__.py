"""From a request to a trained run: resolve, session, loop, records."""

__all__ = ["estimate", "loop", "monitor", "request", "resolve", "rollback", "session", "stream"]
