"""Defines a run: its settings and its folder on disk."""

__all__ = ["checkpoint", "folder", "intervals", "metrics", "optim", "own_data", "parse", "settings", "write"]
