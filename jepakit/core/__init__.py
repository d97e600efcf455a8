"""What every room stands on: the registry, progress, processes, devices, files, padding, schedules, words, actions."""

__all__ = [
    "actions",
    "devices",
    "distributed",
    "draws",
    "files",
    "lazy",
    "notes",
    "padding",
    "progress",
    "registry",
    "schedules",
    "statistics",
    "version",
    "words",
]
