"""Defines a run: its settings and its folder on disk."""

__all__ = ["checkpoint", "intervals", "metrics", "optim", "parse", "settings", "write"]
